"""The log as people read it: spools and tables as one, each request once, whatever is being shipped meanwhile."""

import asyncio
import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from fakes.entries import START_US, feedback, intent, outcome
from fakes.records import MemoryRecords
from fakes.spool import MemorySpool
from fakes.story import StoppedClock
from noria.adapters.clock import SystemClock
from noria.adapters.spool.quarantine import exchange
from noria.adapters.spool.reader import SpoolFolder, looking, waiting
from noria.adapters.spool.writer import SqliteSpool
from noria.adapters.tables.delta import DeltaStore
from noria.domain.errors import InvalidRequest, StorageCorrupted
from noria.domain.inference import OutcomeKind
from noria.serving.log.following import Follower
from noria.serving.log.records import Log
from noria.serving.log.shipping import Shipper

COUNT = "SELECT databricks_request_id AS id, spool, sequence, outcome FROM inference ORDER BY request_time"


class Bench:
    """A spool, the tables, and the two ways to read both."""

    def __init__(self) -> None:
        self.spools = [MemorySpool("a" * 32)]
        self.store = MemoryRecords()
        self.log = Log(self._readers, self.store)
        clock = StoppedClock(datetime.fromtimestamp(START_US / 1e6, UTC) + timedelta(hours=1))
        self.shipper = Shipper(lambda: self.spools, self.store, clock)

    @contextmanager
    def _readers(self):
        yield self.spools

    def follower(self) -> Follower:
        return Follower(self._readers, self.store)

    def ids(self) -> list[int]:
        return [int(row["id"], 16) for row in self.log.query(COUNT).to_pylist()]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def numbers(found: pa.Table) -> list[int]:
    return [int(name, 16) for name in found["databricks_request_id"].to_pylist()]


def test_what_is_answered_but_not_shipped_shows_beside_what_is(bench):
    bench.spools[0].add(intent(1), outcome(1))
    bench.shipper.turn()
    bench.spools[0].add(intent(2), intent(3), outcome(2), feedback(2))
    assert bench.ids() == [1, 2]
    (said,) = bench.log.query("SELECT * FROM feedback").to_pylist()
    assert (said["feedback_id"], said["sequence"]) == ("f2", 6)
    bench.spools[0].add(outcome(3))
    bench.shipper.turn()
    assert bench.ids() == [1, 2, 3]


def test_what_was_shipped_but_not_trimmed_shows_once(bench, monkeypatch):
    monkeypatch.setattr(bench.spools[0], "trim", lambda upto: None)
    bench.spools[0].add(intent(1), outcome(1), feedback(1))
    bench.shipper.turn()
    bench.spools[0].add(intent(2), outcome(2), feedback(2))
    assert bench.ids() == [1, 2]
    assert bench.log.query("SELECT * FROM feedback").num_rows == 2


def test_a_request_that_only_looks_interrupted_shows_as_it_ended(bench):
    bench.spools[0].add(intent(1), outcome(1))
    bench.shipper.turn()
    bench.spools.append(MemorySpool("b" * 32))
    lost = {"kind": OutcomeKind.INTERRUPTED, "status": 500}
    bench.spools[1].add(intent(1), intent(2), outcome(1, **lost), outcome(2, **lost))
    assert [row["outcome"] for row in bench.log.query(COUNT).to_pylist()] == ["answered", "interrupted"]


def test_a_spool_that_cannot_be_read_is_named_and_keeps_nobody_from_the_others(bench, monkeypatch):
    bench.spools.append(MemorySpool("b" * 32))
    bench.spools[1].add(intent(1), outcome(1))

    def unreadable(*_):
        raise StorageCorrupted("The spool a could not be read.", "The worker tries again.")

    monkeypatch.setattr(bench.spools[0], "read", unreadable)
    assert bench.ids() == [1]
    assert bench.log.problems == ("The spool a could not be read. The worker tries again.",)


def test_queries_of_one_stream_see_the_same_rows(bench):
    for n in range(1, 800):
        bench.spools[0].add(intent(n), outcome(n))
    with bench.log.stream("SELECT count(*) AS n FROM inference", "SELECT * FROM inference") as (count, rows):
        bench.spools[0].add(intent(900), outcome(900))
        bench.shipper.turn()
        assert sum(piece["n"][0].as_py() for piece in count if piece.num_rows) == 799
        assert sorted(n for piece in rows for n in numbers(piece)) == list(range(1, 800))


def test_what_would_change_anything_is_refused(bench):
    with pytest.raises(InvalidRequest):
        bench.log.query("DELETE FROM inference")


def test_who_follows_sees_each_request_once_wherever_it_is(bench):
    bench.spools[0].add(intent(1), outcome(1), intent(2))
    follower = bench.follower()
    assert numbers(follower.new()) == []
    bench.spools[0].add(outcome(2), intent(3), outcome(3))
    assert numbers(follower.new()) == [2, 3]
    bench.shipper.turn()
    bench.spools[0].add(intent(4), outcome(4))
    bench.shipper.turn()
    bench.spools[0].add(intent(5), outcome(5))
    assert numbers(follower.new()) == [4, 5]
    bench.spools.append(MemorySpool("b" * 32))
    bench.spools[1].add(intent(6), outcome(6))
    bench.shipper.turn()
    bench.spools[1].add(intent(7))
    assert numbers(follower.new()) == [6]
    assert numbers(follower.new()) == []


