"""One connection: uvicorn's over httptools, with a limit to what a caller may send before he is heard, and to how slow
he may be.

What can be told is told in JSON, before the connection is closed. Nothing here costs a well-behaved caller a timer or a
task: timers run only while a request's head is incomplete, while he does not read what he gets, or while nothing is
under way.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from noria.api.addresses import OPENAI_PREFIXES
from noria.api.problems import HeadersTooLarge, RequestTimeout, explain
from noria.api.short import Answerer, ShortWay
from noria.domain.errors import InvalidRequest, NoriaError
from noria.serving.wires import Form

MOST_PIPELINED = 256
"""Requests that may wait behind one that is being answered on the same connection."""
PIECE = 16 * 1024
"""Bytes that a caller has to take of what is left of a long answer, each time his patience is measured."""
LINGER_S = 1.0
"""How long we listen to a caller after we refused him, in seconds, so that he gets to hear why."""
GRACE_S = 0.25
"""How long an idle connection is kept when we stop, in seconds: a request may be on its way, and is answered."""
_OFFERS = (b"upgrade", b"connection", b"http2-settings")
"""Headers by which a request offers another protocol."""
_OPENAI = tuple(prefix.encode() for prefix in OPENAI_PREFIXES)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a connection goes by.

    Attributes:
        max_header_bytes: Of the request line and the headers together.
        slow_client_s: Longest time for a request's head, and for a piece of what the caller gets, in seconds.
    """

    max_header_bytes: int = 65_536
    slow_client_s: float = 30.0


class _Nobody:
    """Stands for a request that is read again."""

    response_complete = True


_NOBODY: Any = _Nobody()


class Patience(FlowControl):
    """Flow control that gives a caller up who takes nothing for too long."""

    def __init__(self, transport: asyncio.Transport, patience_s: float) -> None:
        super().__init__(transport)
        self._patience_s = patience_s

    async def drain(self) -> None:
        """Wait until the caller has taken most of what he was sent, or is given up."""
        timer = asyncio.get_running_loop().call_later(self._patience_s, self._transport.abort)
        try:
            await super().drain()
        finally:
            timer.cancel()


