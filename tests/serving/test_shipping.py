"""The shipper: every entry into the tables, once, whatever happens in between."""

import asyncio
import json
import tracemalloc
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.entries import SECOND_US, START_US, feedback, intent, outcome
from fakes.records import MemoryRecords
from fakes.spool import MemorySpool
from fakes.story import StoppedClock
from noria.adapters.spool.reader import SpoolReader
from noria.adapters.spool.writer import SqliteSpool
from noria.domain.errors import StorageCorrupted
from noria.domain.inference import Intent, Outcome, OutcomeKind
from noria.serving.log import rows
from noria.serving.log.shipping import Shipper
from noria.tables import DEAD_LETTER, FEEDBACK, INFERENCE

START = datetime.fromtimestamp(START_US / 1e6, UTC)
GRACE = timedelta(seconds=1)


@pytest.fixture
def spool() -> MemorySpool:
    return MemorySpool("a")


@pytest.fixture
def store() -> MemoryRecords:
    return MemoryRecords()


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock(START + timedelta(hours=1))


@pytest.fixture
def shipper(spool, store, clock) -> Shipper:
    return Shipper(lambda: [spool], store, clock, GRACE)


def numbers(store: MemoryRecords, table: str = "inference") -> list[int]:
    return store.scan(table)["sequence"].to_pylist()


def second(n: float) -> datetime:
    return START + timedelta(seconds=n)


# --- rows ---


def test_a_row_names_who_answered_in_the_end(spool, store, shipper):
    spool.add(intent(1), replace(outcome(1), model="spare", version="7"))
    shipper.turn()
    (row,) = store.scan("inference").to_pylist()
    assert (row["model_name"], row["model_version"], row["served_entity_id"]) == ("spare", "7", "spare/7")


def test_a_request_becomes_one_row_with_all_that_is_known_of_it(spool, store, shipper):
    said = {"client_request_id": "mine", "requester": "key", "policy_hash": "p", "shadow_of": "s"}
    begun = intent(1, **said, errors=("REDACTED_EMAIL",), trace_id="t", span_id="u", parent_span_id="v")
    ended = outcome(1, ttft_us=1500, input_tokens=3, output_tokens=4, errors=("SLOW",), duration_us=5499)
    spool.add(begun, replace(ended, tries=2, cache_hit=False, cost_usd=0.25))
    shipper.turn()
    (row,) = store.scan("inference").to_pylist()
    assert row == {
        "databricks_request_id": begun.request_id,
        "request_date": second(1).date(),
        "client_request_id": "mine",
        "request_time": second(1),
        "status_code": 200,
        "sampling_fraction": 1.0,
        "execution_duration_ms": 5,
        "request": '{"input":"hello"}',
        "response": '{"label":"positive"}',
        "logging_error_codes": ["REDACTED_EMAIL", "SLOW"],
        "served_entity_id": "triage/1",
        "requester": "key",
        "endpoint": "triage",
        "model_name": "triage",
        "model_version": "1",
        "route": "champion",
        "outcome": "answered",
        "finished_time": second(1.005),
        "ttft_ms": 1.5,
        "input_tokens": 3,
        "output_tokens": 4,
        "metadata": [("group", "united")],
        "shadow_of": "s",
        "policy_hash": "p",
        "spool": "a",
        "sequence": 2,
        "tries": 2,
        "cache_hit": False,
        "cost_usd": 0.25,
        "trace_id": "t",
        "span_id": "u",
        "parent_span_id": "v",
    }


def test_feedback_becomes_a_row_of_its_own(spool, store, shipper):
    spool.add(feedback(1, score=0.5, comment="fine"))
    shipper.turn()
    (row,) = store.scan("feedback").to_pylist()
    assert (row["feedback_id"], row["label"], row["score"], row["comment"]) == ("f1", "positive", 0.5, "fine")
    assert (row["feedback_date"], row["feedback_time"]) == (second(1).date(), second(1))
    assert (row["spool"], row["sequence"]) == ("a", 1)


@pytest.mark.parametrize(
    ("build", "schema"),
    [(rows.inference, INFERENCE), (rows.feedback, FEEDBACK)],
)
def test_no_entries_make_no_rows(build, schema):
    table, dead = build("a", [])
    assert (table.num_rows, table.schema, dead) == (0, schema, [])
    assert rows.dead_letters("a", [], 0).schema == DEAD_LETTER


