"""Callers who send too much, too slowly or nothing, take nothing, or send ahead; and the end of a process."""

import asyncio
import errno
import json
import socket
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from fakes.site import running, until
from fakes.story import PROJECT
from fakes.upstream import Script, Step, chat, events, labels, reply, talker
from noria.domain.inference import Outcome

HELLO = b'{"model": "assistant", "messages": [{"role": "user", "content": "hello"}], "stream": true}'


def project(**limits):
    """The project with a server of its own limits."""
    return PROJECT.model_copy(update={"server": PROJECT.server.model_copy(update=limits)})


QUICK = project(slow_client=timedelta(seconds=0.4), max_header_bytes=2000)


class Wire:
    """A connection that says exactly what it is told to say."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next response: status, headers and body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(first.split()[1]), headers, body

    async def closed(self) -> bytes:
        """What is left to read until the other side closes."""
        try:
            return await asyncio.wait_for(self.reader.read(), 10)
        except ConnectionError:
            return b""


@pytest.fixture
async def connect():
    """Opens connections to a site; they are closed in the end."""
    opened = []

    async def to(site, receive_bytes: int | None = None) -> Wire:
        address = urlsplit(site.url)
        sock = socket.socket()
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (address.hostname, address.port))
        limit = 2**16 if receive_bytes is None else 1024
        wire = Wire(*await asyncio.open_connection(sock=sock, limit=limit))
        opened.append(wire)
        return wire

    yield to
    for wire in opened:
        wire.writer.close()


@pytest.fixture
async def site(tmp_path):
    async with running(tmp_path, labels, talker("hi"), QUICK) as made:
        yield made


def post(body: bytes, path: bytes = b"/predict", *headers: bytes) -> bytes:
    """A whole request."""
    lines = (b"POST %b HTTP/1.1" % path, b"host: localhost", b"content-length: %d" % len(body), *headers)
    return b"\r\n".join((*lines, b"", body))


# --- heads ---


@pytest.mark.parametrize("path", [b"/predict", b"/v1/chat/completions"])
@pytest.mark.parametrize("cut", [0, 1])
async def test_a_head_that_is_too_long_is_refused_with_the_limit(site, connect, path, cut):
    wire = await connect(site)
    whole = post(b"{}", path, b"x-long: " + b"a" * 3000)
    await wire.send(whole[: -len(b"\r\n\r\n{}")] if cut else whole)
    status, headers, body = await wire.answer()
    assert (status, headers["connection"]) == (431, "close")
    said = json.loads(body)
    assert "2000 bytes" in (said["error"]["message"] if path.startswith(b"/v1") else said["message"])
    await wire.closed()
    assert (await site.post("/predict", {"input": "next"}))[0] == 200


async def test_one_header_without_an_end_is_refused_before_it_fills_the_memory(site, connect):
    wire = await connect(site)
    await wire.send(b"GET /livez HTTP/1.1\r\nx-long: ")
    for _ in range(5):
        await wire.send(b"a" * 1000)
        await asyncio.sleep(0.01)
    assert (await wire.answer())[0] == 431


async def test_a_long_body_and_a_short_head_in_one_piece_are_no_long_head(site, connect):
    wire = await connect(site)
    request = post(json.dumps({"input": "a" * 1900}).encode())
    await wire.send(request + request[:20])
    assert (await wire.answer())[0] == 200
    await wire.send(request[20:])
    assert (await wire.answer())[0] == 200


async def test_a_head_that_trickles_is_given_up(site, connect):
    wire = await connect(site)
    await wire.send(b"POST /predict HTTP/1.1\r\nhost: local")
    status, headers, body = await wire.answer()
    assert (status, headers["connection"], json.loads(body)["error_code"]) == (408, "close", "request_timeout")


async def test_a_body_that_trickles_is_given_up_and_on_record(site, connect):
    wire = await connect(site)
    await wire.send(post(b'{"input": "a"}')[:-5])
    status, headers, body = await wire.answer()
    assert (status, headers["connection"], json.loads(body)["error_code"]) == (408, "close", "request_timeout")
    assert site.endings == [("failed", 408)]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nno colon\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /predict HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
        b"CONNECT localhost:443 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_told_in_json_and_closed(site, connect, garbage):
    wire = await connect(site)
    await wire.send(garbage)
    status, headers, body = await wire.answer()
    assert (status, headers["connection"], json.loads(body)["error_code"]) == (400, "close", "invalid_request")
    assert await wire.closed() == b""
    assert site.intents == []


async def test_who_connects_and_says_nothing_is_let_go(site, connect):
    site.serving.config.timeout_keep_alive = 0.3
    silent, blank = await connect(site), await connect(site)
    await blank.send(b"\r\n")
    assert await silent.closed() == await blank.closed() == b""
    await until(lambda: not site.serving.server_state.connections)


async def test_blank_lines_before_a_request_keep_nobody_waiting(site, connect):
    wire = await connect(site)
    await wire.send(b"\r\n")
    await wire.send(post(b'{"input": "a"}'))
    assert (await wire.answer())[2] == b'"A"'


async def test_an_offer_to_speak_another_protocol_is_answered_in_ours_and_the_body_is_read(site, connect):
    wire = await connect(site)
    offer = (b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAMAAABkAAQAAP__")
    await wire.send(post(b'{"input": "a"}', b"/predict", *offer))
    status, _, body = await wire.answer()
    assert (status, body) == (200, b'"A"')
    await wire.send(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
    assert (await wire.answer())[0] == 200
    await wire.send(post(b'{"input": "b"}'))
    assert (await wire.answer())[2] == b'"B"'


# --- callers who send ahead ---


async def test_requests_that_are_sent_ahead_are_answered_in_order(site, connect):
    wire = await connect(site)
    await wire.send(b"".join(post(b'{"input": "a%d"}' % n) for n in range(20)))
    assert [(await wire.answer())[2] for _ in range(20)] == [b'"A%d"' % n for n in range(20)]
    assert site.endings == [("answered", 200)] * 20


async def test_a_caller_who_sends_ahead_without_measure_is_cut_off(site, connect):
    wire = await connect(site)
    await wire.send(post(b'{"input": "a"}') * 1000)
    answered = (await wire.closed()).count(b"HTTP/1.1 200")
    await until(lambda: len(site.endings) == len(site.intents))
    assert answered < 300
    assert (await site.post("/predict", {"input": "next"}))[0] == 200


async def test_a_caller_who_leaves_what_he_sent_ahead_frees_the_model(tmp_path, connect):
    arrived, script = asyncio.Event(), Script(before=Step.HANG)

    def handle(_):
        arrived.set()
        return script

    async with running(tmp_path, handle) as site:
        wire = await connect(site)
        await wire.send(post(b'{"input": "a"}') * 3)
        await asyncio.wait_for(arrived.wait(), 10)
        wire.writer.transport.abort()
        assert await site.ended() == [("disconnected", 499)]
        await asyncio.wait_for(script.gone.wait(), 10)
        assert len(site.intents) == 1


# --- callers who don't listen ---


async def test_a_stream_whose_caller_takes_nothing_is_ended_recorded_and_its_model_freed(tmp_path, connect):
    script = events(*chat(*["x" * 10_000] * 400)[:401], done=False, then=(Step.HANG,))
    async with running(tmp_path, labels, lambda _: script, QUICK) as site:
        wire = await connect(site, receive_bytes=4096)
        await wire.send(post(HELLO, b"/v1/chat/completions"))
        assert await site.ended() == [("disconnected", 200)]
        await asyncio.wait_for(script.gone.wait(), 10)
        assert json.loads(site.written(Outcome)[0].response)["choices"][0]["message"]["content"].startswith("xxx")


async def test_a_caller_who_reads_slowly_but_steadily_gets_everything(tmp_path, connect):
    script = events(*chat(*["x" * 10_000] * 100))
    async with running(tmp_path, labels, lambda _: script, project(slow_client=timedelta(seconds=1))) as site:
        wire = await connect(site, receive_bytes=16384)
        await wire.send(post(HELLO, b"/v1/chat/completions"))
        got = b""
        while not got.endswith(b"0\r\n\r\n"):
            piece = await wire.reader.read(20_000)
            assert piece, "cut off"
            got += piece
            await asyncio.sleep(0.02)
        assert got.count(b"x" * 10_000) == 100
        assert site.endings == [("answered", 200)]


async def test_a_long_answer_that_nobody_takes_is_dropped_with_its_connection(tmp_path, connect):
    long = reply({"predictions": ["x" * 3_000_000]})
    async with running(tmp_path, lambda _: long, project=QUICK) as site:
        wire = await connect(site, receive_bytes=4096)
        await wire.send(post(b'{"input": "a"}'))
        assert await site.ended() == [("answered", 200)]
        connections = site.serving.server_state.connections
        assert len(connections) == 1
        await until(lambda: not connections)


async def test_a_caller_who_takes_one_long_answer_after_the_other_is_left_alone(tmp_path, connect):
    long = reply({"predictions": ["x" * 3_000_000]})
    async with running(tmp_path, lambda _: long, project=QUICK) as site:
        wire = await connect(site)
        for _ in range(4):
            await wire.send(post(b'{"input": "a"}'))
            await asyncio.sleep(0.25)
            assert len((await wire.answer())[2]) == 3_000_002
        assert site.endings == [("answered", 200)] * 4


# --- as many as there is room for ---


async def test_streams_over_the_limit_are_told_to_come_back_and_the_rest_goes_on(tmp_path):
    gate = asyncio.Event()
    script = Script(200, (b'data: {"choices": []}\n\n', gate), "text/event-stream")
    two = project(max_streams=2)
    async with running(tmp_path, labels, lambda _: script, two) as site:
        asked = {"headers": {"content-type": "application/json"}, "data": HELLO}
        streams = [await site.http.post(site.url + "/v1/chat/completions", **asked) for _ in range(2)]
        status, problem, headers = await site.post("/v1/chat/completions", **asked)
        assert (status, problem["error"]["code"], headers["retry-after"]) == (503, "overloaded", "1")
        assert (await site.post("/predict", {"input": "a"}))[0] == 200
        for stream in streams:
            stream.close()
        await site.ended(4)
        third = await site.http.post(site.url + "/v1/chat/completions", **asked)
        assert third.status == 200
        third.close()
        await site.ended(5)


async def test_requests_over_the_limit_are_told_to_come_back(tmp_path):
    arrived = asyncio.Event()

    def handle(_):
        arrived.set()
        return Script(before=Step.HANG)

    async with running(tmp_path, handle, project=project(max_requests=1)) as site:
        first = asyncio.create_task(site.post("/predict", {"input": "a"}))
        await asyncio.wait_for(arrived.wait(), 10)
        status, problem, headers = await site.post("/predict", {"input": "b"})
        assert (status, problem["error_code"], headers["retry-after"]) == (503, "overloaded", "1")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


# --- the end ---


async def test_what_is_under_way_when_the_process_stops_is_finished_and_readiness_says_why_not(tmp_path, connect):
    gate, arrived = asyncio.Event(), asyncio.Event()
    first, *rest = events(*chat("slow", "ly")).pieces

    def handle(_):
        arrived.set()
        return Script(200, (first, gate, *rest), "text/event-stream")

    async with running(tmp_path, labels, handle) as site:
        streaming, idle = await connect(site), await connect(site)
        await streaming.send(post(HELLO, b"/v1/chat/completions"))
        await streaming.reader.readuntil(b"assistant")
        await idle.send(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await idle.answer())[0] == 200
        site.serving.stop()
        await asyncio.sleep(0.15)
        await idle.send(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        status, headers, body = await idle.answer()
        assert (status, headers["connection"]) == (503, "close")
        assert "is stopping" in json.loads(body)["detail"]
        with socket.socket() as late:
            assert (
                await asyncio.to_thread(late.connect_ex, ("127.0.0.1", urlsplit(site.url).port)) == errno.ECONNREFUSED
            )
        gate.set()
        assert b"[DONE]" in await streaming.closed()
        assert site.endings == [("answered", 200)]


async def test_a_stream_that_outlasts_the_drain_is_cut_and_on_record(tmp_path, connect):
    script = events(*chat("for", "ever")[:2], done=False, then=(Step.HANG,))
    async with running(tmp_path, labels, lambda _: script, drain_s=1) as site:
        streaming = await connect(site)
        await streaming.send(post(HELLO, b"/v1/chat/completions"))
        await streaming.reader.readuntil(b"for")
        site.serving.stop()
        assert b"[DONE]" not in await streaming.closed()
        assert await site.ended() == [("interrupted", 200)]
        await asyncio.wait_for(script.gone.wait(), 10)
