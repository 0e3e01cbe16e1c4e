"""HTTP messages over bare ASGI: just enough for the hot path, and nothing is read that isn't needed."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from noria.adapters.uvicorn import LINE, Line, Turn, write_whole
from noria.api.problems import RequestTimeout
from noria.domain.errors import Overloaded, RequestTooLarge, UnsupportedMedia
from noria.domain.key import ApiKey

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

DISCARD_S = 5.0
"""How long we listen to the rest of a body that is too long, in seconds, before we answer."""
JSON = "application/json"


class CallerLeft(Exception):
    """The caller closed the connection before his request was complete."""


class Room:
    """Memory for bodies that come in pieces, of all requests of a process together: `max_requests` bounds only how many
    there are."""

    def __init__(self) -> None:
        self.taken = 0

    def take(self, size: int, most: int) -> None:
        """Take some of it, of at most that many bytes in all.

        Raises:
            Overloaded: There is no more.
        """
        if self.taken + size > most:
            raise Overloaded(f"Bodies of {self.taken} bytes are being read already.", "Come back in a second.")
        self.taken += size


class Request:
    """A request whose body hasn't been read yet.

    Attributes:
        id: Noria's own id for it; every response carries it as x-request-id.
        method: Upper case.
        path: Decoded.
        key: The API key that it came with; None where none is needed.
        line: Its connection; None under another server's protocol.
    """

    __slots__ = ("_body", "_headers", "_held", "_lines", "_receive", "_room", "id", "key", "line", "method", "path")

    def __init__(self, scope: Scope, receive: Receive, id: str, room: Room | None = None) -> None:
        self.id, self.method, self.path = id, scope["method"], scope["path"]
        self._lines: list[tuple[bytes, bytes]] = scope["headers"]
        self.line: Line | None = scope.get(LINE)
        self._body: bytes | None = None
        self._receive = receive
        self._room = room or Room()
        self._ready()

    @classmethod
    def of(cls, turn: Turn, id: str) -> "Request":
        """The request of a turn, which came whole."""
        made = cls.__new__(cls)
        made.id, made.method, made.path = id, "POST", turn.path
        made._lines, made.line, made._body = turn.headers, turn, turn.body
        made._ready()
        return made

    def _ready(self) -> None:
        self.key: ApiKey | None = None
        self._headers: dict[bytes, bytes] = dict(self._lines)
        self._held = 0

    def header(self, name: bytes) -> str:
        """A header's value, by its lower-case name; empty if it isn't there."""
        value = self._headers.get(name)
        return value.decode("latin-1") if value else ""

    def joined(self, name: bytes) -> str:
        """The value of a header that may come in several lines, as one list (RFC 9110, section 5.3)."""
        if name not in self._headers:
            return ""
        return ",".join(value.decode("latin-1") for key, value in self._lines if key == name)

    def raw_header(self, name: bytes) -> bytes:
        """The same, as it was sent."""
        return self._headers.get(name, b"")

    def whole(self, most: int) -> bytes | None:
        """The body, if it is there already, can be read as it is, and is no longer than that; else see `body`."""
        if self._body is None or len(self._body) > most or b"content-encoding" in self._headers:
            return None
        return self._body

    async def body(self, most: int, slow_s: float, most_together: int) -> bytes:
        """The whole body.

        Args:
            most: Bytes to accept; no more than that is ever held.
            slow_s: How long it may take to arrive, in seconds.
            most_together: Bytes that all requests' bodies may hold which come in pieces, until `let_go`.

        Raises:
            Overloaded: They hold so much already.
            RequestTooLarge: It is longer. What follows has been listened to and forgotten, so that the caller, who may
                still be sending, gets to hear the answer.
            RequestTimeout: It did not arrive in time.
            UnsupportedMedia: It is compressed.
            CallerLeft: The caller is gone.
        """
        if self.header(b"content-encoding") not in ("", "identity"):
            raise UnsupportedMedia("Compressed bodies can't be read.", "Send the body without Content-Encoding.")
        if self._body is not None:
            body, more = self._body if len(self._body) <= most else None, False
        elif self.line is not None and self.line.whole:
            body, more = await self._read(most, most_together)
        else:
            body, more = await self._arriving(most, slow_s, most_together)
        if body is None:
            await self._discard(more)
            raise _too_large(most)
        return body

    def let_go(self) -> None:
        """The request is over, and its body with it."""
        self._room.taken -= self._held
        self._held = 0

    async def gone(self) -> None:
        """Return when the caller has closed the connection; to be called once the body is read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _arriving(self, most: int, slow_s: float, most_together: int) -> tuple[bytes | None, bool]:
        """The same as `_read` of a body that may not be there yet, or is said to be too long."""
        declared = self.header(b"content-length")
        if declared.isdigit() and int(declared) > most:
            return None, self.header(b"expect").lower() != "100-continue"
        try:
            async with asyncio.timeout(slow_s):
                return await self._read(most, most_together)
        except TimeoutError:
            raise RequestTimeout(
                f"The body did not arrive within {slow_s:g} seconds.", "Send it again, faster."
            ) from None

    async def _read(self, most: int, most_together: int) -> tuple[bytes | None, bool]:
        """The body, None if it is too long; and whether more of it follows."""
        first = await self._next()
        body, more = first.get("body", b""), first.get("more_body", False)
        if not more and len(body) <= most:
            return bytes(body), False
        pieces, size = [body], len(body)
        self._hold(size, most_together)
        while more and size <= most:
            message = await self._next()
            pieces.append(message.get("body", b""))
            self._hold(len(pieces[-1]), most_together)
            size += len(pieces[-1])
            more = message.get("more_body", False)
        return (b"".join(pieces) if size <= most else None), more

    def _hold(self, size: int, most_together: int) -> None:
        self._room.take(size, most_together)
        self._held += size

    async def _discard(self, more: bool) -> None:
        """If more of the body follows, listen to it for a while and keep nothing of it."""
        try:
            async with asyncio.timeout(DISCARD_S):
                while more:
                    more = (await self._next()).get("more_body", False)
        except TimeoutError:
            pass

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise CallerLeft
        return message


