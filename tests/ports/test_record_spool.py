"""What every spool does, and what the real one does besides: crashes, full disks, damaged files."""

import asyncio
import os
import resource
import shutil
import sqlite3
from pathlib import Path

import pytest

from fakes.entries import START_US, feedback, intent, outcome
from fakes.spool import MemorySpool
from fakes.story import StoppedClock
from noria.adapters.spool.groups import pack, pack_group
from noria.adapters.spool.quarantine import exchange, finish_exchange
from noria.adapters.spool.writer import SpoolFolder, SpoolReader, SqliteSpool, close_orphans, discover
from noria.domain.errors import AlreadyRunning, LogUnavailable, StorageCorrupted
from noria.domain.inference import OutcomeKind
from noria.ports import Poison


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "spool"


@pytest.fixture(params=["sqlite", "memory"])
def spool(request, folder):
    spool = SqliteSpool(folder, "api-0") if request.param == "sqlite" else MemorySpool()
    yield spool
    spool.close()


# --- every spool ---


async def test_entries_come_back_as_they_went_in_and_in_order(spool):
    entries = [
        intent(1, request=b"\xff\x00", metadata={"a": "b"}, errors=("X",), shadow_of="s"),
        outcome(1, ttft_us=7, input_tokens=3, errors=("Y",)),
        feedback(1, score=0.5, comment="ünïcode"),
    ]
    for entry in entries:
        await spool.append(entry)
    assert list(spool.read(0, 10)) == list(enumerate(entries, 1))


async def test_numbers_have_no_gaps_however_many_write_at_once(spool):
    numbers = await asyncio.gather(*(spool.append(intent(n)) for n in range(500)))
    assert sorted(numbers) == list(range(1, 501))
    assert dict(spool.read(0, 1000)) == {n: intent(i) for i, n in enumerate(numbers)}


async def test_reading_goes_on_after_a_number_and_stops_at_the_limit(spool):
    await asyncio.gather(*(spool.append(intent(n)) for n in range(10)))
    assert [n for n, _ in spool.read(4, 3)] == [5, 6, 7]
    assert list(spool.read(10, 3)) == []


async def test_trimmed_entries_are_gone_and_numbers_go_on(spool):
    for n in range(4):
        await spool.append(intent(n))
    spool.trim(2)
    assert [n for n, _ in spool.read(0, 10)] == [3, 4]
    spool.trim(4)
    assert await spool.append(intent(9)) == 5


async def test_nothing_can_be_appended_to_a_closed_spool(spool):
    spool.close()
    with pytest.raises(LogUnavailable):
        await spool.append(intent(1))


# --- the real one: lives and slots ---


async def write(folder: Path, *entries, slot: str = "api-0") -> str:
    """Append entries one by one, so that each is a group of its own; returns the spool's id."""
    spool = SqliteSpool(folder, slot)
    for entry in entries:
        await spool.append(entry)
    spool.close()
    return spool.id


def contents(path: Path) -> list:
    reader = SpoolReader(path)
    found = []
    while more := reader.read(found[-1][0] if found else 0, 10_000):
        found += more
    reader.close()
    return found


async def test_id_and_numbers_outlive_the_process_even_when_all_is_trimmed(folder):
    first = await write(folder, feedback(1), feedback(2))
    reader = SpoolReader(folder / "api-0.db")
    reader.trim(2)
    reader.close()
    spool = SqliteSpool(folder, "api-0")
    assert spool.id == first
    assert await spool.append(feedback(3)) == 3
    spool.close()


async def test_two_processes_never_share_a_slot(folder, monkeypatch):
    monkeypatch.setattr("noria.adapters.spool.writer._LOCK_WAIT_S", 0)
    spool = SqliteSpool(folder, "api-0")
    with pytest.raises(AlreadyRunning):
        SqliteSpool(folder, "api-0")
    SqliteSpool(folder, "api-1").close()
    spool.close()
    SqliteSpool(folder, "api-0").close()


