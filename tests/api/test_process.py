"""The real process, `python -m noria.api`: it ends cleanly, and never outlives the supervisor."""

import asyncio
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import psutil
import pytest

from fakes.plane import route, target
from fakes.site import until
from fakes.upstream import Script, listening
from noria import bootstrap
from noria.adapters.spool.writer import SpoolReader
from noria.domain.errors import StorageCorrupted
from noria.domain.inference import Intent, Outcome

BODY = {"input": "hello"}


def command(project, listener, slot="api-0", *more) -> list[str]:
    return [
        sys.executable,
        "-m",
        "noria.api",
        "--project",
        str(project),
        "--fd",
        str(listener.fileno()),
        "--slot",
        slot,
        *more,
    ]


@asynccontextmanager
async def serving(project, listener, *slot):
    process = await asyncio.create_subprocess_exec(*command(project, listener, *slot), pass_fds=(listener.fileno(),))
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def put(project):
    """Brings a model server into service."""
    state = bootstrap.state(bootstrap.settings(project))

    def put(url: str) -> None:
        with state.change("noria", "route.changed", "test") as change:
            change.put(route(replace(target(), url=url)))

    return put


async def ask(http, listener) -> tuple[int, bytes]:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/predict/triage"
    async with http.post(url, json=BODY) as response:
        return response.status, await response.read()


async def answered(http, listener) -> None:
    """Wait until a request is answered."""
    status = 0
    async with asyncio.timeout(60):
        while status != 200:
            await asyncio.sleep(0.05)
            status, _ = await ask(http, listener)


@pytest.mark.slow
async def test_a_process_that_is_told_to_stop_finishes_its_answers_and_its_successor_takes_who_waits(
    project, put, listener, tmp_path
):
    slow, arrived, may_answer = [], asyncio.Event(), asyncio.Event()

    def handle(_):
        if slow:
            arrived.set()
            return Script(pieces=(b'{"predictions"', may_answer, b': ["late"]}'))
        return Script(pieces=(b'{"predictions": ["prompt"]}',))

    async with listening(handle, tmp_path) as url, aiohttp.ClientSession() as http:
        put(url)
        async with serving(project, listener) as first:
            await answered(http, listener)
            slow.append(True)
            under_way = asyncio.create_task(ask(http, listener))
            await asyncio.wait_for(arrived.wait(), 30)
            slow.clear()
            first.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
            waiting = asyncio.create_task(ask(http, listener))
            await asyncio.sleep(0.1)
            assert not under_way.done()
            may_answer.set()
            assert await under_way == (200, b'"late"')
            assert await asyncio.wait_for(first.wait(), 30) == 0
        assert not waiting.done()
        async with serving(project, listener) as second:
            assert await asyncio.wait_for(waiting, 60) == (200, b'"prompt"')
            second.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(second.wait(), 30) == 0

    reader = SpoolReader(bootstrap.settings(project).spool_dir / "api-0.db")
    entries = [entry for _, entry in reader.read(0, 1000)]
    reader.close()
    intents = {e.request_id for e in entries if isinstance(e, Intent)}
    outcomes = [e.request_id for e in entries if isinstance(e, Outcome)]
    assert len(outcomes) == len(intents) >= 3
    assert set(outcomes) == intents


@pytest.mark.slow
async def test_processes_share_the_port_and_the_count_and_a_killed_one_takes_nothing_with_it(
    project, put, listener, tmp_path
):
    slots = ("api-0", "--pool", "2"), ("api-1", "--pool", "2")
    spools = bootstrap.settings(project).spool_dir

    def written(slot) -> list:
        try:
            reader = SpoolReader(spools / f"{slot}.db")
        except StorageCorrupted:  # it is only just being made
            return []
        try:
            return [entry for _, entry in reader.read(0, 10_000)]
        finally:
            reader.close()

    async def counted() -> float:
        async with aiohttp.ClientSession() as fresh, fresh.get(f"{site}/metrics") as response:
            lines = (await response.text()).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("noria_requests_total{"))

    async def count_is(expected: int) -> None:
        async with asyncio.timeout(30):
            while await counted() != expected:
                pass

    async def burst() -> list[int]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as http:
            return [status for status, _ in await asyncio.gather(*(ask(http, listener) for _ in range(40)))]

    site = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with listening(lambda _: Script(pieces=(b'{"predictions": ["x"]}',)), tmp_path) as url:
        put(url)
        async with serving(project, listener, *slots[0]) as first, serving(project, listener, *slots[1]) as second:
            asked = 0
            async with asyncio.timeout(60):
                while not all((spools / f"{slot}.db").exists() and written(slot) for slot, *_ in slots):
                    assert set(await burst()) == {200}
                    asked += 40
            await count_is(asked)
            second.kill()
            await second.wait()
            assert set(await burst()) == {200}
            asked += 40
            await count_is(asked)
            async with serving(project, listener, *slots[1]) as successor:
                assert await counted() == asked
                before = len(written("api-1"))
                async with asyncio.timeout(60):
                    while len(written("api-1")) == before:
                        assert set(await burst()) == {200}
                        asked += 40
                for process in (first, successor):
                    process.send_signal(signal.SIGTERM)
                assert [await asyncio.wait_for(p.wait(), 30) for p in (first, successor)] == [0, 0]
    entries = [entry for slot, *_ in slots for entry in written(slot)]
    intents = [e.request_id for e in entries if isinstance(e, Intent)]
    outcomes = [e.request_id for e in entries if isinstance(e, Outcome)]
    assert len(intents) == len(set(intents)) == len(outcomes) == asked
    assert set(intents) == set(outcomes)


SUPERVISOR = """
import subprocess, sys
child = subprocess.Popen(sys.argv[2:], pass_fds=[int(sys.argv[1])])
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.chaos
async def test_a_process_whose_supervisor_was_killed_ends_by_itself(project, put, listener, tmp_path):
    supervisor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SUPERVISOR, str(listener.fileno()), *command(project, listener)),
        pass_fds=(listener.fileno(),),
        stdout=subprocess.PIPE,
    )
    child = psutil.Process(int(await supervisor.stdout.readline()))
    try:
        async with listening(lambda _: Script(pieces=(b'{"predictions": ["x"]}',)), tmp_path) as url:
            put(url)
            async with aiohttp.ClientSession() as http:
                await answered(http, listener)
    finally:
        supervisor.kill()
        await supervisor.wait()
    await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 30)


def test_a_process_that_cannot_start_says_why_in_one_line(tmp_path):
    empty = [sys.executable, "-m", "noria.api", "--project", str(tmp_path), "--port", "0"]
    ended = subprocess.run(empty, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert '"level":"error"' in ended.stderr
    assert "noria.yaml" in ended.stderr
