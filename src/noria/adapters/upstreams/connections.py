"""One HTTP/1.1 connection to a model server, and what is exchanged over it, one request at a time.

httptools parses; what it finds is handed to whoever waits without a task or a copy between. An exchange that isn't over
when it is let go takes its connection with it, so that the server hears that nobody listens any more.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import httptools

from noria.domain.errors import UpstreamFailed, UpstreamTimeout
from noria.ports import Chunks

REMEDY = "The worker starts it again by itself; see noria status if this goes on."
MOST_AHEAD = 256 * 1024
"""Bytes of an answer that may wait to be read before the server is made to wait."""
MOST_HEAD = 64 * 1024
"""Bytes that may come before status and headers are whole."""
_INFORMATIONAL = 200
_FRAMING = frozenset({"content-length", "transfer-encoding"})
"""An answer with neither of these headers ends with its connection."""


class Owner(Protocol):
    """Whose connections they are."""

    url: str

    def made(self, connection: "Connection") -> None:
        """It is open."""
        ...

    def released(self, connection: "Connection") -> None:
        """It can have another exchange."""
        ...

    def lost(self, connection: "Connection") -> None:
        """It is closed."""
        ...


class Headers(Mapping[str, str]):
    """An answer's headers, read when somebody asks for one: for most answers nobody does.

    Args:
        lines: As they came.
    """

    __slots__ = ("_lines", "_read")

    def __init__(self, lines: Sequence[tuple[bytes, bytes]]) -> None:
        self._lines = lines
        self._read: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        return self._known()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())

    def _known(self) -> dict[str, str]:
        if self._read is None:
            self._read = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._lines}
        return self._read


class Exchange:
    """A request that was sent, and its answer: the `Chunks` of a reply.

    Attributes:
        status: HTTP status, 0 until it is known.
        lines: The headers as they came.
        complete: Whether all of it is there.
    """

    __slots__ = ("_connection", "_error", "_pieces", "_size", "_waiter", "complete", "lines", "status")

    def __init__(self, connection: "Connection") -> None:
        self.status = 0
        self.lines: list[tuple[bytes, bytes]] = []
        self.complete = False
        self._connection = connection
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._error: UpstreamFailed | None = None
        self._waiter: asyncio.Future[None] | None = None

    # --- whoever asked ---

    @property
    def headers(self) -> "Headers":
        """The headers, by lower-case name."""
        return Headers(self.lines)

    async def begin(self) -> None:
        """Come back once status and headers are there.

        Raises:
            UpstreamFailed: They won't come.
            UpstreamTimeout: They didn't in time.
        """
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._wait()

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self.complete:
                raise StopAsyncIteration
            if self._error is not None:
                raise self._error
            await self._wait()
        if self._size > MOST_AHEAD:
            self._connection.go_on()
        self._size = 0
        if len(self._pieces) == 1:
            return self._pieces.popleft()
        whole = b"".join(self._pieces)
        self._pieces.clear()
        return whole

    def rest(self) -> bytes | None:
        """What is left, if all of it is there."""
        if not self.complete:
            return None
        rest = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        return rest

    async def aclose(self) -> None:
        """Let go of it; a connection on which bytes are still to come is closed."""
        self._pieces.clear()
        if not self.complete and self._error is None:
            self._connection.fail(_broke_off(self._connection.url, "closed"))

    async def _wait(self) -> None:
        self._waiter = self._connection.loop.create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            if not self.complete and self._error is None:
                self._connection.fail(_broke_off(self._connection.url, "cancelled"))
            raise
        finally:
            self._waiter = None

    # --- the connection ---

    def add(self, piece: bytes) -> bool:
        """Bytes came; whether enough of them wait."""
        self._pieces.append(piece)
        self._size += len(piece)
        self._wake()
        return self._size > MOST_AHEAD

    def begun(self, status: int) -> None:
        """Status and headers are there."""
        self.status = status
        self._wake()

    def end(self, error: UpstreamFailed | None = None) -> None:
        """It is over, with an error if there is more to come that won't."""
        self.complete, self._error = error is None, error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Connection(asyncio.Protocol):
    """A connection of a pool.

    Args:
        owner: The pool.
    """

    def __init__(self, owner: Owner) -> None:
        self.url = owner.url
        self.loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self.loop.create_future()
        self._owner = owner
        self._parser = httptools.HttpResponseParser(self)
        self._transport: Any = None
        self._exchange: Exchange | None = None
        self._reusable = self._paused = False
        self._idle_since = self._ends_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._head = 0

    def send(self, request: bytes, timeout_s: float) -> Exchange:
        """Begin an exchange; only if none is under way."""
        exchange = self._exchange = Exchange(self)
        ends_at = self.loop.time() + timeout_s
        if self._timer is None or ends_at < self._ends_at:
            self._look_at(ends_at)
        self._ends_at = ends_at
        self._reusable = False
        self._head = 0
        self._transport.write(request)
        return exchange

    def idle_for(self) -> float:
        """Seconds since the last exchange was over; infinite if the connection can't have another one."""
        return float("inf") if self._transport.is_closing() else self.loop.time() - self._idle_since

    @property
    def _busy(self) -> bool:
        return self._exchange is not None

    def go_on(self) -> None:
        """There is room for more bytes."""
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def fail(self, error: UpstreamFailed) -> None:
        """End the exchange with an error, and the connection with it."""
        exchange, self._exchange = self._exchange, None
        self.abort()
        if exchange is not None:
            exchange.end(error)

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = transport
        self._owner.made(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._exchange is None:  # nobody asked
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.fail(_broke_off(self.url, f"not HTTP ({type(error).__name__})"))
            return
        if self._busy:
            if not self._exchange.status:
                self._head_goes_on(len(data))
            return
        if self._reusable and not self._transport.is_closing():
            self._idle_since = self.loop.time()
            self._owner.released(self)
        else:
            self.abort()

    def _head_goes_on(self, size: int) -> None:
        """Give up a server whose headers never end."""
        self._head += size
        if self._head > MOST_HEAD:
            self.fail(_broke_off(self.url, f"headers longer than {MOST_HEAD} bytes"))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio. An answer without a length ends with its connection."""
        exchange, self._exchange = self._exchange, None
        if self._timer is not None:
            self._timer.cancel()
        if exchange is not None:
            whole = exc is None and exchange.status and not _FRAMING & exchange.headers.keys()
            exchange.end(None if whole else _broke_off(self.url, type(exc).__name__ if exc else "closed"))
        self._owner.lost(self)
        self.closed.set_result(None)

    # --- httptools ---

    def on_message_begin(self) -> None:
        """See httptools. A second answer to one request makes the connection worthless."""
        self._reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        if self._exchange is not None:
            self._exchange.lines.append((name, value))

    def on_headers_complete(self) -> None:
        """See httptools."""
        exchange, status = self._exchange, self._parser.get_status_code()
        if exchange is None:
            return
        if status < _INFORMATIONAL:  # the answer itself follows
            exchange.lines.clear()
            return
        exchange.begun(status)

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        if self._exchange is not None and self._exchange.add(body) and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """See httptools."""
        exchange = self._exchange
        if exchange is None or not exchange.status:
            return
        self._exchange = None
        self._reusable = self._parser.should_keep_alive()
        exchange.end()
        self.go_on()

    def _look_at(self, when: float) -> None:
        """Look then whether an exchange has taken too long. One timer serves them all as long as none has to end before
        it is due: cheaper than one for each."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._exchange is None:
            return
        if self.loop.time() < self._ends_at:
            self._look_at(self._ends_at)
            return
        self.fail(
            UpstreamTimeout(
                f"The model server at {self.url} took too long.", "Ask for less, or raise the endpoint's timeout."
            )
        )


def _broke_off(url: str, how: str) -> UpstreamFailed:
    return UpstreamFailed(f"The model server at {url} broke off: {how}.", REMEDY)