def test_bytes_that_are_no_text_are_replaced_and_the_row_says_so(spool, store, shipper):
    spool.add(intent(1, request=b"caf\xe9"), outcome(1), intent(2), outcome(2, response=b"\xff"))
    shipper.turn()
    first, other = store.scan("inference").to_pylist()
    assert (first["request"], first["logging_error_codes"]) == ("caf\ufffd", ["INVALID_UTF8"])
    assert (other["response"], other["logging_error_codes"]) == ("\ufffd", ["INVALID_UTF8"])


def test_a_body_of_ten_megabytes_is_shipped_whole(spool, store, shipper):
    spool.add(intent(1, request=b"x" * (10 << 20)), outcome(1))
    shipper.turn()
    assert len(store.scan("inference")["request"][0].as_py()) == 10 << 20


@pytest.mark.parametrize(
    "strange",
    [intent(2, received_us=-1), intent(2, received_us=1 << 62)],
    ids=["before time", "after time"],
)
def test_what_no_row_can_hold_becomes_a_dead_letter_and_its_neighbours_do_not(spool, store, shipper, strange):
    spool.add(intent(1), outcome(1), strange, outcome(2), intent(3), outcome(3, status=1 << 40), intent(4), outcome(4))
    shipper.turn()
    assert numbers(store) == [2, 8]
    letters = store.scan("dead_letter").to_pylist()
    assert [letter["sequence"] for letter in letters] == [4, 6]
    assert all("no row can hold it" in letter["reason"] for letter in letters)
    assert strange.request_id.encode() in letters[0]["payload"]


def test_poison_becomes_a_dead_letter_with_what_is_left(spool, store, shipper, clock):
    spool.add(intent(1), outcome(1))
    spool.poison(3, "checksum mismatch", b"\x00left")
    spool.add(feedback(4))
    shipper.turn()
    (letter,) = store.scan("dead_letter").to_pylist()
    assert letter == {
        "spool": "a",
        "sequence": 3,
        "found_time": clock.at,
        "reason": "checksum mismatch",
        "payload": b"\x00left",
    }
    assert (numbers(store), numbers(store, "feedback")) == ([2], [4])


def test_an_outcome_without_an_intent_becomes_a_dead_letter(spool, store, shipper):
    spool.add(outcome(1), intent(2), outcome(2), outcome(2))
    shipper.turn()
    letters = store.scan("dead_letter").to_pylist()
    assert [(letter["sequence"], letter["reason"]) for letter in letters] == [
        (1, "outcome without an intent"),
        (4, "outcome without an intent"),
    ]
    assert json.loads(letters[0]["payload"])["request_id"] == outcome(1).request_id
    assert numbers(store) == [3]


# --- how far it is ---


def test_a_spool_is_trimmed_when_the_tables_have_it(spool, shipper):
    spool.add(intent(1), outcome(1), feedback(1))
    status = shipper.turn()["a"]
    assert (status.written, status.shipped, status.unshipped, status.open_intents) == (3, 3, 0, 0)
    assert spool.trimmed == 3


def test_a_long_request_holds_trimming_up_but_not_shipping(spool, store, shipper):
    spool.add(intent(1), intent(2), outcome(2))
    assert shipper.turn()["a"].open_intents == 1
    assert (numbers(store), spool.trimmed) == ([3], 0)
    spool.add(outcome(1), intent(3))
    shipper.turn()
    assert (numbers(store), spool.trimmed) == ([3, 4], 4)


def test_a_turn_ends_at_its_limit_and_the_next_goes_on(spool, store, shipper):
    for n in range(10):
        spool.add(intent(n), outcome(n))
    assert shipper.turn(limit=5)["a"].unshipped == 15
    assert shipper.turn(limit=15)["a"].unshipped == 0
    assert numbers(store) == list(range(2, 21, 2))


def test_a_turn_under_steady_load_ends_with_what_was_there_when_it_began(store, clock):
    class Busy(MemorySpool):
        reads = 0

        def read(self, after, limit):
            self.reads += 1
            found = super().read(after, limit)
            self.add(
                intent(100 + self.reads), outcome(100 + self.reads)
            )  # while one batch is shipped the next comes in
            return found

    spool = Busy("a")
    spool.add(intent(1), outcome(1))
    shipper = Shipper(lambda: [spool], store, clock, GRACE)
    shipper.turn()
    assert spool.reads == 1
    shipper.turn()
    assert numbers(store) == [2, 4]


