"""What every reader of entities does: the fake, and the real one over its socket; and what the real model finds."""

import asyncio
import importlib.util
import signal
import subprocess
import sys
import threading
import time

import pytest

from fakes import entities
from fakes.entities import KnownNames
from noria import bootstrap
from noria.adapters.redactor import SocketReader
from noria.domain.errors import RedactionUnavailable
from noria.redactor import MODEL, presidio, serve

ALL = frozenset({"name", "location", "organisation"})
MODEL_MISSING = importlib.util.find_spec("presidio_analyzer") is None or importlib.util.find_spec(MODEL) is None
needs_model = pytest.mark.skipif(MODEL_MISSING, reason="noria[pii] is not installed: Presidio or its model is missing")


class Process:
    """The redactor's server in a thread of this process."""

    def __init__(self, path, find) -> None:
        self.path = path
        self._find = find
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._ready.wait(10)

    async def _run(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        task = asyncio.create_task(serve(self.path, self._find, self._over))
        while not self.path.exists():  # noqa: ASYNC110 (the server says nothing)
            await asyncio.sleep(0.01)
        self._ready.set()
        await task

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()


@pytest.fixture
def process(tmp_path):
    process = Process(tmp_path / "r.sock", entities.find)
    yield process
    process.stop()


@pytest.fixture(params=["socket", "fake"])
def reader(request, process):
    return SocketReader(process.path) if request.param == "socket" else KnownNames()


async def test_each_text_gets_its_own_answer_in_order(reader):
    texts = ["Ada Lovelace went to Turin", "nobody here", "Bob"]
    expected = [[(0, 12, "name"), (21, 26, "location")], [], [(0, 3, "name")]]
    assert await reader.find(texts, ALL) == expected
    assert await asyncio.to_thread(reader.find_now, texts, ALL) == expected


async def test_only_what_was_asked_for_is_found(reader):
    assert await reader.find(["Bob of Contoso"], frozenset({"organisation"})) == [[(7, 14, "organisation")]]
    assert await reader.find([], ALL) == []


async def test_many_ask_at_once_and_each_gets_his_own(reader):
    answers = await asyncio.gather(*(reader.find([" " * n + "Bob"], ALL) for n in range(50)))
    assert answers == [[[(n, n + 3, "name")]] for n in range(50)]


async def test_strange_characters_shift_nothing(reader):
    assert await reader.find(["\ud83d \U0001f600é Bob"], ALL) == [[(5, 8, "name")]]


async def test_who_is_not_there_is_said_so(tmp_path):
    with pytest.raises(RedactionUnavailable):
        await SocketReader(tmp_path / "nobody.sock").find(["Bob"], ALL)
    with pytest.raises(RedactionUnavailable):
        await asyncio.to_thread(SocketReader(tmp_path / "nobody.sock", leisure_s=0.3).find_now, ["Bob"], ALL)


async def test_who_takes_too_long_or_trips_is_said_so(tmp_path):
    held = threading.Event()

    def slow(text, kinds):
        if text == "trip":
            raise ValueError(text)
        held.wait(20)
        return []

    process = Process(tmp_path / "slow.sock", slow)
    try:
        with pytest.raises(RedactionUnavailable):
            await SocketReader(process.path).find(["trip"], ALL)
        with pytest.raises(RedactionUnavailable):
            await SocketReader(process.path, patience_s=0.2).find(["Bob"], ALL)
    finally:
        held.set()
        await asyncio.to_thread(process.stop)


@needs_model
def test_the_model_finds_people_places_and_organisations():
    find = presidio()
    text = "My name is John Smith, I live in Berlin and work at Microsoft."
    assert find(text, sorted(ALL)) == [(11, 21, "name"), (33, 39, "location"), (52, 61, "organisation")]
    assert find(text, ["location"]) == [(33, 39, "location")]
    assert find("what is my card's delivery time", sorted(ALL)) == []


@needs_model
@pytest.mark.slow
def test_the_process_answers_until_it_is_told_to_stop(project):
    socket = bootstrap.redactor_socket(bootstrap.settings(project))
    process = subprocess.Popen([sys.executable, "-m", "noria.redactor", "--project", str(project)])
    try:
        (found,) = SocketReader(socket).find_now(["I met Maria Garcia in Madrid."], ALL)
        assert [kind for *_, kind in found] == ["name", "location"]
        assert socket.stat().st_mode & 0o077 == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    deadline = time.monotonic() + 5
    while socket.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not socket.exists()
