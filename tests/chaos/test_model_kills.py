"""Kill -9 of model servers and of the real worker, under load."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.dataplane import DataPlane, until
from fakes.models import TEXT, classifier, save, version
from fakes.scene import AT_ONCE, Models, answering, load
from noria.adapters.hosts.local import LocalHost
from noria.domain.endpoint import Wire

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

SAYS = {"good nice": "positive", "awful poor": "negative", "table lamp": "neutral"}


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[DataPlane]:
    plane = DataPlane(tmp_path / "shop")
    yield plane
    plane.close()


@pytest.mark.serving("batching model server killed twice")
async def test_a_batching_server_that_is_killed_costs_callers_time_and_no_answer(plane, tmp_path, account) -> None:
    folder = save(tmp_path / "model", classifier(), inputs=TEXT, example=["good"])
    lock = plane.settings.run_dir / "worker.lock"
    host = LocalHost(plane.settings.run_dir, lambda _: folder, lock, orphan_after_s=600)
    callers, enough = plane.callers("batch"), asyncio.Event()

    async def ask() -> None:
        while not enough.is_set():
            for text, label in SAYS.items():
                told = await callers.predict(text)
                assert (told.status, told.json) == (200, label)

    try:
        plane.route("triage", await asyncio.to_thread(host.start, version()))
        plane.api()
        asking = [asyncio.create_task(ask()) for _ in range(AT_ONCE)]
        for asked in (40, 120):
            await until(lambda: len(callers.told) > asked)  # noqa: B023
            (note,) = host._notes()
            os.kill(note.pid, signal.SIGKILL)
            await until(lambda: not host.running())
            await asyncio.to_thread(host.start, version())
        await until(lambda: len(callers.told) > 240)
        enough.set()
        await asyncio.gather(*asking)
        plane.kill("api-0", signal.SIGTERM)
        await plane.settle()
        account(plane.check(callers))
    finally:
        await asyncio.to_thread(host.stop_all)


@pytest.mark.serving("streaming model server killed mid-stream")
async def test_streams_of_a_killed_server_end_with_an_error_and_later_ones_wait_for_the_next(plane, account) -> None:
    callers, later = plane.callers("cut"), plane.callers("later")

    def start() -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        command = [sys.executable, "-m", "fakes.talkative", str(plane.sockets[Wire.OPENAI])]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    server = await asyncio.to_thread(start)
    try:
        plane.api()
        streams = [asyncio.create_task(callers.chat("hello")) for _ in range(AT_ONCE)]
        await until(lambda: sum(b"word3" in told.body for told in callers.told) == AT_ONCE)
        server.kill()
        server.communicate()
        await asyncio.gather(*streams)
        waiting = [asyncio.create_task(later.chat("hello", stream=False)) for _ in range(AT_ONCE)]
        plane.sockets[Wire.OPENAI].unlink()
        server = await asyncio.to_thread(start)
        await asyncio.gather(*waiting)
    finally:
        server.kill()
        server.communicate()
    plane.kill("api-0", signal.SIGTERM)
    await plane.settle()
    assert {(told.status, told.whole) for told in callers.told} == {(200, True)}
    assert all(b"[DONE]" not in told.body and b'"error"' in told.body for told in callers.told)
    assert {(row["outcome"], row["status_code"]) for row in plane.rows("cut")} == {("failed", 200)}
    assert {told.status for told in later.told} == {200}
    plane.check(later)
    account(plane.check(callers))


@pytest.mark.serving("worker killed mid-ship, after a Delta commit, before a delete")
async def test_a_worker_that_is_killed_again_and_again_ships_each_record_once(plane: DataPlane, account) -> None:
    models, callers, enough = Models(), plane.callers("load"), asyncio.Event()

    async def ask() -> None:
        while not enough.is_set():
            await load(callers, AT_ONCE, rest_s=0.05)

    async with answering(plane, models):
        plane.api()
        asking = asyncio.create_task(ask())
        for point in ("before delta commit", "after delta commit", "before trim"):
            plane.worker(point, 2)
            assert await plane.ended("worker") == -signal.SIGKILL
        enough.set()
        await asking
    plane.kill("api-0", signal.SIGTERM)
    plane.worker()
    await until(lambda: len(plane.rows()) == len(callers.told))
    plane.kill("worker", signal.SIGTERM)
    assert plane.processes["worker"].returncode == 0
    assert {told.status for told in callers.told} == {200}
    figures = plane.check(callers, models.asked)
    await plane.settle()
    assert plane.check(callers, models.asked) == figures
    account(figures)
