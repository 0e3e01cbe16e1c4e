import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.records import MemoryRecords
from noria.domain.errors import InvalidData
from noria.settings import Project, Settings
from noria.tables import FEEDBACK, INFERENCE
from noria.training.datasets import DatasetSummary, held_out, keep, latest, normalised, read_holdout, snapshot, validate
from noria.training.sources import Row, count_labels, read_file, read_labelled

START = datetime(2026, 1, 1, tzinfo=UTC)
TEXTS = st.text(min_size=1, max_size=30)


def same(text: str) -> str:
    return text


def settings(root: Path, data: str = "rows.csv", **training: Any) -> Settings:
    endpoint = {
        "task": "classification",
        "policy": "policy.yaml",
        "group": "brand",
        "training": {"data": data} | training,
    }
    return Settings(root=root, project=Project.model_validate({"project": "wheel", "endpoints": {"triage": endpoint}}))


def write_csv(root: Path, rows: int = 200, seed: int = 1) -> Path:
    rng = random.Random(seed)
    lines = [f"message {i} {rng.random()},{'good' if i % 2 else 'bad'},own" for i in range(rows)]
    file = root / "rows.csv"
    file.write_text("text,label,group\n" + "\n".join(lines) + "\n")
    return file


def record(n: int, text: str | None = None, **changes: Any) -> dict[str, Any]:
    body = json.dumps({"input": text if text is not None else f"record {n}"})
    return {
        "databricks_request_id": f"r{n}",
        "request_time": START + timedelta(minutes=n),
        "request": body,
        "endpoint": "triage",
        "route": "champion",
        "outcome": "answered",
        "metadata": [("brand", "north"), ("user", "u1")],
    } | changes


def label(n: int, value: str | None = "good", minute: int | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "feedback_id": f"f{n}-{value}-{minute}",
        "request_id": f"r{n}",
        "endpoint": "triage",
        "feedback_time": START + timedelta(minutes=n + 1 if minute is None else minute),
        "label": value,
    } | changes


def fill(store: MemoryRecords, records: list[dict[str, Any]], feedback: list[dict[str, Any]], version: int = 1) -> None:
    store.append("inference", pa.Table.from_pylist(records, INFERENCE), "test", version)
    store.append("feedback", pa.Table.from_pylist(feedback, FEEDBACK), "test", version)


@given(TEXTS, st.floats(0.05, 0.9))
def test_a_text_stays_on_its_side_however_it_is_written(text: str, share: float) -> None:
    assert held_out(text, share) == held_out(f"  {text}\n", share) == held_out(normalised(text), share)
    if held_out(text, share):
        assert held_out(text, min(1.0, share + 0.05))


def test_about_the_asked_share_is_held_out() -> None:
    assert 0.23 < sum(held_out(f"text {i}", 0.25) for i in range(10_000)) / 10_000 < 0.27


@given(st.lists(st.tuples(st.sampled_from(["a", "A ", "b", "c"]), st.sampled_from(["x", "y"]))))
def test_each_text_is_kept_once_with_what_was_said_last(pairs: list[tuple[str, str]]) -> None:
    rows, duplicates, conflicts = latest(Row(text=text, label=label) for text, label in pairs)
    assert {normalised(r.text): r.label for r in rows} == {normalised(t): value for t, value in pairs}
    assert len(rows) + duplicates == len(pairs)
    assert conflicts <= duplicates


def test_rows_of_both_origins_are_frozen_with_their_groups_and_sources(tmp_path: Path) -> None:
    write_csv(tmp_path)
    store = MemoryRecords()
    fill(store, [record(n) for n in range(40)], [label(n, "good" if n % 3 else "bad") for n in range(40)])
    summary = snapshot("triage", settings(tmp_path), store, tmp_path / "work", same)
    validate(summary)
    rows = pa.concat_tables([pq.read_table(summary.train), pq.read_table(summary.holdout)]).to_pylist()
    assert len(rows) == 240
    assert summary.production_rows == 40
    real = [row for row in rows if row["origin"] == "production"]
    assert {row["group"] for row in real} == {"north"}
    assert {row["group"] for row in rows if row["origin"] == "baseline"} == {"own"}
    one = next(row for row in real if row["request_id"] == "r7")
    assert (one["text"], one["label"], one["time"]) == ("record 7", "good", START + timedelta(minutes=7))
    assert (summary.inference_version, summary.feedback_version) == (0, 0)
    assert json.loads((tmp_path / "work" / "dataset.json").read_text())["production_rows"] == 40


