"""Callers over bare sockets, who can also behave badly, and what they were told."""

import asyncio
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

DEADLINE_S = 40.0
"""No answer takes longer: a caller who waits for more is an endless wait found."""


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
        headers: Mapping[str, str] | None = None,
        sent: int | None = None,
        leave_after: int | None = None,
        pause_s: float = 0.0,
        piece: int = 65536,
    ) -> Told:
        """Send one request on a connection of its own, and read what comes.

        Args:
            path: As it goes on the wire.
            body: The request's.
            method: GET or POST.
            headers: In place of, or beside, the usual ones; None for `content-length` leaves it away.
            sent: Bytes of the body to send before leaving; None sends all of it.
            leave_after: Bytes of the answer's body after which the caller goes away; 0 leaves once all is sent.
            pause_s: Between two reads, in seconds.
            piece: Bytes of one read.
        """
        told = Told(f"{self.prefix}.{next(self._numbers)}")
        self.told.append(told)
        fields = {
            "host": "127.0.0.1",
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            "x-client-request-id": told.name,
        } | dict(headers or {})
        how = _Reading(leave_after, pause_s, piece)
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._converse(told, f"{method} {path} HTTP/1.1\r\n{head}\r\n", body, sent, how)
        except TimeoutError:
            raise AssertionError(f"{told.name} waited {DEADLINE_S:g} s for an answer") from None
        return told

    async def _converse(self, told: Told, head: str, body: bytes, sent: int | None, how: "_Reading") -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except ConnectionError:
            return
        try:
            writer.write(head.encode("latin-1") + body[:sent])
            await writer.drain()
            if sent is not None or how.leave_after == 0:
                told.left = True
                return
            await _head(reader, told)
            await _body(reader, told, how)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            if told.left and sent is None:
                writer.transport.abort()
            writer.close()


@dataclass(frozen=True)
class _Reading:
    """How a caller reads: after how many bytes he leaves, how long he rests, how much he takes at once."""

    leave_after: int | None
    pause_s: float
    piece: int


async def _head(reader: asyncio.StreamReader, told: Told) -> None:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    told.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
    told.request_id = told.headers.get("x-request-id", "")
    told.status = int(lines[0].split()[1])


async def _body(reader: asyncio.StreamReader, told: Told, how: _Reading) -> None:
    """What follows the head, up to where the caller leaves."""
    chunked = told.headers.get("transfer-encoding") == "chunked"
    left = int(told.headers.get("content-length", "0"))
    while not told.whole:
        if chunked:
            size = int(await reader.readuntil(b"\r\n"), 16)
            told.body += (await reader.readexactly(size + 2))[:-2]
            told.whole = size == 0
        else:
            data = await reader.read(min(how.piece, left)) if left else b""
            left -= len(data)
            told.body += data
            told.whole = left == 0
            if not data and not told.whole:
                return
        if how.leave_after is not None and len(told.body) >= how.leave_after and not told.whole:
            told.left = True
            return
        if how.pause_s:
            await asyncio.sleep(how.pause_s)