def test_every_spool_is_shipped_under_its_own_name(store, clock):
    spools = [MemorySpool("a"), MemorySpool("b")]
    for spool in spools:
        spool.add(intent(1), outcome(1))
    assert set(Shipper(lambda: spools, store, clock).turn()) == {"a", "b"}
    assert sorted(store.scan("inference")["spool"].to_pylist()) == ["a", "b"]


def test_a_spool_that_cannot_be_read_holds_nobody_else_up(store, clock, monkeypatch):
    bad, good = MemorySpool("bad"), MemorySpool("good")
    good.add(feedback(1))

    def unreadable(*_):
        raise StorageCorrupted("The spool bad could not be read.", "Try again.")

    monkeypatch.setattr(bad, "read", unreadable)
    shipper = Shipper(lambda: [bad, good], store, clock)
    assert set(shipper.turn()) == {"good"}
    assert numbers(store, "feedback") == [1]
    assert shipper.problems == ("The spool bad could not be read. Try again.",)
    assert shipper.watermark() is None
    monkeypatch.undo()
    shipper.turn()
    assert shipper.problems == ()
    assert shipper.watermark() is not None


def test_a_damaged_spool_is_emptied_and_retired_and_its_open_intents_live_on_elsewhere(store, clock):
    sealed, fresh = MemorySpool("old", sealed=True), MemorySpool("new")
    sealed.add(intent(1), outcome(1), intent(2))
    fresh.add(intent(2))
    present = [sealed, fresh]
    shipper = Shipper(lambda: [s for s in present if not s.retired], store, clock)
    shipper.turn()
    assert (sealed.retired, sealed.trimmed) == (True, 0)
    fresh.add(outcome(2))
    shipper.turn()
    assert store.scan("inference")["databricks_request_id"].to_pylist() == [intent(1).request_id, intent(2).request_id]


def test_long_requests_under_way_do_not_stay_in_memory_and_arrive_whole(tmp_path, store, clock):
    body = b'"' + b"x" * (1 << 20) + b'"'

    async def write(*entries) -> None:
        spool = SqliteSpool(tmp_path, "api-0")
        for entry in entries:
            await spool.append(entry)
        spool.close()

    asyncio.run(write(*(intent(n, request=body) for n in range(1, 31))))
    with closing(SpoolReader(tmp_path / "api-0.db")) as reader:
        shipper = Shipper(lambda: [reader], store, clock)
        tracemalloc.start()
        try:
            assert shipper.turn()[reader.id].open_intents == 30
            assert tracemalloc.get_traced_memory()[0] < 4 << 20
        finally:
            tracemalloc.stop()
        asyncio.run(write())  # its process died: the next one ends what was open
        shipper.turn()
    assert store.scan("inference")["outcome"].to_pylist() == ["interrupted"] * 30
    assert set(store.scan("inference")["request"].to_pylist()) == {body.decode()}


def test_a_long_request_whose_intent_is_lost_meanwhile_is_a_dead_letter(spool, store, shipper):
    spool.add(intent(1, request=b"x" * (1 << 17)))
    shipper.turn()
    spool.poison(1)
    spool.add(outcome(1))
    shipper.turn()
    (letter,) = store.scan("dead_letter").to_pylist()
    assert (letter["sequence"], letter["reason"]) == (2, "outcome without an intent")


# --- exactly once ---


def test_a_request_is_not_interrupted_whose_answer_was_lost_only_after_it_was_shipped(spool, store, clock):
    spool.add(intent(2), intent(1), outcome(1))
    Shipper(lambda: [spool], store, clock).turn()
    spool.poison(3)
    lost = {"kind": OutcomeKind.INTERRUPTED, "status": 500}
    spool.add(outcome(1, **lost), outcome(2, **lost))
    Shipper(lambda: [spool], store, clock).turn()
    assert store.scan("inference")["outcome"].to_pylist() == ["answered", "interrupted"]
    (letter,) = store.scan("dead_letter").to_pylist()
    assert letter["reason"] == "spoilt; what had ended by 3 is in the tables"


