"""A model server that is killed under load: callers see a clean end of their connection, the host sees the death."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from fakes.models import TEXT, classifier, save, version
from noria.adapters.codec import decode
from noria.adapters.hosts.local import LocalHost, Note
from noria.adapters.processes import birth

pytestmark = pytest.mark.chaos


async def load(url: str, seen: Counter[str], stop: asyncio.Event, expected: dict[str, str]) -> None:
    """Ask one text after the other and count what comes back."""
    connector = aiohttp.UnixConnector(url.removeprefix("unix:"))
    async with aiohttp.ClientSession("http://model", connector=connector) as session:
        while not stop.is_set():
            for text, label in expected.items():
                try:
                    async with session.post("/invocations", json={"inputs": [text]}) as reply:
                        right = (await reply.json())["predictions"] == [label]
                        seen["right" if right else "wrong"] += 1
                except (aiohttp.ClientError, ConnectionError):
                    seen["no connection"] += 1
                    await asyncio.sleep(0.01)


async def test_a_server_killed_under_load_gives_no_wrong_answer_and_comes_back(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", classifier(), inputs=TEXT, example=["good"])
    host = LocalHost(tmp_path / "run", lambda _: folder, tmp_path / "lock", orphan_after_s=600)
    url = host.start(version())
    seen: Counter[str] = Counter()
    stop = asyncio.Event()
    expected = {"good nice": "positive", "awful poor": "negative", "table lamp": "neutral"}
    callers = [asyncio.create_task(load(url, seen, stop, expected)) for _ in range(8)]
    try:
        for _ in range(2):
            before = seen["right"]
            await asyncio.sleep(0.5)
            assert seen["right"] > before
            os.kill(pid(tmp_path), signal.SIGKILL)
            await asyncio.to_thread(until, lambda: not host.running())
            assert await asyncio.to_thread(host.start, version()) == url
        before = seen["right"]
        await asyncio.sleep(0.5)
        assert seen["right"] > before
        assert seen["wrong"] == 0
        assert seen["no connection"] > 0
    finally:
        stop.set()
        await asyncio.gather(*callers)
        host.stop_all()


def test_servers_outlive_a_killed_worker_and_are_adopted(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", classifier(), inputs=TEXT)
    worker = subprocess.Popen([sys.executable, "-c", _WORKER, str(tmp_path), str(folder)], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    url = worker.stdout.readline().decode().strip()
    worker.kill()
    worker.communicate()
    host = LocalHost(tmp_path / "run", lambda _: folder, tmp_path / "run" / "worker.lock")
    adopted = pid(tmp_path)
    assert host.running() == {"triage/1": url}
    assert host.start(version()) == url
    assert pid(tmp_path) == adopted
    host.stop_all()
    assert birth(adopted) is None


def test_a_server_whose_worker_is_killed_ends_when_none_comes_back(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", classifier(), inputs=TEXT)
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(tmp_path), str(folder), "impatient"], stdout=subprocess.PIPE
    )
    assert worker.stdout is not None
    worker.stdout.readline()
    server = pid(tmp_path)
    time.sleep(3)
    assert birth(server) is not None  # owned, for longer than it would wait
    worker.kill()
    worker.communicate()
    until(lambda: birth(server) is None)


_WORKER = """
import fcntl, sys, time
from pathlib import Path
from fakes.models import version
from noria.adapters.hosts.local import LocalHost

root, folder = Path(sys.argv[1]), Path(sys.argv[2])
(root / "run").mkdir()
lock = (root / "run" / "worker.lock").open("w")
fcntl.flock(lock, fcntl.LOCK_EX)
seconds = 1 if "impatient" in sys.argv else 600
host = LocalHost(root / "run", lambda _: folder, root / "run" / "worker.lock", orphan_after_s=seconds)
print(host.start(version()), flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _fakes_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))


def pid(tmp_path: Path) -> int:
    """The process that serves triage/1."""
    return decode(Note, (tmp_path / "run" / "triage-1.json").read_text()).pid


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)
