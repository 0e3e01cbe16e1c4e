"""Callers over bare sockets, who can also behave badly, and what they were told."""

import asyncio
import itertools
import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

DEADLINE_S = 40.0
"""No answer takes longer: a caller who waits for more is an endless wait found."""
CRAWL_S = 0.1
"""Between two bytes that somebody reads who crawls."""


@dataclass
class Told:
    """One request, and what its caller was told.

    Attributes:
        name: The caller's own id for it (x-client-request-id).
        status: HTTP status; 0 if the connection broke before there was one.
        request_id: Noria's id for it.
        headers: Of the answer, lower case.
        body: What arrived of the body.
        whole: Whether the body arrived to its end.
        left: Whether the caller went away by himself.
    """

    name: str
    status: int = 0
    request_id: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False
    left: bool = False

    @property
    def json(self):
        return json.loads(self.body)


class Callers:
    """Asks one server, and keeps the account of what was told.

    Args:
        port: Where it listens on loopback.
        prefix: Begins the name of each request.
    """

    def __init__(self, port: int, prefix: str) -> None:
        self.port, self.prefix = port, prefix
        self.told: list[Told] = []
        self._numbers = itertools.count(1)

    async def predict(self, text: str, *, endpoint: str = "triage", **more) -> Told:
        """Ask over the lab's wire."""
        return await self.ask(f"/predict/{endpoint}", json.dumps({"input": text}).encode(), **more)

    async def chat(self, text: str, *, endpoint: str = "assistant", stream: bool = True, **more) -> Told:
        """Ask over OpenAI's wire."""
        body = {"model": endpoint, "stream": stream, "messages": [{"role": "user", "content": text}]}
        return await self.ask("/v1/chat/completions", json.dumps(body).encode(), **more)

    async def ask(
        self,
        path: str,
        body: bytes = b"",
        *,
        method: str = "POST",
        headers: Mapping[str, str | None] | None = None,
        sent: int | None = None,
        leave_after: int | None = None,
    ) -> Told:
        """Send one request on a connection of its own, and read what comes.

        Args:
            path: As it goes on the wire.
            body: The request's.
            method: GET or POST.
            headers: In place of the usual ones, or beside them; None leaves one out.
            sent: Bytes of the body to send, and no more; None sends all of it.
            leave_after: Bytes of the answer's body after which the caller goes away; 0 leaves once all is sent.
        """
        told, head = self._begun(method, path, body, headers)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._converse(told, head, body[:sent], leave_after)
        except TimeoutError:
            raise AssertionError(f"{told.name} waited {DEADLINE_S:g} s for an answer") from None
        return told

    async def crawl(self, path: str, body: bytes) -> None:
        """Send a request, and read what comes a byte at a time, until cancelled: what a server wrote before it gave the
        caller up may lie in the system for long."""
        told, head = self._begun("POST", path, body, None)
        told.left = True
        loop, sock = asyncio.get_running_loop(), socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # little room for what was not read
        with sock, suppress(ConnectionError):
            await loop.sock_connect(sock, ("127.0.0.1", self.port))
            await loop.sock_sendall(sock, head + body)
            said = b""
            while byte := await loop.sock_recv(sock, 1):
                said += byte
                if said.endswith(b"\r\n\r\n") and not told.status:
                    _read_head(said, told)
                elif told.status:
                    await asyncio.sleep(CRAWL_S)

    def _begun(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str | None] | None
    ) -> tuple[Told, bytes]:
        """A request that is about to be sent, and its head."""
        told = Told(f"{self.prefix}.{next(self._numbers)}")
        self.told.append(told)
        usual = {
            "host": "127.0.0.1",
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            "x-client-request-id": told.name,
        }
        fields = {name: value for name, value in {**usual, **(headers or {})}.items() if value is not None}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return told, "\r\n".join([*lines, "", ""]).encode("latin-1")

    async def _converse(self, told: Told, head: bytes, body: bytes, leave_after: int | None) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except ConnectionError:
            return
        try:
            writer.write(head + body)
            await writer.drain()
            if leave_after == 0:
                told.left = True
                return
            _read_head(await reader.readuntil(b"\r\n\r\n"), told)
            await _read_body(reader, told, leave_after)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            if told.left:
                writer.transport.abort()
            writer.close()


def _read_head(head: bytes, told: Told) -> None:
    first, *lines = head.decode("latin-1").split("\r\n")
    told.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
    told.request_id = told.headers.get("x-request-id", "")
    told.status = int(first.split()[1])


async def _read_body(reader: asyncio.StreamReader, told: Told, leave_after: int | None) -> None:
    """What follows the head, up to where the caller leaves."""
    chunked = told.headers.get("transfer-encoding") == "chunked"
    left = int(told.headers.get("content-length", "0"))
    while not told.whole:
        if chunked:
            size = int(await reader.readuntil(b"\r\n"), 16)
            told.body += (await reader.readexactly(size + 2))[:-2]
            told.whole = size == 0
        else:
            data = await reader.read(min(left, 65536)) if left else b""
            left -= len(data)
            told.body += data
            told.whole = left == 0
            if not data and not told.whole:
                return
        if leave_after is not None and len(told.body) >= leave_after and not told.whole:
            told.left = True
            return