@pytest.mark.parametrize("table", ["dead_letter", "feedback", "inference"])
def test_a_table_that_fails_is_tried_again_and_nothing_is_doubled(spool, store, shipper, table):
    spool.add(outcome(9), intent(1), feedback(1), outcome(1))
    store.fail.add(table)
    shipper.turn()
    assert len(shipper.problems) == 1
    assert spool.trimmed == 0
    spool.add(intent(2), outcome(2), outcome(8), feedback(2))
    shipper.turn()
    assert (numbers(store), numbers(store, "feedback")) == ([4, 6], [3, 8])
    assert numbers(store, "dead_letter") == [1, 7]


def test_a_shipper_that_died_before_it_trimmed_is_continued_without_doubles(spool, store, clock, monkeypatch):
    spool.add(outcome(9), intent(1), intent(2), outcome(1), feedback(1))
    monkeypatch.setattr(spool, "trim", lambda upto: None)
    Shipper(lambda: [spool], store, clock).turn()
    spool.add(outcome(2))
    successor = Shipper(lambda: [spool], store, clock)
    assert successor.turn()["a"].unshipped == 0
    successor.turn()
    assert (numbers(store), numbers(store, "feedback"), numbers(store, "dead_letter")) == ([4, 6], [5], [1])


def test_an_outcome_whose_intent_was_trimmed_after_shipping_is_no_dead_letter(spool, store, clock, monkeypatch):
    spool.add(intent(1), intent(2), outcome(1))
    Shipper(lambda: [spool], store, clock).turn()
    spool.entries = {number: entry for number, entry in spool.entries.items() if number > 1}
    spool.add(outcome(2))
    Shipper(lambda: [spool], store, clock).turn()
    assert (numbers(store), numbers(store, "dead_letter")) == ([3, 4], [])


class Killed(BaseException):
    """The process dies here."""


class Mortal:
    """Passes everything on to a real object, and dies at the calls that a test chose, before or after doing them."""

    def __init__(self, target, mortal: str, deaths: list[bool]) -> None:
        self._target, self._mortal, self._deaths = target, mortal, deaths

    def __getattr__(self, name):
        method = getattr(self._target, name)
        if name != self._mortal:
            return method

        def call(*arguments):
            if not self._deaths:
                return method(*arguments)
            if self._deaths.pop():
                method(*arguments)
            raise Killed

        return call


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_however_often_the_shipper_dies_every_entry_arrives_once(data):
    spool, store, clock = MemorySpool("a"), MemoryRecords(), StoppedClock()
    history, under_way = {}, []
    for step in range(data.draw(st.integers(1, 25))):
        happen(data.draw(st.sampled_from("iiooofpx")), step, spool, under_way)
        history |= spool.entries
        if data.draw(st.integers(0, 3)) == 0:
            turn_and_maybe_die(data, spool, store, clock)
    spool.add(*(outcome(n) for n in under_way))
    history |= spool.entries
    Shipper(lambda: [spool], store, clock).turn()
    found = {table: sorted(numbers(store, table)) for table in ("inference", "feedback", "dead_letter")}
    assert found == account(history)
    assert spool.trimmed == spool.written() or not spool.written()


def happen(what: str, step: int, spool: MemorySpool, under_way: list[int]) -> None:
    """An intent, an outcome of any request under way, feedback, poison, or an outcome that belongs to nothing."""
    if what == "i":
        under_way.append(step)
        spool.add(intent(step))
    elif what == "o" and under_way:
        spool.add(outcome(under_way.pop(step % len(under_way))))
    elif what == "f":
        spool.add(feedback(step))
    elif what == "p":
        spool.poison(spool.written() + 1)
    elif what == "x":
        spool.add(outcome(1000 + step))


def turn_and_maybe_die(data, spool, store, clock) -> None:
    """A turn of a fresh shipper that dies at an append or at the trim, before or after doing it, or not at all."""
    where = data.draw(st.sampled_from(["append", "trim", "none"]))
    deaths = [data.draw(st.booleans())]
    mortal_store = Mortal(store, "append", deaths) if where == "append" else store
    mortal_spool = Mortal(spool, "trim", deaths) if where == "trim" else spool
    with suppress(Killed):
        Shipper(lambda: [mortal_spool], mortal_store, clock).turn(limit=data.draw(st.integers(1, 30)))


def account(entries: dict) -> dict[str, list[int]]:
    """Where each entry belongs, worked out from the whole history at once."""
    begun: set[str] = set()
    where: dict[str, list[int]] = {"inference": [], "feedback": [], "dead_letter": []}
    for number, entry in sorted(entries.items()):
        if isinstance(entry, Intent):
            begun.add(entry.request_id)
        elif isinstance(entry, Outcome):
            where["inference" if entry.request_id in begun else "dead_letter"].append(number)
            begun.discard(entry.request_id)
        else:
            where["feedback" if hasattr(entry, "feedback_id") else "dead_letter"].append(number)
    return where