# --- the real ones ---


def test_under_load_every_look_sees_each_request_once_and_none_is_missing(tmp_path):
    """An API process appends, the worker ships and tidies, and somebody looks and follows all the while."""
    spools, tables, done = tmp_path / "spool", DeltaStore(tmp_path / "tables"), threading.Event()
    written: list[int] = []

    async def traffic() -> None:
        spool = SqliteSpool(spools, "api-0")
        try:
            for first in range(0, 3000, 50):
                await asyncio.gather(*(spool.append(intent(n)) for n in range(first, first + 50)))
                await asyncio.gather(*(spool.append(outcome(n)) for n in range(first, first + 50)))
                written.append(first + 50)
        finally:
            spool.close()

    def ship() -> None:
        folder = SpoolFolder(spools)
        shipper = Shipper(folder.readers, tables, SystemClock())
        while not done.is_set():
            shipper.turn(limit=700)
        folder.close()

    workers = [threading.Thread(target=lambda: asyncio.run(traffic())), threading.Thread(target=ship)]
    for worker in workers:
        worker.start()
    log = Log(lambda: looking(spools), DeltaStore(tmp_path / "tables"))
    follower = Follower(lambda: looking(spools), DeltaStore(tmp_path / "tables"))
    followed, looks, already = [], 0, {int(row["id"], 16) for row in log.query(COUNT).to_pylist()}
    while workers[0].is_alive() or looks < 3:
        before = written[-1] if written else 0
        seen = [int(row["id"], 16) for row in log.query(COUNT).to_pylist()]
        assert len(seen) == len(set(seen))
        assert set(range(before)) <= set(seen)
        followed += numbers(follower.new())
        looks += 1
    workers[0].join()
    followed += numbers(follower.new())
    done.set()
    workers[1].join()
    assert len(followed) == len(set(followed))
    assert set(range(3000)) == set(followed) | already
    assert sorted(int(row["id"], 16) for row in log.query(COUNT).to_pylist()) == list(range(3000))


def test_looking_changes_nothing_and_leaves_the_damaged_to_the_worker(tmp_path):
    spool = SqliteSpool(tmp_path / "spool", "api-0")
    asyncio.run(_append(spool, intent(1), outcome(1)))
    (tmp_path / "spool" / "broken.db").write_bytes(b"no spool at all" * 1000)
    (tmp_path / "spool" / "quarantine").mkdir()
    (tmp_path / "spool" / "quarantine" / "old.db").write_bytes(b"nor this")
    before = {path: path.stat().st_size for path in (tmp_path / "spool").rglob("*") if path.suffix == ".db"}
    folder = tmp_path / "spool"
    log = Log(lambda: looking(folder), DeltaStore(tmp_path / "tables"), lambda: waiting(folder))
    assert log.query("SELECT count(*) AS n FROM inference").to_pylist() == [{"n": 1}]
    assert [problem.split(",")[0] for problem in log.problems] == ["1 damaged spool files wait in quarantine"]
    assert before == {path: path.stat().st_size for path in (tmp_path / "spool").rglob("*") if path.suffix == ".db"}
    assert not list((tmp_path / "spool").rglob("*.damaged"))
    assert not (tmp_path / "tables").exists()
    spool.close()


def test_what_the_worker_saved_of_a_damaged_spool_shows_before_and_after_it_is_shipped_and_once(tmp_path):
    folder, store = tmp_path / "spool", DeltaStore(tmp_path / "tables")
    for number in (1, 2):
        spool = SqliteSpool(folder, "api-0")
        asyncio.run(_append(spool, intent(number), outcome(number)))
        spool.close()
        if number == 1:
            exchange(folder / "api-0.db", ()).close()
    log = Log(lambda: looking(folder), store, lambda: waiting(folder))
    ids = "SELECT databricks_request_id AS id FROM inference ORDER BY id"

    def shown() -> list[int]:
        return [int(row["id"], 16) for row in log.query(ids).to_pylist()]

    assert (shown(), len(log.problems)) == ([2], 1)
    worker = SpoolFolder(folder)
    shipper = Shipper(worker.readers, store, SystemClock())
    assert len(worker.readers()) == 2  # opened, and so copied
    assert (shown(), log.problems) == ([1, 2], ())
    for _ in range(3):
        shipper.turn()
    assert (shown(), log.problems) == ([1, 2], ())
    assert list(folder.glob("quarantine/shipped/*.db"))
    worker.close()


async def _append(spool: SqliteSpool, *entries) -> None:
    for entry in entries:
        await spool.append(replace(entry))
