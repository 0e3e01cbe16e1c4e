"""The short way of a request: one for inference that is all there at once is answered without ASGI.

uvicorn makes a scope, a cycle with an event, and a message for each half of a request; a quarter of what the gateway
costs. Whatever else comes, and what comes in pieces, goes that way still, as if this weren't here.
"""

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from noria.adapters.uvicorn import LINE, Line, Turn
from noria.api.addresses import address
from noria.serving.wires import Form

Answerer = Callable[[Turn, Form, str], Coroutine[Any, Any, None]]
"""Answers a request that came whole to the address of a form, and of an endpoint if it names one."""
HTTP = "1.1"


class ShortWay(HttpToolsProtocol):
    """uvicorn's protocol, with the short way beside its own.

    Attributes:
        answerer: Who answers on it; None if it is closed.
    """

    answerer: Answerer | None = None

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.pipeline: deque[Any] = deque()
        self._running: RequestResponseCycle | Turn | None = None
        self._arriving: tuple[Form, str] | None = None
        self._pieces: list[bytes] = []

    @property
    def _idle(self) -> bool:
        """Whether nothing is being answered."""
        return self._running is None or (self._running.response_complete and not self.pipeline)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request on the connection, not only the last one that came."""
        for cycle in (self._running, *(waiting for waiting, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
                line: Line = cycle if isinstance(cycle, Turn) else cycle.scope[LINE]
                line.cut()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A head begins."""
        self.url, self.headers = b"", []

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header is there; one that follows a body (a trailer) says nothing of a request that comes whole."""
        if self._arriving is None:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """A head is complete."""
        if self.answerer is not None and self.parser.get_method() == b"POST" and self._idle:
            self._arriving = _inference(self.url)
        if self._arriving is None or self.parser.get_http_version() != HTTP:
            self._leave_to_uvicorn()

    def on_body(self, body: bytes) -> None:
        """Part of a body is there."""
        if self._arriving is not None:
            self._pieces.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is complete."""
        if self._arriving is not None:
            self._begin(*self._arriving)
        else:
            super().on_message_complete()
            self.scope[LINE].whole = True  # type: ignore[literal-required]

    def _begin(self, form: Form, endpoint: str) -> None:
        """Have a request answered that came whole."""
        assert self.answerer is not None
        turn = Turn(self, self.url.decode(), self.headers, b"".join(self._pieces))
        self._arriving, self._pieces = None, []
        self._running, self.cycle = turn, turn  # type: ignore[assignment]
        turn.begin(self.answerer(turn, form, endpoint))

    def _leave_to_uvicorn(self) -> None:
        """Have a request answered over ASGI, with what has come of it."""
        url, headers, pieces = self.url, self.headers, self._pieces
        self._arriving, self._pieces = None, []
        super().on_message_begin()
        self.url, self.headers = url, headers
        self.scope["headers"], self.scope[LINE] = headers, Line()  # type: ignore[literal-required]
        self.expect_100_continue = any(n == b"expect" and v.lower() == b"100-continue" for n, v in headers)
        super().on_headers_complete()
        if self.pipeline and isinstance(self._running, Turn):
            self.flow.resume_reading()  # else nobody would hear of a caller who leaves
        for piece in pieces:
            super().on_body(piece)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Remember who is being answered: with requests sent ahead it isn't the last that came."""
        self._running = cycle
        super()._start_asgi_task(cycle, app)


def _inference(url: bytes) -> tuple[Form, str] | None:
    """Form and endpoint of an inference address that is written plainly; None for any other."""
    if not url.isascii() or b"%" in url or b"?" in url or b"#" in url:
        return None
    return address(url.decode())
