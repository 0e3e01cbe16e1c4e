"""Model servers that misbehave over real sockets: callers hear of it in the right words, and all is on record."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import pytest

from fakes.callers import Callers, Told
from fakes.dataplane import DataPlane
from fakes.upstream import Asked, Script, Step, chat, events, labels, listening, reply, talker
from noria.domain.endpoint import Wire

pytestmark = [pytest.mark.chaos]

VICTIMS = NEIGHBOURS = 6
WHOLE = b'{"predictions": ["WRONG"]}'


def raw(head: str, body: bytes = WHOLE) -> Script:
    """Bytes in place of an answer, after which the connection is closed."""
    return Script(before=f"HTTP/1.1 {head}\r\n\r\n".encode() + body)


def event(value: object) -> bytes:
    """One event of a stream."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def endless() -> Script:
    """A stream that never ends."""
    chunk = event(chat("on ")[1])
    return Script(200, itertools.cycle((chunk, Step.REST)), "text/event-stream")


@dataclass(frozen=True)
class Fault:
    """What a model server does, and what has to come of it: the caller's status, and the record's outcome."""

    script: Callable[[], Script]
    status: int
    outcome: str
    tries: int = 1
    """Times that the server is asked; 0 for any number."""

    @property
    def haste(self) -> str:
        """Begins the name of the endpoint that is asked: what takes for ever need not take long."""
        return "hasty-" if self.outcome == "timed_out" or self.status == 503 else ""


