"""Disks and databases that go away under load: what can't be recorded isn't answered, and all is well afterwards."""

import asyncio
import shutil
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from fakes.dataplane import DataPlane, until
from fakes.disks import no_longer_files, read_only, small_disk
from fakes.scene import AT_ONCE, Models, answering, asking, load

pytestmark = [pytest.mark.chaos]


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[DataPlane]:
    plane = DataPlane(tmp_path / "shop")
    yield plane
    plane.close()


@contextmanager
def quota(plane: DataPlane, _disk: object) -> Iterator[None]:
    with no_longer_files(plane.processes["api-0"].pid, 1):
        yield


@contextmanager
def full_disk(plane: DataPlane, disk) -> Iterator[None]:
    disk.fill()
    yield
    disk.empty()


@contextmanager
def replaced_by_a_file(plane: DataPlane, _disk: object) -> Iterator[None]:
    aside = plane.spools.rename(plane.spools.with_name("aside"))
    plane.spools.touch()
    yield
    plane.spools.unlink()
    aside.rename(plane.spools)


UNWRITABLE = {"disk full": full_disk, "quota used up": quota, "replaced by a file": replaced_by_a_file}


@pytest.mark.serving("spool")
@pytest.mark.parametrize("case", UNWRITABLE)
async def test_what_cannot_be_recorded_is_not_answered_until_it_can_be(plane: DataPlane, account, case: str) -> None:
    """The fault begins while models are answering: requests whose intent is on disk are told 503 like all that come
    later, and their record says so once there is room."""
    models, callers, stack = Models(), plane.callers("load"), ExitStack()
    with stack:
        disk = stack.enter_context(small_disk(plane.spools, "4m")) if case == "disk full" else None
        async with answering(plane, models):
            plane.api()
            await load(callers, 80)
            models.free.clear()
            caught = [asyncio.create_task(callers.predict(f"caught {n}")) for n in range(AT_ONCE)]
            await until(lambda: models.waiting == AT_ONCE)
            before = sum(models.asked.values())
            with UNWRITABLE[case](plane, disk):
                models.free.set()
                assert {told.status for told in await asyncio.gather(*caught)} == {503}
                refused = plane.callers("refused")
                await load(refused, 80)
                assert {told.status for told in refused.told} == {503}
                assert all(told.headers["retry-after"] for told in refused.told)
                assert sum(models.asked.values()) == before, "a model was asked without an intent on disk"
            await load(callers, 80)
            await plane.settle()  # the process lives: it closes what it could not close before
        plane.kill("api-0", signal.SIGTERM)
        assert Counter(told.status for told in callers.told) == {200: 160, 503: AT_ONCE}
        account(plane.check(callers, models.asked))
        assert plane.rows("refused") == []


@pytest.mark.serving("spool read-only when an API process starts")
async def test_a_process_that_cannot_record_does_not_begin_to_serve(plane: DataPlane, account) -> None:
    models, callers = Models(), plane.callers("load")
    async with answering(plane, models):
        plane.api()
        await load(callers, 80)
        plane.kill("api-0")
        with read_only(plane.spools):
            plane.api()
            assert await plane.ended("api-0") == 1
            said = (plane.root / "api-0.log").read_text()
            assert f"The spool {plane.spools / 'api-0.db'} can't be written" in said
            assert "let Noria write there" in said
            waiting = asyncio.create_task(load(callers, 80))
        plane.api()
        await waiting
    plane.kill("api-0", signal.SIGTERM)
    await plane.settle()
    assert {told.status for told in callers.told} == {200}
    account(plane.check(callers, models.asked))


@pytest.mark.serving("spool deleted while models answer")
async def test_a_deleted_spool_is_begun_anew_with_what_is_under_way(plane: DataPlane, account) -> None:
    models, callers = Models(), plane.callers("load")
    async with answering(plane, models):
        plane.api()
        await load(callers, 80)
        await plane.settle()  # what was not shipped is lost with the folder, and nobody can help it
        models.free.clear()
        caught = [asyncio.create_task(callers.predict(f"caught {n}")) for n in range(AT_ONCE)]
        await until(lambda: models.waiting == AT_ONCE)
        shutil.rmtree(plane.spools)
        models.free.set()
        await asyncio.gather(*caught)
        await load(callers, 80)
    plane.kill("api-0", signal.SIGTERM)
    await plane.settle()
    assert {told.status for told in callers.told} == {200}
    account(plane.check(callers, models.asked))


@pytest.mark.serving("tables' disk full")
async def test_what_cannot_be_shipped_stays_in_the_spool_until_it_can(plane: DataPlane, account) -> None:
    models, callers = Models(), plane.callers("load")
    with small_disk(plane.tables, "2m") as disk:
        async with answering(plane, models):
            plane.api()
            plane.shipper()
            await load(callers, 160)
            await until(lambda: plane.rows())
            disk.fill()
            await load(callers, 160)
            await until(lambda: "problem: " in (plane.root / "shipper.log").read_text())
            disk.empty()
            await load(callers, 160)
        plane.kill("shipper")
        plane.kill("api-0", signal.SIGTERM)
        await plane.settle()
        assert {told.status for told in callers.told} == {200}
        account(plane.check(callers, models.asked))


@contextmanager
def deleted(state: Path) -> Iterator[None]:
    aside = state.with_name("aside")
    aside.mkdir()
    files = [file.rename(aside / file.name) for file in state.parent.glob(f"{state.name}*")]
    yield
    for file in list(state.parent.glob(f"{state.name}*")):
        file.unlink()
    for file in files:
        file.rename(state.with_name(file.name))


@contextmanager
def corrupted(state: Path) -> Iterator[None]:
    good = state.read_bytes()
    with state.open("r+b") as file:
        file.write(b"\x5a" * len(good))
    yield
    with state.open("r+b") as file:
        file.write(good)


@contextmanager
def locked(state: Path) -> Iterator[None]:
    with closing(sqlite3.connect(state)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield


STATE = {"deleted": deleted, "corrupted": corrupted, "locked": locked}


@pytest.mark.serving("control database")
@pytest.mark.parametrize("case", STATE)
async def test_serving_goes_on_without_the_control_database_and_follows_it_again(plane, account, case: str) -> None:
    models, callers = Models(), plane.callers("load")
    state = plane.settings.home / "state.db"
    async with answering(plane, models):
        plane.api()
        await load(callers, 80)
        with closing(sqlite3.connect(state)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with STATE[case](state):
            await load(callers, 160)
        assert {told.status for told in callers.told} == {200}
        plane.route("triage", version="2")
        async for told in asking(callers):
            if told.headers["x-noria-version"] == "triage/2":
                break
    plane.kill("api-0", signal.SIGTERM)
    await plane.settle()
    account(plane.check(callers, models.asked))
