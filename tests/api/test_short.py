"""The short way: requests that come whole are answered without ASGI, and nobody can tell."""

import asyncio
import re
from urllib.parse import urlsplit

import pytest

from fakes.site import running
from fakes.upstream import labels, talker
from noria.api.short import ShortWay

CHAT = b'{"model": "assistant", "messages": [{"role": "user", "content": "hello"}], "stream": %b}'
_VARIES = re.compile(rb"(date|x-request-id): [^\r]*")


@pytest.fixture
async def site(tmp_path):
    async with running(tmp_path, labels, talker("Hello", " there")) as made:
        yield made


@pytest.fixture
def ways(monkeypatch) -> list[str]:
    """Which way each request went."""
    went: list[str] = []
    for name, way in (("_begin", "short"), ("_leave_to_uvicorn", "uvicorn")):
        monkeypatch.setattr(ShortWay, name, _noted(getattr(ShortWay, name), way, went))
    return went


def _noted(real, way, went):
    def noted(*args):
        went.append(way)
        return real(*args)

    return noted


async def said(site, *pieces: bytes) -> bytes:
    """All that is answered to what is sent, until the connection is closed."""
    address = urlsplit(site.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)
        return _VARIES.sub(rb"\1: .", await asyncio.wait_for(reader.read(), 10))
    finally:
        writer.close()


def post(body: bytes, *headers: bytes, path: bytes = b"/v1/chat/completions", version: bytes = b"1.1") -> bytes:
    lines = (b"POST %b HTTP/%b" % (path, version), b"host: localhost", b"content-length: %d" % len(body), *headers)
    return b"\r\n".join((*lines, b"", body))


@pytest.mark.parametrize("stream", [b"false", b"true"])
async def test_a_request_that_comes_whole_is_answered_as_one_that_comes_in_pieces(site, ways, stream):
    request = post(CHAT % stream, b"connection: close")
    whole = await said(site, request)
    assert whole.startswith(b"HTTP/1.1 200 OK\r\n")
    assert await said(site, request[:-10], request[-10:]) == whole
    assert ways == ["short", "uvicorn"]
    assert site.endings == [("answered", 200)] * 2


async def test_a_connection_takes_both_ways_in_turn_and_says_when_it_ends(site, ways):
    ping = b"GET /ping HTTP/1.1\r\nhost: localhost\r\n\r\n"
    short, last = post(CHAT % b"false"), post(CHAT % b"true", b"connection: close")
    got = await said(site, short, ping, short[:-1], short[-1:], last)
    assert got.count(b"HTTP/1.1 200 OK") == 4
    assert got.count(b"connection: close") == 1
    assert got.endswith(b"0\r\n\r\n")
    assert ways == ["short", "uvicorn", "uvicorn", "short"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post(CHAT % b"false", path=b"/v1/chat/completions?a=b"), 200),
        (post(CHAT % b"false", path=b"/v1/chat%2Fcompletions"), 200),
        (post(CHAT % b"false", version=b"1.0"), 200),
        (post(CHAT % b"false", path=b"/v1/models"), 405),
    ],
)
async def test_what_is_not_plainly_a_request_for_inference_goes_over_asgi(site, ways, request_, status):
    got = await said(site, request_.replace(b"host: localhost", b"host: localhost\r\nconnection: close"))
    assert got.startswith(b"HTTP/1.1 %d " % status)
    assert ways == ["uvicorn"]


@pytest.mark.parametrize("headers", [(b"content-encoding: gzip",), (b"origin: https://elsewhere.example",)])
async def test_what_is_refused_on_the_short_way_is_told_so(site, ways, headers):
    got = await said(site, post(CHAT % b"false", *headers, b"connection: close"))
    assert got.split()[1] in (b"415", b"403")
    assert b"connection: close" in got
    assert ways == ["short"]


async def test_a_body_in_chunks_is_read_and_what_follows_it_is_no_header(site, ways):
    chunks = b"5\r\n%b\r\n%x\r\n%b\r\n0\r\ncontent-encoding: gzip\r\n\r\n"
    body = CHAT % b"false"
    head = post(b"", b"connection: close").replace(b"content-length: 0", b"transfer-encoding: chunked")
    got = await said(site, head + chunks % (body[:5], len(body) - 5, body[5:]))
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert ways == ["short"]


async def test_a_fault_of_ours_on_the_short_way_is_told_and_ends_the_connection(site, ways, monkeypatch, caplog):
    monkeypatch.setattr("noria.api.inference.Departure", lambda _: 1 / 0)
    got = await said(site, post(CHAT % b"false"))
    assert got.startswith(b"HTTP/1.1 500 ")
    assert b"connection: close" in got
    assert "an answer broke off" in caplog.text
