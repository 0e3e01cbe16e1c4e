import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.domain.errors import InvalidData
from noria.evaluation.near import NEAR, Neighbours, _jaccard, pairs_of
from noria.settings.dataset import Dataset
from noria.training.datasets.sides import held_out, latest, split
from noria.training.sources import Row, read_file

START = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = "the parcel that you sent me last week came broken and nobody answers the phone so i want my money back now"
SENTENCES = st.lists(st.sampled_from(["red", "green", "blue", "old", "new"]), min_size=8, max_size=16).map(" ".join)


def rows(*texts: str, label: str = "a") -> list[Row]:
    return [Row(text=text, label=label) for text in texts]


def varied(held: bool) -> list[str]:
    """A long text and one that is nearly the same but stands on the other side."""
    one = next(f"{WORDS} {n}" for n in range(100) if held_out(f"{WORDS} {n}", 0.5) is held)
    return [one, next(f"{WORDS} {n}" for n in range(100) if held_out(f"{WORDS} {n}", 0.5) is not held)]


@given(st.lists(SENTENCES, max_size=12))
def test_neighbours_are_found_exactly_like_by_comparing_all_with_all(texts: list[str]) -> None:
    neighbours = Neighbours(texts)
    pairs = [pairs_of(text) for text in texts]
    for place, mine in enumerate(pairs):
        slow = [n for n in range(place) if mine and pairs[n] and _jaccard(mine, pairs[n]) >= NEAR]
        assert list(neighbours.of(place)) == slow
        neighbours.add(place)


def test_a_short_text_is_like_no_other() -> None:
    found = split(rows("not good at all", "not bad at all"), 0.5, "text")
    assert len(found.train) + len(found.holdout) == 2


def test_what_is_said_again_nearly_word_for_word_is_kept_once() -> None:
    same = [f"{WORDS} {n}" for n in range(40) if held_out(f"{WORDS} {n}", 0.5)]
    found = split(rows(*same), 0.5, "text")
    assert (len(found.holdout), found.near) == (1, len(same) - 1)


def test_what_two_people_call_by_two_names_is_kept() -> None:
    one, other = [f"{WORDS} {n}" for n in range(100) if held_out(f"{WORDS} {n}", 0.5)][:2]
    assert len(split([*rows(one), *rows(other, label="b")], 0.5, "text").holdout) == 2


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("label", ["a", "b"])
def test_nothing_is_learnt_that_is_nearly_what_is_judged_on(held: bool, label: str) -> None:
    first, second = varied(held)
    found = split([*rows(first), *rows(second, label=label)], 0.5, "text")
    assert found.crossing == 1
    assert [row.text for row in (found.holdout if held else found.train)] == [first]


def test_what_a_person_held_out_is_on_neither_side() -> None:
    found = split(rows("short and sweet", f"{WORDS} 1", "another text"), 0.5, "text", ["Short  and sweet", WORDS])
    assert found.frozen == 2
    assert [row.text for row in [*found.train, *found.holdout]] == ["another text"]


@given(st.lists(st.tuples(SENTENCES, st.sampled_from("xyz")), max_size=30))
def test_a_group_is_never_on_both_sides(given_rows: list[tuple[str, str]]) -> None:
    kept, _, _ = latest(Row(text=text, label=unit, unit=unit) for text, unit in given_rows)
    found = split(kept, 0.4, "group")
    assert not {row.unit for row in found.train} & {row.unit for row in found.holdout}


def test_a_text_that_comes_again_in_another_group_stays_with_the_first() -> None:
    kept, _, _ = latest([Row(text="hello", label="a", unit="u1"), Row(text="Hello", label="b", unit="u2")])
    assert [(row.label, row.unit) for row in kept] == [("b", "u1")]


def test_by_time_the_newest_records_are_held_out() -> None:
    timed = [replace(row, time=START + timedelta(days=n)) for n, row in enumerate(rows(*map(str, range(100))))]
    found = split(timed, 0.25, "time")
    assert len(found.holdout) == 25
    assert max(row.time for row in found.train if row.time) < min(row.time for row in found.holdout if row.time)


def test_groups_need_a_key() -> None:
    with pytest.raises(ValueError, match="say by split_key"):
        Dataset(data="rows.csv", split="group")


def test_chats_are_read_from_lines_as_openai_takes_them(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi, secret"}]
    line = {"messages": [*chat, {"role": "assistant", "content": "Hello"}], "rejected": "Go away", "group": "north"}
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(line) + "\n\n" + json.dumps({"text": "fine", "label": "good"}) + "\n")
    chatted, plain = read_file(file, lambda text: text.replace("secret", "[x]"))
    assert (chatted.text, chatted.label, chatted.rejected, chatted.group) == ("Hi, [x]", "Hello", "Go away", "north")
    assert json.loads(chatted.messages or "")[1] == {"role": "user", "content": "Hi, [x]"}
    assert (plain.text, plain.label, plain.messages) == ("fine", "good", None)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("nothing", "Line 2 of rows.jsonl is not a JSON object"),
        ('{"text": "a"}', "Line 2 of rows.jsonl has no text `text` or no text `label`"),
        ('{"text": "a", "label": " "}', "Line 2 of rows.jsonl has an empty label"),
        ('{"messages": []}', "Line 2 of rows.jsonl has no list of messages"),
        ('{"messages": [{"content": "a"}]}', "Message 1 in Line 2 of rows.jsonl has no role"),
        ('{"messages": [{"role": "user", "content": 3}]}', "has no text as its content"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "doesn't end with the assistant's answer"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "no message of the user's"),
    ],
)
def test_a_line_that_is_no_example_is_named(tmp_path: Path, line: str, problem: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{{"text": "fine", "label": "good"}}\n{line}\n')
    with pytest.raises(InvalidData, match=problem):
        read_file(file, str)