def test_no_row_ever_changes_sides_when_more_labels_come(tmp_path: Path) -> None:
    write_csv(tmp_path)
    store = MemoryRecords()
    fill(store, [record(n) for n in range(60)], [label(n) for n in range(30)])
    first = snapshot("triage", settings(tmp_path), store, tmp_path / "one", same)
    fill(store, [], [label(n) for n in range(30, 60)], version=2)
    second = snapshot("triage", settings(tmp_path), store, tmp_path / "two", same)
    learnt_before = set(pq.read_table(first.train)["text"].to_pylist())
    held_now = set(pq.read_table(second.holdout)["text"].to_pylist())
    assert not learnt_before & held_now
    assert second.production_rows == 60


def test_the_label_that_came_last_holds(tmp_path: Path) -> None:
    store = MemoryRecords()
    fill(
        store, [record(1), record(2)], [label(1, "good", 5), label(1, "bad", 9), label(2, "bad", 3), label(2, None, 9)]
    )
    found = read_labelled(store, "triage", "brand")
    assert [(row.request_id, row.label) for row in found.rows] == [("r1", "bad"), ("r2", "bad")]


def test_a_label_that_is_sent_again_does_not_take_back_a_correction() -> None:
    store = MemoryRecords()
    first, corrected = label(1, "good", 5), label(1, "bad", 9)
    fill(
        store,
        [record(1)],
        [first, corrected, {**first, "feedback_time": corrected["feedback_time"] + timedelta(hours=1)}],
    )
    assert [row.label for row in read_labelled(store, "triage", None).rows] == ["bad"]
    assert count_labels(store, "triage") == 1


def test_shadows_strangers_and_requests_without_exactly_one_text_are_not_learnt_from() -> None:
    store = MemoryRecords()
    fill(
        store,
        [
            record(1, route="shadow"),
            record(2, endpoint="other"),
            record(3, request='{"inputs": ["one", "two"]}'),
            record(4, request="not json"),
            record(5),
            record(6),
        ],
        [label(n) for n in (1, 2, 3, 4, 5)],
    )
    found = read_labelled(store, "triage", None)
    assert [row.request_id for row in found.rows] == ["r5"]
    assert found.rows[0].group == ""
    assert found.skipped == 2


def test_a_chat_becomes_its_messages_the_wanted_answer_and_the_rejected_one() -> None:
    store = MemoryRecords()
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]

    def said(text: str) -> str:
        return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})

    request = json.dumps({"messages": messages})
    fill(
        store,
        [record(1, request=request, response=said("Go away")), record(2, request=request, response=said("Hello!"))],
        [label(1, "Hello from Ann!"), label(2, "Hello!")],
    )
    redact = lambda text: text.replace("Ann", "[x]")  # noqa: E731
    first, second = read_labelled(store, "triage", None, unit_key="user", chat=True, redact=redact).rows
    assert (first.text, first.label, first.rejected, first.unit) == ("Hi", "Hello from [x]!", "Go away", "u1")
    assert json.loads(first.messages or "") == messages
    assert (second.label, second.rejected) == ("Hello!", None)


def test_labels_are_counted_from_a_moment_on() -> None:
    store = MemoryRecords()
    fill(store, [record(n) for n in range(10)], [label(n) for n in range(8)])
    assert count_labels(store, "triage") == 8
    assert count_labels(store, "triage", START + timedelta(minutes=5)) == 3
    assert count_labels(store, "elsewhere") == 0


def test_tables_that_are_not_there_yet_hold_no_labels() -> None:
    assert read_labelled(MemoryRecords(), "triage", "brand").rows == []


def test_a_repeat_of_the_snapshot_writes_the_same_rows(tmp_path: Path) -> None:
    write_csv(tmp_path)
    first = snapshot("triage", settings(tmp_path), MemoryRecords(), tmp_path / "work", same)
    before = Path(first.train).read_bytes()
    assert snapshot("triage", settings(tmp_path), MemoryRecords(), tmp_path / "work", same) == first
    assert Path(first.train).read_bytes() == before


def test_a_runs_rows_are_in_the_table_once_however_often_the_step_is_repeated(tmp_path: Path) -> None:
    write_csv(tmp_path)
    store, work = MemoryRecords(), tmp_path / "work"

    def make() -> DatasetSummary:
        return snapshot("triage", settings(tmp_path), store, work, same)

    first = keep("triage", "run-1", store, work, START, make)
    before = Path(first.holdout).read_bytes()
    fill(store, [record(n) for n in range(40)], [label(n) for n in range(40)])
    again = keep("triage", "run-1", store, work, START + timedelta(hours=1), make)
    assert again == first
    assert Path(first.holdout).read_bytes() == before
    rows = store.scan("datasets", endpoint="triage", snapshot=first.dataset_version).to_pylist()
    assert len(rows) == sum(first.train_labels.values()) + sum(first.holdout_labels.values())
    assert {(row["run_id"], row["frozen_time"]) for row in rows} == {("run-1", START)}
    held = {row["text"] for row in rows if row["split"] == "holdout"}
    assert held == set(pq.read_table(first.holdout)["text"].to_pylist())


