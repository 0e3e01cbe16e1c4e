"""The pool of connections, against servers that write what a test says, byte by byte."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from noria.adapters.upstreams import connections
from noria.adapters.upstreams.own import HttpUpstream
from noria.domain.errors import UpstreamFailed

WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Raw:
    """A server that answers each request with the next of its replies, whatever they are; the last one repeats."""

    replies: Sequence[bytes]
    ends: bool = False
    """Whether it closes the connection after each."""
    connected: int = 0
    asked: list[bytes] = field(default_factory=list)
    url: str = ""

    @asynccontextmanager
    async def up(self) -> AsyncIterator[HttpUpstream]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        upstream = HttpUpstream()
        try:
            yield upstream
        finally:
            await upstream.aclose()
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
                body = await reader.readexactly(int(length.split(b":")[1]))
                writer.write(self.replies[min(len(self.asked), len(self.replies) - 1)])
                self.asked.append(head + body)
                await writer.drain()
                if self.ends:
                    break
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def ask(upstream: HttpUpstream, server: Raw, headers: dict[str, str] | None = None, path: str = "/x") -> bytes:
    reply = await upstream.post(server.url, path, b"{}", headers or {}, 5)
    return b"".join([piece async for piece in reply.chunks])


async def test_a_connection_is_used_again_and_one_for_each_request_under_way() -> None:
    server = Raw([WHOLE])
    async with server.up() as upstream:
        for _ in range(3):
            assert await ask(upstream, server) == b"ok"
        assert server.connected == 1
        await asyncio.gather(*(ask(upstream, server) for _ in range(3)))
        assert server.connected <= 3


async def test_a_request_is_sent_as_it_was_put() -> None:
    server = Raw([WHOLE])
    async with server.up() as upstream:
        await ask(upstream, server, {"content-type": "application/json", "x-request-id": "7"}, "/v1/x")
    host = server.url.removeprefix("http://").encode()
    lines = (b"POST /v1/x HTTP/1.1", b"host: " + host, b"content-type: application/json", b"x-request-id: 7")
    assert server.asked == [b"\r\n".join((*lines, b"content-length: 2", b"", b"{}"))]


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\rb"])
async def test_a_header_that_would_be_two_is_not_sent(value: str) -> None:
    server = Raw([WHOLE])
    async with server.up() as upstream:
        with pytest.raises(UpstreamFailed) as caught:
            await ask(upstream, server, {"x-request-id": value})
    assert caught.value.sent is False
    assert server.asked == []


@pytest.mark.parametrize("path", ["/x HTTP/1.1\r\nx-evil: 1", "x", "/a b", "/é"])
async def test_a_path_that_is_none_is_not_asked_for(path: str) -> None:
    server = Raw([WHOLE])
    async with server.up() as upstream:
        with pytest.raises(UpstreamFailed):
            await ask(upstream, server, path=path)
    assert server.asked == []


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    server = Raw([b"HTTP/1.1 200 OK\r\n\r\nto the end"], ends=True)
    async with server.up() as upstream:
        assert await ask(upstream, server) == b"to the end"
        assert await ask(upstream, server) == b"to the end"
    assert server.connected == 2


async def test_an_answer_that_is_shorter_than_its_length_is_an_error() -> None:
    server = Raw([b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort"], ends=True)
    async with server.up() as upstream:
        with pytest.raises(UpstreamFailed):
            await ask(upstream, server)


async def test_what_is_said_before_the_answer_is_passed_over() -> None:
    server = Raw([b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + WHOLE])
    async with server.up() as upstream:
        reply = await upstream.post(server.url, "/x", b"{}", {}, 5)
        assert (reply.status, reply.headers) == (200, {"content-length": "2"})
        assert [piece async for piece in reply.chunks] == [b"ok"]


@pytest.mark.parametrize("more", [WHOLE, b"HTTP/1.1 100 Continue\r\n\r\n", b"rubbish"])
async def test_what_follows_an_answer_is_nobodys_and_the_connection_is_not_used_again(more: bytes) -> None:
    server = Raw([WHOLE + more, WHOLE.replace(b"ok", b"no")])
    async with server.up() as upstream:
        try:
            assert await ask(upstream, server) == b"ok"
        except UpstreamFailed:
            assert more == b"rubbish"  # the parser finds it out before the answer is told
        assert await ask(upstream, server) == b"no"
    assert server.connected == 2


async def test_a_server_that_wants_to_close_is_connected_to_anew() -> None:
    server = Raw([WHOLE.replace(b"OK\r\n", b"OK\r\nconnection: close\r\n")])
    async with server.up() as upstream:
        for _ in range(2):
            assert await ask(upstream, server) == b"ok"
    assert server.connected == 2


async def test_a_long_answer_waits_for_its_reader_and_arrives_whole() -> None:
    size = connections.MOST_AHEAD * 64
    server = Raw([b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size)])
    async with server.up() as upstream:
        reply = await upstream.post(server.url, "/x", b"{}", {}, 5)
        for _ in range(50):  # nobody reads, and yet not everything comes
            await asyncio.sleep(0)
        pieces = [len(piece) async for piece in reply.chunks]
    assert sum(pieces) == size
    assert max(pieces) < size


async def test_an_address_that_is_none_is_not_called() -> None:
    upstream = HttpUpstream()
    for url in ("ftp://127.0.0.1", "https://127.0.0.1", "http://", "nothing"):
        with pytest.raises(UpstreamFailed) as caught:
            await upstream.post(url, "/x", b"", {}, 1)
        assert caught.value.sent is False