# --- the watermark ---


def test_nothing_is_known_before_the_first_turn(shipper):
    assert shipper.watermark() is None


def test_with_nothing_under_way_all_is_there_but_what_may_just_be_coming_in(shipper, spool, clock):
    spool.add(intent(1), outcome(1))
    shipper.turn()
    assert shipper.watermark() == clock.at - GRACE


def test_without_any_spool_all_is_there(store, clock):
    shipper = Shipper(list, store, clock, GRACE)
    shipper.turn()
    assert shipper.watermark() == clock.at - GRACE


def test_a_request_under_way_holds_the_watermark(shipper, spool, clock):
    spool.add(intent(5), intent(3), outcome(5))
    shipper.turn()
    assert shipper.watermark() == second(3)
    spool.add(outcome(3))
    shipper.turn()
    assert shipper.watermark() == clock.at - GRACE


def test_entries_that_wait_hold_the_watermark(shipper, spool):
    for n in range(1, 11):
        spool.add(feedback(n))
    shipper.turn(limit=4)
    assert shipper.watermark() == second(4) - GRACE


def test_the_slowest_spool_holds_the_watermark(store, clock):
    slow, quick = MemorySpool("slow"), MemorySpool("quick")
    slow.add(intent(7))
    quick.add(intent(1), outcome(1))
    shipper = Shipper(lambda: [slow, quick], store, clock, GRACE)
    shipper.turn()
    assert shipper.watermark() == second(7)


def test_a_table_that_fails_holds_the_watermark(shipper, spool, store, clock):
    shipper.turn()
    before = shipper.watermark()
    clock.at += timedelta(minutes=1)
    spool.add(feedback(0, received_us=clock.now_us() - SECOND_US))
    store.fail.add("feedback")
    shipper.turn()
    assert shipper.watermark() == before


# --- who is told ---


def test_whoever_asked_hears_of_requests_once_they_are_in_the_table_and_only_once(spool, store, clock):
    heard = []

    def told(answered):
        assert [number for number, _, _ in answered] == numbers(store)[-len(answered) :] or not answered
        heard.extend(begun.request_id for _, begun, _ in answered)

    spool.add(intent(1), intent(2), outcome(2), intent(3), outcome(1))
    Shipper(lambda: [spool], store, clock, GRACE, told).turn()
    Shipper(lambda: [spool], store, clock, GRACE, told).turn()
    spool.add(outcome(3), feedback(1))
    Shipper(lambda: [spool], store, clock, GRACE, told).turn()
    assert heard == [intent(2).request_id, intent(1).request_id, intent(3).request_id]


def test_nobody_hears_of_requests_that_could_not_be_written(spool, store, clock, monkeypatch):
    heard = []

    def full(*_):
        raise StorageCorrupted("The disk is full.")

    spool.add(intent(1), outcome(1))
    with monkeypatch.context() as broken:
        broken.setattr(store, "append", full)
        Shipper(lambda: [spool], store, clock, GRACE, heard.extend).turn()
    assert heard == []
    Shipper(lambda: [spool], store, clock, GRACE, heard.extend).turn()
    assert [number for number, _, _ in heard] == [2]


def test_who_keeps_sums_of_a_table_hears_of_rows_before_they_are_in_it(spool, store, clock):
    heard = []

    def arriving(table, rows):
        heard.append((table, rows["sequence"].to_pylist(), store.scan(table).num_rows))

    spool.add(intent(1), outcome(1), feedback(1))
    Shipper(lambda: [spool], store, clock, GRACE, arriving=arriving).turn()
    assert heard == [("feedback", [3], 0), ("inference", [2], 0)]


def test_rows_of_which_nobody_could_be_told_are_not_written(spool, store, clock):
    def arriving(table, rows):
        raise StorageCorrupted("The state can't be read.", "Restore it.")

    spool.add(intent(1), outcome(1))
    shipper = Shipper(lambda: [spool], store, clock, GRACE, arriving=arriving)
    shipper.turn()
    assert shipper.problems
    assert numbers(store) == []
    Shipper(lambda: [spool], store, clock, GRACE).turn()
    assert numbers(store) == [2]
