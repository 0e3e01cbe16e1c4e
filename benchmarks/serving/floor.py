"""A proxy that does nothing but pass requests on: `python -m benchmarks.serving.floor --port N --socket PATH`.

What no gateway in Python can undercut on this machine: the same event loop and parser as Noria's, one connection to the
upstream for each request under way, and nothing that reads, checks, routes, redacts, counts or logs.
"""

import argparse
import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httptools
import uvloop

BACKLOG = 2048


class _Upstream(asyncio.Protocol):
    """A connection to the upstream, which is given back when its answer is whole."""

    def __init__(self, idle: list["_Upstream"]) -> None:
        self._idle = idle
        self._parser: Any = httptools.HttpResponseParser(self)
        self._transport: Any = None
        self._answer: Callable[[int, bytes], None] = lambda _status, _body: None
        self._body = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        with suppress(ValueError):  # it was under way
            self._idle.remove(self)

    def ask(self, body: bytes, answer: Callable[[int, bytes], None]) -> None:
        """Pass a request on; `answer` is called once."""
        self._answer, self._body = answer, b""
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        self._transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Part of an answer."""
        self._body += body

    def on_message_complete(self) -> None:
        """The end of an answer."""
        self._idle.append(self)
        self._answer(self._parser.get_status_code(), self._body)


class _Caller(asyncio.Protocol):
    """A caller's connection."""

    def __init__(self, idle: list[_Upstream], path: str) -> None:
        self._idle, self._path = idle, path
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._body = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._body = b""

    def on_body(self, body: bytes) -> None:
        """Part of a request."""
        self._body += body

    def on_message_complete(self) -> None:
        """The end of a request."""
        if self._idle:
            self._idle.pop().ask(self._body, self._answer)
        else:
            self._task = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, upstream = await loop.create_unix_connection(lambda: _Upstream(self._idle), self._path)
        upstream.ask(self._body, self._answer)

    def _answer(self, status: int, body: bytes) -> None:
        head = b"HTTP/1.1 %d OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
        self._transport.write(head + body)


async def _serve(port: int, path: str) -> None:
    idle: list[_Upstream] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Caller(idle, path), "127.0.0.1", port, backlog=BACKLOG)
    await server.serve_forever()


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--socket", required=True)
    options = parser.parse_args()
    uvloop.run(_serve(options.port, options.socket))


if __name__ == "__main__":
    main()