PREDICTING = {
    "hangs": Fault(lambda: Script(before=Step.HANG), 504, "timed_out"),
    "resets": Fault(lambda: Script(before=Step.CUT), 502, "failed", tries=2),
    "headers only": Fault(lambda: Script(200, (Step.HANG,)), 504, "timed_out"),
    "half an answer": Fault(lambda: Script(200, (WHOLE[:9], Step.CUT)), 502, "failed", tries=2),
    "half an answer, then nothing": Fault(lambda: Script(200, (WHOLE[:9], Step.HANG)), 504, "timed_out"),
    "an answer without end": Fault(lambda: Script(200, itertools.cycle((b" ", Step.REST))), 504, "timed_out"),
    "not HTTP": Fault(lambda: Script(before=b"\x16\x03\x01 hello\r\n\r\n"), 502, "failed", tries=2),
    "content-length too long": Fault(lambda: raw("200 OK\r\ncontent-length: 900"), 502, "failed", tries=2),
    "content-length too short": Fault(lambda: raw("200 OK\r\ncontent-length: 9"), 502, "failed", tries=0),
    "content-length no number": Fault(lambda: raw("200 OK\r\ncontent-length: many"), 502, "failed", tries=2),
    "a header of a megabyte": Fault(lambda: raw(f"200 OK\r\nx-long: {'x' * 2**20}"), 502, "failed", tries=2),
    "not JSON": Fault(lambda: Script(200, (b"<html>It works!</html>",)), 502, "failed"),
    "not UTF-8": Fault(lambda: Script(200, (b'{"predictions": ["\xff\xfe"]}',)), 502, "failed"),
    "nested without end": Fault(lambda: Script(200, (b"[" * 200_000,)), 502, "failed"),
    "no predictions": Fault(lambda: reply({"error": None}), 502, "failed"),
    "one prediction too many": Fault(lambda: reply({"predictions": ["A", "B"]}), 502, "failed"),
    "400": Fault(lambda: reply({"message": "not so"}, 400), 400, "rejected"),
    "404": Fault(lambda: reply({"message": "not here"}, 404), 502, "failed"),
    "429": Fault(lambda: reply({"message": "slow down"}, 429), 503, "failed", tries=2),
    "500": Fault(lambda: reply({"message": "oh no"}, 500), 502, "failed"),
    "503": Fault(lambda: reply({"message": "later"}, 503), 503, "failed", tries=0),
    "a redirect": Fault(lambda: Script(302, (), headers={"location": "http://169.254.169.254/"}), 502, "failed"),
}
SAID = {"error": {"message": "slow down", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
STREAMING = {
    "429": Fault(lambda: reply(SAID, 429), 429, "failed"),
    "500": Fault(lambda: reply(SAID, 500), 502, "failed"),
    "hangs": Fault(lambda: Script(before=Step.HANG), 504, "timed_out"),
    "headers only": Fault(lambda: Script(200, (Step.HANG,), "text/event-stream"), 504, "timed_out"),
    "half a chunk": Fault(
        lambda: Script(200, (event(chat("one")[1])[:20], Step.CUT), "text/event-stream"), 502, "failed"
    ),
    "resets in the middle": Fault(lambda: events(*chat("one "), done=False, then=(Step.CUT,)), 200, "failed"),
    "ends in the middle": Fault(lambda: events(*chat("one ")[:2], done=False), 200, "failed"),
    "hangs in the middle": Fault(lambda: events(*chat("one ")[:2], done=False, then=(Step.HANG,)), 200, "timed_out"),
    "hangs before [DONE]": Fault(lambda: events(*chat("one "), done=False, then=(Step.HANG,)), 200, "timed_out"),
    "without end": Fault(endless, 200, "timed_out"),
    "an event without end": Fault(
        lambda: Script(200, itertools.cycle((b"x" * 2**18,)), "text/event-stream"), 502, "failed"
    ),
    "garbage": Fault(lambda: Script(200, (b"data: {]\n\n",), "text/event-stream"), 502, "failed"),
    "an error as an event": Fault(lambda: events({"error": {"message": "out of memory"}}), 502, "failed"),
    "not a stream": Fault(lambda: Script(200, (b"<html>It works!</html>",), "text/html"), 502, "failed"),
}


@dataclass
class Servers:
    """Two model servers that misbehave when a text says so, and remember whom they were asked for."""

    fault: Callable[[], Script]
    asked: Counter[str] = field(default_factory=Counter)

    def classify(self, asked: Asked) -> Script:
        self.asked[asked.headers["x-request-id"]] += 1
        return self.fault() if asked.json["inputs"] == ["misbehave"] else labels(asked)

    def talk(self, asked: Asked) -> Script:
        self.asked[asked.headers["x-request-id"]] += 1
        said = asked.json["messages"][0]["content"]
        return self.fault() if said == "misbehave" else talker("well ", "done")(asked)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    plane = DataPlane(tmp_path_factory.mktemp("upstreams") / "shop")
    plane.api()
    yield plane
    plane.close()


@asynccontextmanager
async def misbehaving(plane: DataPlane, fault: Fault) -> AsyncIterator[Servers]:
    """The plane's model servers with a fault in them."""
    servers = Servers(fault.script)
    classify, talk = plane.sockets[Wire.MLFLOW], plane.sockets[Wire.OPENAI]
    async with listening(servers.classify, classify), listening(servers.talk, talk):
        yield servers


async def neighbours(callers: Callers) -> None:
    """Callers who ask for something else meanwhile."""
    async with asyncio.TaskGroup() as group:
        for number in range(NEIGHBOURS):
            group.create_task(callers.predict(f"fine {number}"))


@pytest.mark.serving("model server, predicting")
@pytest.mark.parametrize("case", PREDICTING)
async def test_a_misbehaving_model_server_harms_its_own_requests_only(plane: DataPlane, account, case: str) -> None:
    fault, victims = PREDICTING[case], plane.callers(f"p {case}")
    others = plane.callers(f"n {case}")
    async with misbehaving(plane, fault) as servers:
        async with asyncio.TaskGroup() as group:
            group.create_task(neighbours(others))
            for _ in range(VICTIMS):
                group.create_task(victims.predict("misbehave", endpoint=f"{fault.haste}triage"))
        await neighbours(others)  # nothing of it is left in the connections
    await plane.settle()
    assert [(told.status, told.whole) for told in victims.told] == [(fault.status, True)] * VICTIMS
    assert all(b"WRONG" not in told.body and told.json["message"] for told in victims.told)
    assert_fine(others.told)
    assert {row["outcome"] for row in plane.rows(victims.prefix)} == {fault.outcome}
    assert not fault.tries or {servers.asked[told.request_id] for told in victims.told} == {fault.tries}
    plane.check(others)
    account(plane.check(victims, {told.request_id for told in victims.told}))


@pytest.mark.serving("model server, streaming")
@pytest.mark.parametrize("case", STREAMING)
async def test_a_stream_that_goes_wrong_ends_with_an_error_and_without_done(
    plane: DataPlane, account, case: str
) -> None:
    fault, victims = STREAMING[case], plane.callers(f"s {case}")
    others = plane.callers(f"m {case}")
    async with misbehaving(plane, fault), asyncio.TaskGroup() as group:
        group.create_task(neighbours(others))
        for _ in range(VICTIMS):
            group.create_task(victims.chat("misbehave", endpoint=f"{fault.haste}assistant"))
    await plane.settle()
    for told in victims.told:
        assert (told.status, told.whole) == (fault.status, True)
        last = told.body.split(b"\n\n")[-2].removeprefix(b"data: ") if fault.status == 200 else told.body
        assert msgspec.json.decode(last)["error"]["message"]
    assert_fine(others.told)
    assert {row["outcome"] for row in plane.rows(victims.prefix)} == {fault.outcome}
    plane.check(others)
    account(plane.check(victims))


@pytest.mark.serving("model server resets once, then answers")
async def test_a_request_that_met_a_reset_is_sent_once_more_and_recorded_once(plane: DataPlane, account) -> None:
    seen: Counter[str] = Counter()

    def classify(asked: Asked) -> Script:
        seen[asked.headers["x-request-id"]] += 1
        return Script(before=Step.CUT) if seen[asked.headers["x-request-id"]] == 1 else labels(asked)

    callers = plane.callers("once")
    async with listening(classify, plane.sockets[Wire.MLFLOW]):
        await neighbours(callers)
    await plane.settle()
    assert_fine(callers.told)
    assert set(seen.values()) == {2}
    account(plane.check(callers, seen))


@pytest.mark.serving("model server answers twice on one connection")
async def test_a_second_answer_that_nobody_asked_for_reaches_no_other_caller(plane: DataPlane, account) -> None:
    smuggled = (
        b'HTTP/1.1 200 OK\r\ncontent-length: 26\r\ncontent-type: application/json\r\n\r\n{"predictions": ["WRONG"]}'
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                text = msgspec.json.decode(await reader.readexactly(int(length.split(b":")[1])))["inputs"][0]
                answer = msgspec.json.encode({"predictions": [text.upper()]})
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer) + smuggled)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    callers = plane.callers("twice")
    server = await asyncio.start_unix_server(serve, plane.sockets[Wire.MLFLOW])
    for number in range(VICTIMS):
        told = await callers.predict(f"fine {number}")
        assert b"WRONG" not in told.body
    await neighbours(callers)
    server.close()
    plane.sockets[Wire.MLFLOW].unlink()
    await plane.settle()
    assert all(told.status in (200, 502) and b"WRONG" not in told.body for told in callers.told)
    account(plane.check(callers))


@pytest.mark.serving("model server is not there")
async def test_nobody_listening_is_a_failure_on_record(plane: DataPlane, account) -> None:
    callers = plane.callers("gone")
    async with asyncio.TaskGroup() as group:
        for _ in range(VICTIMS):
            group.create_task(callers.predict("hello", endpoint="hasty-triage"))
            group.create_task(callers.chat("hello", endpoint="hasty-assistant"))
    await plane.settle()
    assert {told.status for told in callers.told} == {502}
    account(plane.check(callers))


def assert_fine(told: list[Told]) -> None:
    """Whoever asked for something else got it."""
    for one in told:
        assert one.status == 200, one
        assert one.json.startswith("FINE "), one
