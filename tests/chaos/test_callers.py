"""Callers who leave, who stall, who read at a crawl, who send what can't be read: nobody else notices, all is on
record."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

import msgspec
import pytest

from fakes.callers import Callers
from fakes.dataplane import DataPlane, until
from fakes.scene import AT_ONCE, Models, answering, load
from fakes.upstream import Asked, Script, Step, chat, events, reply

pytestmark = [pytest.mark.chaos]

LONG = "x" * 2**22
"""More than the sockets between a server and a slow caller hold."""
MOST = 10_000_000
"""Bytes of a body that are taken, as the project file says."""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    plane = DataPlane(tmp_path_factory.mktemp("callers") / "shop", server=", slow_client: 1s")
    plane.api()
    yield plane
    plane.close()


class Patient(Models):
    """Models that take their time when somebody says `wait`, and talk a lot when he says `long`."""

    def __init__(self) -> None:
        super().__init__()
        self.enough = asyncio.Event()

    def classify(self, asked: Asked) -> Script:
        script = super().classify(asked)
        if asked.json["inputs"] == ["long"]:
            return reply({"predictions": [LONG]})
        return Script(200, (self.enough, *script.pieces)) if asked.json["inputs"] == ["wait"] else script

    def talk(self, asked: Asked) -> Script:
        script = super().talk(asked)
        said = asked.json["messages"][0]["content"]
        if said == "wait":
            return Script(200, (*events(*chat("one ")[:2], done=False).pieces, self.enough), script.content_type)
        if said == "long":
            piece = b"data: " + msgspec.json.encode(chat("x" * 2**14)[1]) + b"\n\n"
            return Script(200, itertools.cycle((*([piece] * 16), Step.REST)), script.content_type)
        return script


def _input(text: str) -> bytes:
    return json.dumps({"input": text}).encode()


async def _leaves_before_the_answer(callers: Callers) -> None:
    await callers.predict("wait", leave_after=0)


async def _leaves_mid_stream(callers: Callers) -> None:
    await callers.chat("wait", leave_after=60)


async def _stalls_in_the_body(callers: Callers) -> None:
    await callers.predict("never said", sent=9)


DEPARTURES = {
    "leaves before the answer": (_leaves_before_the_answer, {("disconnected", 499)}),
    "leaves mid-stream": (_leaves_mid_stream, {("disconnected", 200)}),
    "stalls in the body": (_stalls_in_the_body, {("failed", 408)}),
}


@pytest.mark.serving("caller")
@pytest.mark.parametrize("case", DEPARTURES)
async def test_a_caller_who_does_not_hear_the_end_is_on_record_and_holds_nobody_up(plane, account, case: str) -> None:
    does, endings = DEPARTURES[case]
    models, callers, others = Patient(), plane.callers(f"d {case}"), plane.callers(f"o {case}")
    async with answering(plane, models):
        async with asyncio.TaskGroup() as group:
            group.create_task(load(others, 80))
            for _ in range(AT_ONCE):
                group.create_task(does(callers))
        await plane.settle()
        models.enough.set()
    assert {told.status for told in others.told} == {200}
    assert {(row["outcome"], row["status_code"]) for row in plane.rows(callers.prefix)} == endings
    assert len(plane.rows(callers.prefix)) == AT_ONCE
    plane.check(others)
    account(plane.check(callers))


@pytest.mark.serving("caller reads a byte at a time")
@pytest.mark.parametrize(("what", "outcome"), [("an answer", "answered"), ("a stream", "disconnected")])
async def test_a_caller_who_reads_at_a_crawl_is_given_up(plane: DataPlane, account, what: str, outcome: str) -> None:
    callers, others = plane.callers(f"r {what}"), plane.callers(f"q {what}")
    said = {"model": "assistant", "stream": True, "messages": [{"role": "user", "content": "long"}]}
    path, body = ("/predict/triage", {"input": "long"}) if what == "an answer" else ("/v1/chat/completions", said)
    async with answering(plane, Patient()):
        crawlers = [asyncio.create_task(callers.crawl(path, json.dumps(body).encode())) for _ in range(AT_ONCE)]
        await until(lambda: all(told.status for told in callers.told) and len(callers.told) == AT_ONCE)
        assert plane.connections("api-0") > 0  # one that was slower still may have been given up already
        await load(others, 80)
        await until(lambda: plane.connections("api-0") == 0)
        await plane.settle()
    for crawler in crawlers:
        crawler.cancel()
    await asyncio.wait(crawlers)
    assert {told.status for told in others.told} == {200}
    assert {row["outcome"] for row in plane.rows(callers.prefix)} == {outcome}
    plane.check(others)
    account(plane.check(callers))


@pytest.mark.serving("caller leaves in the middle of his body")
async def test_a_request_that_never_was_whole_leaves_nothing(plane: DataPlane, account) -> None:
    callers = plane.callers("half")
    async with answering(plane, Models()):
        for sent in (0, 1, 9):
            await callers.predict("never said", sent=sent, leave_after=0)
        await load(callers, 16)
    await plane.settle()
    told = plane.check(callers)
    assert (told.requests, told.records) == (19, 16)
    account(told)


@dataclass(frozen=True)
class Body:
    """What somebody sends, and what he has to hear of it."""

    body: bytes
    status: int
    path: str = "/predict/triage"
    headers: dict[str, str | None] = field(default_factory=dict)
    recorded: bool = True


def _of_length(size: int) -> bytes:
    return _input("x" * (size - len(_input(""))))


CHAT = "/v1/chat/completions"
CHUNKED = {"content-length": None, "transfer-encoding": "chunked"}
BODIES = {
    "10 MB": Body(_of_length(MOST), 200),
    "a byte more than 10 MB": Body(_of_length(MOST + 1), 413),
    "10 MB and more in chunks": Body(b"989681\r\n" + b"x" * (MOST + 1) + b"\r\n0\r\n\r\n", 413, headers=CHUNKED),
    "content-length of an exabyte": Body(b"{}", 413, headers={"content-length": str(10**18)}),
    "nested 100,000 deep": Body(b'{"input":' + b"[" * 100_000, 400),
    "nested and closed": Body(b'{"input":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
    "objects nested in messages": Body(
        b'{"model":"assistant","messages":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, 400, CHAT, recorded=False
    ),
    "NaN": Body(b'{"input": NaN}', 400),
    "infinity": Body(b'{"input": -Infinity}', 400),
    "a number beyond all numbers": Body(b'{"input": 1e999}', 400),
    "invalid UTF-8": Body(b'{"input": "\xff\xfe\xc0\xaf"}', 400),
    "UTF-16": Body(_input("hello").decode().encode("utf-16"), 400),
    "half a character": Body(b'{"input": "\\ud800"}', 400),
    "NUL in the text": Body(_input("a\0b"), 200),
    "duplicate keys": Body(b'{"input": "a", "input": "b"}', 200),
    "duplicate models": Body(
        b'{"model": "assistant", "model": "triage-2", "messages": [{"role": "user", "content": "x"}]}',
        404,
        CHAT,
        recorded=False,
    ),
    "nothing": Body(b"", 400),
    "no object": Body(b"[1, 2]", 400),
    "half an object": Body(b'{"input": "a"', 400),
    "two objects": Body(b'{"input": "a"} {"input": "b"}', 400),
    "plain text": Body(b"hello", 415, headers={"content-type": "text/plain"}),
    "another character set": Body(_input("x"), 415, headers={"content-type": "application/json; charset=utf-16"}),
    "a content type of nonsense": Body(_input("x"), 415, headers={"content-type": ";;=/"}),
    "compressed": Body(_input("x"), 415, headers={"content-encoding": "gzip"}),
    "metadata that is no JSON": Body(_input("x"), 400, headers={"x-noria-metadata": "{'a': 1}"}),
    "chunks of nonsense": Body(b"zz\r\n{}\r\n", 400, headers=CHUNKED, recorded=False),
    "two lengths": Body(
        b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n", 400, headers={"transfer-encoding": "chunked"}, recorded=False
    ),
    "headers of 100 KB": Body(_input("x"), 431, headers={"x-long": "x" * 100_000}, recorded=False),
}


@pytest.mark.serving("body")
@pytest.mark.parametrize("case", BODIES)
async def test_a_body_that_cannot_be_read_is_refused_in_words_and_recorded(
    plane: DataPlane, account, case: str
) -> None:
    sent, callers, others = BODIES[case], plane.callers(f"b {case}"), plane.callers(f"c {case}")
    async with answering(plane, Models()) as models, asyncio.TaskGroup() as group:
        group.create_task(load(others, 16))
        group.create_task(callers.ask(sent.path, sent.body, headers=sent.headers))
    await plane.settle()
    told = callers.told[0]
    assert (told.status, told.whole) == (sent.status, True), told.body[:300]
    if told.status != 200:
        said = told.json.get("error", told.json)
        assert len(said["message"]) > 10
    assert {one.status for one in others.told} == {200}
    plane.check(others, models.asked.keys() - {told.request_id})
    account(plane.check(callers, unrecorded=() if sent.recorded else (told.name,)))


NAMES = {
    "dots and slashes": "..%2f..%2f..%2fetc%2fpasswd",
    "dots": "%2e%2e",
    "NUL": "triage%00",
    "line breaks": "triage%0d%0ax-evil:%20yes",
    "a header of its own": "triage%0d%0acontent-length:%200%0d%0a%0d%0aHTTP/1.1%20200%20OK",
    "not UTF-8": "%ff%fe",
    "upper case": "TRIAGE",
    "a blank at the end": "triage%20",
    "another encoding of a slash": "%e2%88%95..",
    "SQL": quote("triage'; DROP TABLE nouns; --"),
    "a template": "%7b%7bendpoint%7d%7d",
    "a variant": "triage;jsessionid=1",
    "60 KB": "a" * 60_000,
    "up and down": "triage/../assistant",
}


@pytest.mark.serving("endpoint's name")
@pytest.mark.parametrize("case", NAMES)
async def test_a_name_that_plays_tricks_names_nothing(plane: DataPlane, account, case: str) -> None:
    callers, name = plane.callers(f"t {case}"), NAMES[case]
    before = sorted(plane.root.rglob("*.*"))
    async with answering(plane, Models()) as models:
        for path in ("/predict/", "/endpoints/", "/serving-endpoints/", "/openai/deployments/"):
            after = {"/predict/": "", "/openai/deployments/": "/chat/completions"}.get(path, "/invocations")
            told = await callers.ask(f"{path}{name}{after}", _input("x"))
            assert told.status == 404, told
            assert "x-evil" not in told.headers
    await plane.settle()
    assert not models.asked
    assert {file for file in set(plane.root.rglob("*.*")) - set(before) if "tables" not in file.parts} == set()
    account(plane.check(callers, unrecorded=[told.name for told in callers.told]))


@pytest.mark.serving("model's name")
@pytest.mark.parametrize("case", NAMES)
async def test_a_model_that_is_named_by_a_trick_is_not_found(plane: DataPlane, account, case: str) -> None:
    callers = plane.callers(f"m {case}")
    body = {"model": unquote(NAMES[case]), "messages": [{"role": "user", "content": "x"}]}
    async with answering(plane, Models()) as models:
        told = await callers.ask("/v1/chat/completions", json.dumps(body).encode())
    await plane.settle()
    assert (told.status, told.json["error"]["code"], models.asked) == (404, "model_not_found", {})
    account(plane.check(callers, unrecorded=[told.name]))