class Departure:
    """Cancels the current task when the caller leaves, until it is told that this doesn't matter any more."""

    def __init__(self, request: Request) -> None:
        self.left = False
        self._line = request.line
        self._task = (self._line and self._line.task) or asyncio.current_task()
        self._watch: asyncio.Task[None] | None = None
        if self._line is None:
            self._watch = asyncio.create_task(self._look(request))
        else:
            self._line.watch(self._gone)

    def stop(self) -> None:
        """The answer is there: whoever leaves now leaves with it."""
        if self._line is not None:
            self._line.on_cut = None
        if self._watch is not None:
            self._watch.cancel()

    def absorb(self) -> bool:
        """After a cancellation: whether it was the caller's leaving, which then counts as dealt with."""
        if self.left and self._task is not None:
            self._task.uncancel()
        return self.left

    async def _look(self, request: Request) -> None:
        await request.gone()
        self._gone()

    def _gone(self) -> None:
        self.left = True
        if self._task is not None:
            self._task.cancel()


async def respond(
    send: Send,
    request_id: str,
    status: int,
    body: bytes,
    *,
    content_type: str = JSON,
    headers: tuple[tuple[str, str], ...] = (),
) -> None:
    """Send a whole response; empty header values are left out."""
    first = (("content-length", str(len(body))), ("content-type", content_type))
    pairs = [*first, *[pair for pair in headers if pair[1]], ("x-request-id", request_id)]
    if write_whole(send, status, pairs, body):
        return
    await begin(send, request_id, status, (*first, *headers))
    await send({"type": "http.response.body", "body": body})


async def begin(send: Send, request_id: str, status: int, headers: tuple[tuple[str, str], ...]) -> None:
    """Send a response's status and headers."""
    pairs = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers if value]
    pairs.append((b"x-request-id", request_id.encode()))
    await send({"type": "http.response.start", "status": status, "headers": pairs})


def _too_large(most: int) -> RequestTooLarge:
    return RequestTooLarge(
        f"The body is longer than {most} bytes.", "Send less, or raise server.max_body_bytes in noria.yaml."
    )