async def test_requests_of_a_dead_process_are_ended_by_its_successor(folder):
    await write(folder, intent(1), intent(2), outcome(1))
    SqliteSpool(folder, "api-0", now_us=lambda: START_US + 5_000_000).close()
    _, ended = contents(folder / "api-0.db")[-1]
    assert (ended.request_id, ended.kind, ended.status) == (intent(2).request_id, OutcomeKind.INTERRUPTED, 500)
    assert (ended.errors, ended.duration_us) == (("PROCESS_DIED",), 3_000_000)
    SqliteSpool(folder, "api-0").close()
    assert len(contents(folder / "api-0.db")) == 4


async def test_the_worker_ends_requests_of_a_process_that_never_came_back(folder):
    await write(folder, intent(1))
    clock = StoppedClock()
    assert close_orphans(folder / "api-0.db", clock) == 1
    assert close_orphans(folder / "api-0.db", clock) == 0
    assert contents(folder / "api-0.db")[-1][1].kind is OutcomeKind.INTERRUPTED


async def test_the_worker_leaves_a_living_process_alone(folder):
    spool = SqliteSpool(folder, "api-0")
    await spool.append(intent(1))
    assert close_orphans(folder / "api-0.db", StoppedClock()) == 0
    spool.close()


async def test_a_caller_that_gave_up_waiting_leaves_its_entry_in_the_log(folder):
    spool = SqliteSpool(folder, "api-0")
    task = asyncio.create_task(spool.append(intent(1)))
    await asyncio.sleep(0)
    task.cancel()
    await spool.append(intent(2))
    spool.close()
    assert [e for _, e in contents(folder / "api-0.db")] == [intent(1), intent(2)]