class Connection(ShortWay):
    """uvicorn's protocol with bounds; `bounded` makes the class for a server."""

    bounds: Callable[[], Bounds] = Bounds

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._most_head, self._slow_s = 0, 0.0
        self._fed = 0
        self._in_head = self._completed = False
        self._refused = False
        self._draining = False
        self._problem: NoriaError | None = None
        self._idle_since = math.inf
        self._before_offer: RequestResponseCycle | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._left_to_take = 0
        self._take_timer: asyncio.TimerHandle | None = None

    # --- the connection's life ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Whoever connects has to say something."""
        super().connection_made(transport)
        bounds = self.bounds()
        self._most_head, self._slow_s = bounds.max_header_bytes, bounds.slow_client_s
        self.flow = Patience(transport, self._slow_s)
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone; nothing is waited for any more."""
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        self._end_head()
        self._end_taking()

    def shutdown(self) -> None:
        """We stop: what is under way is finished, and what arrives now is the last."""
        self._draining = True
        if self._idle:
            self._idle_since = math.inf
            self.loop.call_later(GRACE_S, self._close_if_idle)
        else:
            for cycle in (self._running, self.cycle):
                if cycle is not None:
                    cycle.keep_alive = False

    def timeout_keep_alive_handler(self) -> None:
        """If nothing was asked for too long, end it; what the caller did not take by now he will not take.

        One timer runs all the time, and looks when it is due how long it has been: cheaper than one for each pause.
        """
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._look_in(min(left_s, self.timeout_keep_alive))
        elif self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _unset_keepalive_if_required(self) -> None:
        """Something is under way."""
        self._idle_since = math.inf

    # --- what comes in ---

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what can't be a request is refused."""
        if self._refused:
            return
        self._idle_since = math.inf
        self._fed = self._fed + len(data) if self._in_head else len(data)
        alone = self._fed <= self._most_head or self._in_head or self._idle
        self._completed = False
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(self._problem or InvalidRequest("This is not HTTP/1.1 as we read it.", "See RFC 9112."))
            return
        if self._arriving is not None:
            self._leave_to_uvicorn()
        if self._in_head:
            if self._fed > self._most_head and alone and not self._completed:
                self._refuse(self._too_large())
                return
            self._fed = min(self._fed, self._most_head)  # some of it may have been another request's
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(self._slow_s, self._head_too_slow)
        elif self._idle:
            self._wait_for_request()

    def _feed(self, data: bytes) -> None:
        """Feed the parser. It loses the body of a request that offers another protocol (h2c, say), so such a request
        is fed to a new one, without the offer."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            line = b"%b %b HTTP/1.1\r\n" % (self.parser.get_method(), self.url)
            kept = [b"%b: %b\r\n" % pair for pair in self.headers if pair[0] not in _OFFERS]
            self.cycle, self._before_offer = self._before_offer, None  # type: ignore[assignment]
            self.parser = httptools.HttpRequestParser(self)
            self._feed(b"".join((line, *kept, b"\r\n", data[stopped.args[0] :])))

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is complete."""
        self._in_head, self._completed = False, True
        if self._head_timer is not None:
            self._end_head()
        if self._fed > self._most_head and self._head_size() > self._most_head:
            self._problem = self._too_large()
            raise self._problem
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._before_offer, self.cycle = self.cycle, _NOBODY
            return
        super().on_headers_complete()
        if len(self.pipeline) > MOST_PIPELINED:
            self._problem = InvalidRequest("Too many requests were sent ahead.", "Wait for answers.")
            raise self._problem

    def on_message_complete(self) -> None:
        """A request is complete, unless it is read again."""
        if self.cycle is not _NOBODY:
            super().on_message_complete()

    def _begin(self, form: Form, endpoint: str) -> None:
        super()._begin(form, endpoint)
        if self._draining:
            self.cycle.keep_alive = False

    def _leave_to_uvicorn(self) -> None:
        super()._leave_to_uvicorn()
        if self._draining:
            self.cycle.keep_alive = False

    # --- what goes out ---

    def on_response_complete(self) -> None:
        """An answer is written, but perhaps not taken yet. What was sent ahead has its turn."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._wait_for_request()
        if self.flow.write_paused:
            self._await_taking()

    def resume_writing(self) -> None:
        """What was written is on its way."""
        super().resume_writing()
        self._end_taking()

    def _await_taking(self) -> None:
        self._end_taking()
        self._left_to_take = self.transport.get_write_buffer_size()
        self._take_timer = self.loop.call_later(self._slow_s, self._look_whether_taken)

    def _end_taking(self) -> None:
        if self._take_timer is not None:
            self._take_timer.cancel()
            self._take_timer = None

    def _look_whether_taken(self) -> None:
        """Give up a caller who lets a written answer lie."""
        if self.transport.get_write_buffer_size() > self._left_to_take - PIECE:
            self.transport.abort()
        else:
            self._await_taking()

    # --- whom we end it with ---

    def _wait_for_request(self) -> None:
        """Keep an idle connection for a while."""
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_in(self.timeout_keep_alive)

    def _look_in(self, wait_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(wait_s, self.timeout_keep_alive_handler)

    def _close_if_idle(self) -> None:
        if self._idle and not self.transport.is_closing():
            self.transport.close()

    def _end_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_size(self) -> int:
        """Bytes of the request line and the headers."""
        return len(self.url) + 16 + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(
            f"The request line and headers are longer than {self._most_head} bytes.",
            "Send less, or raise server.max_header_bytes in noria.yaml.",
        )

    def _head_too_slow(self) -> None:
        self._head_timer = None
        if self._idle:
            problem = f"The request's headers did not arrive within {self._slow_s:g} seconds."
            self._refuse(RequestTimeout(problem, "Send it again, faster."))

    def _refuse(self, error: NoriaError) -> None:
        """Listen to nothing more, tell the caller why if nothing else is being told, and end the connection."""
        self._refused = True
        self._end_head()
        running = self._running
        if running is not None and not running.response_complete:
            if running.response_started or not running.more_body:
                running.keep_alive = False
                self.pipeline.clear()
                return
            running.disconnected = True
            running.message_event.set()
        if not self.transport.is_closing():
            self._tell(error)

    def _tell(self, error: NoriaError) -> None:
        url = getattr(self, "url", b"")
        status, body = explain(error, Form.CHAT if url.startswith(_OPENAI) else None)
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.abort)


def bounded(bounds: Callable[[], Bounds], answerer: Answerer | None = None) -> type[Connection]:
    """The protocol for a server.

    Args:
        bounds: Asked at each new connection.
        answerer: Answers inference on the short way; without it all goes over ASGI.
    """
    way = staticmethod(answerer) if answerer is not None else None
    return type("BoundedConnection", (Connection,), {"bounds": staticmethod(bounds), "answerer": way})