def test_the_projects_own_texts_are_redacted_like_the_records(tmp_path: Path) -> None:
    write_csv(tmp_path)
    summary = snapshot(
        "triage", settings(tmp_path), MemoryRecords(), tmp_path / "w", lambda t: t.replace("message", "[x]")
    )
    assert all(t.startswith("[x] ") for t in pq.read_table(summary.train)["text"].to_pylist())


def test_a_label_that_hardly_anybody_gives_is_left_out_and_named(tmp_path: Path) -> None:
    file = write_csv(tmp_path)
    file.write_text(file.read_text() + "odd one,godo,own\n")
    summary = snapshot("triage", settings(tmp_path), MemoryRecords(), tmp_path / "work", same)
    assert summary.left_out == {"godo": 1}
    assert set(summary.train_labels) == {"good", "bad"}
    validate(summary)


def test_the_gates_get_the_held_out_rows(tmp_path: Path) -> None:
    write_csv(tmp_path)
    summary = snapshot("triage", settings(tmp_path), MemoryRecords(), tmp_path / "work", same)
    rows = read_holdout(tmp_path / "work")
    assert rows is not None
    assert len(rows.texts) == len(rows.labels) == len(rows.groups) == sum(summary.holdout_labels.values())
    assert set(rows.origins) == {"baseline"}
    assert read_holdout(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("text,group\nhello,x\n", "has no column label; it has text, group"),
        ("", "has no column text; it has none"),
        ("text,text,label\na,b,c\n", "has the column text twice"),
        ("text,label\nhello,good\n,bad\n", "Line 3 of rows.csv has an empty text"),
        ("text,label\nhello, \n", "Line 2 of rows.csv has an empty label"),
        ("text,label\nhello\n", "Line 2 of rows.csv has not as many cells"),
        ("text,label\nhello,good,extra\n", "Line 2 of rows.csv has not as many cells"),
        ('text,label\n"hello,good\n', "is not CSV"),
    ],
)
def test_a_data_file_that_cannot_be_used_is_explained(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "rows.csv").write_text(content)
    with pytest.raises(InvalidData, match=problem):
        read_file(tmp_path / "rows.csv", same)


def test_bytes_that_are_not_utf8_are_explained(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"text,label\ncaf\xe9,good\n")
    with pytest.raises(InvalidData, match=r"not UTF-8: .* at byte 14"):
        read_file(tmp_path / "rows.csv", same)
    with pytest.raises(InvalidData, match="isn't there"):
        read_file(tmp_path / "absent.csv", same)


def test_parquet_is_read_too_and_its_rows_are_counted_from_one(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["a", "b"], "label": ["x", "y"]}), file)
    assert [(row.text, row.label, row.group) for row in read_file(file, same)] == [("a", "x", ""), ("b", "y", "")]
    pq.write_table(pa.table({"text": ["a", None], "label": ["x", "y"]}), file)
    with pytest.raises(InvalidData, match=r"Row 2 of rows.parquet has an empty text"):
        read_file(file, same)
    file.write_bytes(b"nothing")
    with pytest.raises(InvalidData, match="is not a Parquet file"):
        read_file(file, same)


@pytest.mark.parametrize(
    ("train", "holdout", "problem"),
    [
        ({"a": 100}, {"a": 30}, "fewer than two labels: a"),
        ({}, {}, "fewer than two labels: none"),
        ({"a": 8, "b": 8}, {"a": 9, "b": 9}, "16 rows to learn from and 18 to judge on are too few"),
        ({"a": 999, "b": 5}, {"a": 30, "b": 9}, "there is nothing to tell apart"),
        ({"a": 50, "b": 50}, {"a": 30}, "No held-out row has the label b"),
    ],
)
def test_rows_that_will_not_do_are_refused(
    tmp_path: Path, train: dict[str, int], holdout: dict[str, int], problem: str
) -> None:
    with pytest.raises(InvalidData, match=problem):
        validate(summary_of(train, holdout))


def summary_of(train: dict[str, int], holdout: dict[str, int]) -> DatasetSummary:
    return DatasetSummary(
        train="train.parquet",
        holdout="holdout.parquet",
        train_labels=train,
        holdout_labels=holdout,
        production_rows=0,
        duplicates=0,
        conflicts=0,
        left_out={},
        skipped=0,
        inference_version=0,
        feedback_version=0,
        data_sha256="",
    )