async def test_a_caller_that_is_cancelled_hears_of_it_once_his_entry_is_in_the_log(folder):
    spool = SqliteSpool(folder, "api-0")
    await spool.append(intent(1))  # so that the other one is not alone
    task = asyncio.create_task(spool.append(intent(2)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [e for _, e in spool.read(0, 10)] == [intent(1), intent(2)]
    spool.close()


async def test_a_request_that_is_alone_is_written_at_once_and_in_order_with_the_others(folder):
    spool = SqliteSpool(folder, "api-0")
    for n in range(3):
        assert await spool.append(intent(n)) == 2 * n + 1
        assert await spool.append(outcome(n)) == 2 * n + 2
    numbers = await asyncio.gather(*(spool.append(intent(n)) for n in range(3, 20)))
    assert sorted(numbers) == list(range(7, 24))
    spool.close()


async def test_a_request_that_is_alone_waits_for_a_worker_that_writes_without_keeping_others_waiting(folder):
    spool = SqliteSpool(folder, "api-0")
    await spool.append(feedback(1))
    other = sqlite3.connect(folder / "api-0.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    task = asyncio.create_task(spool.append(intent(1)))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    other.execute("ROLLBACK")
    other.close()
    assert await task == 2
    spool.close()


async def test_a_caller_that_is_cancelled_while_his_entry_is_refused_hears_of_that(folder):
    spool = SqliteSpool(folder, "api-0")
    await spool.append(intent(9))  # so that the other one is not alone
    spool._current = lambda: (_ for _ in ()).throw(OSError("no space left"))
    task = asyncio.create_task(spool.append(intent(1)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(LogUnavailable):
        await task
    spool.close()


async def test_a_huge_entry_is_kept_whole(folder):
    body = os.urandom(10 << 20)
    await write(folder, intent(1, request=body), outcome(1))
    assert contents(folder / "api-0.db")[0][1].request == body


# --- the real one: disks ---


async def test_a_disk_that_is_full_refuses_everybody_and_recovers(folder):
    spool = SqliteSpool(folder, "api-0")
    await spool.append(intent(1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = (folder / "api-0.db-wal").stat().st_size + 50_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))  # no file may grow beyond this
    try:
        big = b"x" * 100_000
        refused = await asyncio.gather(*(spool.append(intent(n, request=big)) for n in (2, 3)), return_exceptions=True)
        with pytest.raises(LogUnavailable):
            await spool.append(intent(4, request=big))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [type(error) for error in refused] == [LogUnavailable, LogUnavailable]
    assert await spool.append(intent(5, request=big)) == 2
    spool.close()
    assert [e for _, e in contents(folder / "api-0.db")] == [intent(1), intent(5, request=big)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_folder_that_cannot_be_written_is_said_plainly(folder):
    folder.mkdir()
    folder.chmod(0o500)
    with pytest.raises(LogUnavailable, match="can't be written"):
        SqliteSpool(folder, "api-0")


async def test_a_folder_that_is_a_file_is_said_plainly(folder):
    folder.write_text("not a folder")
    with pytest.raises(LogUnavailable, match="can't be written"):
        SqliteSpool(folder, "api-0")


async def test_a_spool_that_somebody_deletes_is_begun_anew_with_the_open_intents(folder):
    spool = SqliteSpool(folder, "api-0")
    await spool.append(intent(1))
    before = spool.id
    for file in folder.glob("api-0.db*"):
        file.unlink()
    await spool.append(outcome(1))
    assert spool.id != before
    spool.close()
    assert [e for _, e in contents(folder / "api-0.db")] == [intent(1), outcome(1)]


async def test_a_folder_that_somebody_deletes_is_made_anew_and_nobody_takes_its_process_for_dead(folder):
    spool = SqliteSpool(folder, "api-0")
    await spool.append(intent(1))
    shutil.rmtree(folder)
    await spool.append(intent(2))
    assert close_orphans(folder / "api-0.db", StoppedClock()) == 0
    spool.close()
    assert [e for _, e in contents(folder / "api-0.db")] == [intent(1), intent(2)]


async def test_a_slot_that_another_process_has_taken_meanwhile_refuses_entries(folder, monkeypatch):
    monkeypatch.setattr("noria.adapters.spool.writer._LOCK_WAIT_S", 0.0)
    spool = SqliteSpool(folder, "api-0")
    await spool.append(intent(1))
    shutil.rmtree(folder)
    other = SqliteSpool(folder, "api-0")
    with pytest.raises(LogUnavailable, match="Another process appends"):
        await spool.append(intent(2))
    other.close()
    await spool.append(outcome(1))
    spool.close()


# --- the real one: damage ---


def spoil(path: Path, change: str, *arguments) -> None:
    connection = sqlite3.connect(path)
    connection.execute(change, arguments)
    connection.commit()
    connection.close()


def spoil_page(path: Path, number: int) -> None:
    """Overwrite a page of a closed spool file with garbage."""
    with path.open("r+b") as file:
        file.seek((number - 1) * 4096)
        file.write(b"\x5a" * 4096)


async def test_a_flipped_bit_costs_one_entry(folder):
    spool = SqliteSpool(folder, "api-0")
    await asyncio.gather(*(spool.append(feedback(n, comment="precious" * 9)) for n in range(1, 4)))
    spool.close()
    blob = pack_group(1, [pack(feedback(1)), (2, 12345, pack(feedback(2))[2]), pack(feedback(3))])
    spoil(folder / "api-0.db", "DELETE FROM commits")
    spoil(folder / "api-0.db", "INSERT INTO commits VALUES (1, 3, ?)", blob)
    good, bad, also_good = (entry for _, entry in contents(folder / "api-0.db"))
    assert (good, also_good) == (feedback(1), feedback(3))
    assert bad == Poison(2, 2, "checksum mismatch", pack(feedback(2))[2])


async def test_an_undecodable_group_is_poison_and_what_follows_is_not(folder):
    await write(folder, feedback(1), feedback(2), feedback(3))
    spoil(folder / "api-0.db", "UPDATE commits SET blob = ? WHERE first = 2", b"\xc1garbage")
    (_, one), (number, bad), (_, three) = contents(folder / "api-0.db")
    assert (one, three, number) == (feedback(1), feedback(3), 2)
    assert (bad.first, bad.last, bad.payload) == (2, 2, b"\xc1garbage")
    assert "undecodable" in bad.reason


async def test_a_missing_group_is_noticed(folder):
    await write(folder, *(feedback(n) for n in range(1, 6)))
    spoil(folder / "api-0.db", "DELETE FROM commits WHERE first IN (2, 3)")
    assert [n for n, _ in contents(folder / "api-0.db")] == [1, 3, 4, 5]
    assert contents(folder / "api-0.db")[1][1] == Poison(2, 3, "missing from the spool, or unreadable")


async def test_a_malformed_page_costs_its_own_rows_only_and_the_file_is_put_aside(folder):
    first = await write(folder, *(feedback(n, comment="x" * 3000) for n in range(1, 101)), intent(7))
    path = folder / "api-0.db"
    rows = sqlite3.connect(path)
    leaves = rows.execute("PRAGMA page_count").fetchone()[0]
    rows.close()
    spoil_page(path, leaves // 2)
    spool = SqliteSpool(folder, "api-0")
    assert spool.id != first
    spool.close()
    sealed, fresh = discover(folder)
    assert sealed.parent.name == "quarantine"
    found = contents(sealed)
    survivors = [e for _, e in found if not isinstance(e, Poison)]
    lost = sum(e.last - e.first + 1 for _, e in found if isinstance(e, Poison))
    assert len(survivors) + lost == 101
    assert 1 <= lost <= 5
    assert [type(e).__name__ for _, e in contents(fresh)] == ["Intent", "Outcome"]


@pytest.mark.parametrize(("page", "lost"), [(1, 0), (2, 5)])
async def test_a_file_without_a_head_is_put_aside_and_accounted_for(folder, page, lost):
    first = await write(folder, *(feedback(n) for n in range(1, 6)))
    spoil_page(folder / "api-0.db", page)
    spool = SqliteSpool(folder, "api-0")
    assert await spool.append(feedback(6)) == 1
    spool.close()
    sealed, _ = discover(folder)
    reader = SpoolReader(sealed)
    assert (reader.id, reader.sealed, reader.written()) == (first, True, 5)
    found = [entry for _, entry in reader.read(0, 100)]
    assert found == (
        [Poison(1, 5, "lost from the end of a damaged spool")] if lost else [feedback(n) for n in range(1, 6)]
    )
    assert reader.read(5, 100) == []
    reader.retire()
    assert discover(folder) == [folder / "api-0.db"]


async def crashed(folder: Path, *entries) -> Path:
    """A spool as kill -9 leaves it, with everything in its write-ahead log still."""
    spool = SqliteSpool(folder, "api-0")
    for entry in entries:
        await spool.append(entry)
    left = folder.parent / "crashed"
    shutil.copytree(folder, left)
    spool.close()
    return left


async def test_a_log_that_lost_its_end_is_found_out(folder):
    left = await crashed(folder, *(feedback(n) for n in range(1, 6)))
    log = left / "api-0.db-wal"
    log.write_bytes(log.read_bytes()[:-5000] + b"\x00" * 5000)
    SqliteSpool(left, "api-0").close()
    sealed, fresh = discover(left)
    found = contents(sealed)
    assert [e for _, e in found[:-1]] == [feedback(n) for n in range(1, len(found))]
    assert found[-1] == (5, Poison(len(found), 5, "lost from the end of a damaged spool"))
    assert contents(fresh) == []


@pytest.mark.parametrize("at", [0.2, 0.5, 0.8])
async def test_garbage_in_the_middle_of_the_log_costs_only_what_it_hit(folder, at):
    entries = [entry for n in range(1, 41) for entry in (intent(n, request=b"x" * 3000), outcome(n))]
    left = await crashed(folder, *entries[:-1])
    log = left / "api-0.db-wal"
    with log.open("r+b") as file:
        file.seek(int(log.stat().st_size * at))
        file.write(b"\x5a" * 64)
    SqliteSpool(left, "api-0").close()
    sealed, fresh = discover(left)
    found = contents(sealed)
    lost = [e for _, e in found if isinstance(e, Poison)]
    assert sum(e.last - e.first + 1 for e in lost) <= 2
    assert [e for _, e in found if not isinstance(e, Poison)] == [
        entry
        for number, entry in enumerate(entries[:-1], 1)
        if not any(poison.first <= number <= poison.last for poison in lost)
    ]
    carried = [e for _, e in contents(fresh)]
    assert intent(40, request=b"x" * 3000) in carried
    assert len(carried) <= 4  # the last request, and at most one whose outcome was hit, each with its ending


async def test_an_index_of_the_log_is_not_needed(folder):
    left = await crashed(folder, intent(1), outcome(1))
    (left / "api-0.db-shm").unlink()
    SqliteSpool(left, "api-0").close()
    assert [e for _, e in contents(left / "api-0.db")] == [intent(1), outcome(1)]
    assert discover(left) == [left / "api-0.db"]


async def test_a_log_that_was_deleted_is_found_out(folder):
    left = await crashed(folder, intent(1), outcome(1))
    (left / "api-0.db-wal").unlink()
    SqliteSpool(left, "api-0").close()
    sealed, _ = discover(left)
    assert contents(sealed) == [(2, Poison(1, 2, "lost from the end of a damaged spool"))]


async def test_damage_under_a_running_process_costs_no_request(folder, monkeypatch):
    spool = SqliteSpool(folder, "api-0")
    await spool.append(intent(1))
    before = spool.id

    def broken(*_, **__):
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    monkeypatch.setattr(spool._file, "append", broken)
    assert await spool.append(outcome(1)) == 2
    assert spool.id != before
    spool.close()
    assert [e for _, e in contents(folder / "api-0.db")] == [intent(1), outcome(1)]
    assert len(discover(folder)) == 2


async def test_damage_that_the_worker_finds_is_put_aside_by_the_process_that_appends(folder):
    await write(folder, *(feedback(n, comment="x" * 3000) for n in range(1, 41)))
    path = folder / "api-0.db"
    spool = SqliteSpool(folder, "api-0")
    await spool.append(intent(1))
    before = spool.id
    spoil_page(path, 20)
    worker = SpoolReader(path)
    while worker.read(0, 1000)[-1][0] < 41:
        pass
    assert worker.damaged
    worker.close()
    await spool.append(outcome(1))
    assert spool.id != before
    spool.close()
    sealed, fresh = discover(folder)
    assert [e for _, e in contents(fresh)] == [intent(1), outcome(1)]
    assert contents(sealed)[-1] == (41, intent(1))
    assert not list(folder.glob("*.damaged"))


@pytest.mark.parametrize("moved", ["log only", "all"])
async def test_a_crash_in_the_middle_of_putting_a_file_aside_is_finished_later(folder, monkeypatch, moved):
    spool = SqliteSpool(folder, "api-0")
    await spool.append(feedback(1))
    path, steps = folder / "api-0.db", []
    real = Path.replace

    def dies(source, target):
        if len(steps) == (1 if moved == "log only" else 4):
            raise KeyboardInterrupt
        steps.append(source)
        return real(source, target)

    monkeypatch.setattr(Path, "replace", dies)
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        exchange(path, [pack(intent(5))])
    monkeypatch.undo()
    finish_exchange(path)
    assert [e for _, e in contents(path)] == [intent(5)]
    sealed, _ = discover(folder)
    assert [e for _, e in contents(sealed)] == [feedback(1)]
    spool._let_go()
    spool.close()


async def test_a_file_of_a_newer_version_is_left_alone(folder):
    await write(folder, feedback(1))
    spoil(folder / "api-0.db", "PRAGMA user_version=2")
    with pytest.raises(StorageCorrupted, match="newer version of Noria"):
        SqliteSpool(folder, "api-0")
    assert discover(folder) == [folder / "api-0.db"]
    spoil(folder / "api-0.db", "PRAGMA user_version=1")
    await write(folder, feedback(2))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE commits SET last = 999999999 WHERE first = 3",
        "UPDATE commits SET last = 'x' WHERE first = 3",
        "UPDATE meta SET value = 'x'",
        "DELETE FROM meta",
        "DROP TABLE meta",
    ],
)
async def test_numbers_that_cannot_be_true_cost_nothing(folder, change):
    first = await write(folder, feedback(1), feedback(2), feedback(3))
    spoil(folder / "api-0.db", change)
    SqliteSpool(folder, "api-0").close()
    reader = SpoolReader(discover(folder)[0])
    assert reader.id == first
    found = contents(reader.path)
    assert sum(e.last - e.first + 1 if isinstance(e, Poison) else 1 for _, e in found) == 3
    assert [e for _, e in found][:2] == [feedback(1), feedback(2)]
    reader.close()


async def test_a_row_that_does_not_say_where_it_ends_is_trimmed_with_its_neighbours(folder):
    await write(folder, *(feedback(n) for n in range(1, 6)))
    spoil(folder / "api-0.db", "UPDATE commits SET last = 'x' WHERE first = 2")
    reader = SpoolReader(folder / "api-0.db")
    reader.trim(3)
    assert [n for n, _ in reader.read(0, 10)] == [4, 5]
    reader.close()


async def test_a_row_in_a_wrong_place_is_known_as_such(folder):
    await write(folder, *(feedback(n) for n in range(1, 6)))
    spoil(folder / "api-0.db", "UPDATE commits SET blob = (SELECT blob FROM commits WHERE first = 4) WHERE first = 2")
    found = contents(folder / "api-0.db")
    assert [n for n, _ in found] == [1, 2, 3, 4, 5]
    assert found[1][1] == Poison(2, 2, "missing from the spool, or unreadable", pack_group(4, [pack(feedback(4))]))


async def test_a_file_whose_process_died_while_making_it_is_simply_made(folder):
    folder.mkdir()
    (folder / "api-0.db").touch()
    await write(folder, feedback(1))
    assert discover(folder) == [folder / "api-0.db"]


# --- the folder ---


async def test_the_folder_shows_every_spool_and_names_what_is_none(folder):
    one, two = await write(folder, feedback(1)), await write(folder, feedback(2), slot="api-1")
    (folder / "notes.db").write_text("this is no database, and nobody knows what it is for")
    spools = SpoolFolder(folder)
    assert [r.id for r in spools.readers()] == [one, two]
    assert spools.readers()[0] is spools.readers()[0]
    assert len(spools.problems) == 1
    assert "notes.db" in spools.problems[0]
    spools.close()


async def test_a_file_that_is_being_made_is_no_problem_and_is_read_once_it_is_made(folder):
    folder.mkdir()
    (folder / "api-0.db").touch()
    spools = SpoolFolder(folder)
    assert (spools.readers(), spools.problems) == ([], ())
    one = await write(folder, feedback(1))
    assert ([r.id for r in spools.readers()], spools.problems) == ([one], ())
    spools.close()


def test_a_folder_that_is_not_there_yet_has_no_spools(folder):
    assert SpoolFolder(folder).readers() == []


async def test_the_log_is_folded_in_and_space_is_given_back_when_all_is_shipped(folder, monkeypatch):
    for name in ("_CHECKPOINT_BYTES", "_TRUNCATE_BYTES", "_VACUUM_BYTES"):
        monkeypatch.setattr(f"noria.adapters.spool.reader.{name}", 10_000)
    spool = SqliteSpool(folder, "api-0")
    for n in range(50):
        await spool.append(feedback(n, comment="x" * 5000))
    reader = SpoolReader(folder / "api-0.db")
    reader.trim(25)
    assert [n for n, _ in reader.read(0, 100)] == list(range(26, 51))
    reader.trim(50)
    reader.trim(50)
    reader.close()
    assert await spool.append(feedback(51)) == 51
    spool.close()
    assert (folder / "api-0.db").stat().st_size < 50_000
