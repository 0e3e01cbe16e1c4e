"""What uvicorn can do for us and ASGI has no words for: tell of a caller who leaves, answer in one write, and give a
request that came whole to whoever answers it, without a scope, an event and a message for each half of it."""

from asyncio import Task
from collections.abc import Callable, Coroutine
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

LINE = "noria.line"
"""Where a request's scope has its line, if a protocol of ours serves it."""


class Line:
    """What our protocols know of a request and ASGI doesn't tell without a task that waits for it.

    Attributes:
        task: What answers it, if that began when the request was there.
        whole: Whether all of the request is there.
        disconnected: Whether the caller has closed the connection.
        on_cut: Called when he does.
    """

    __slots__ = ("disconnected", "on_cut", "task", "whole")

    def __init__(self) -> None:
        self.task: Task[None] | None = None
        self.whole = self.disconnected = False
        self.on_cut: Callable[[], object] | None = None

    def watch(self, on_cut: Callable[[], object]) -> None:
        """Have that called when the caller closes the connection; at once if he has."""
        self.on_cut = on_cut
        if self.disconnected:
            on_cut()

    def cut(self) -> None:
        """The connection is closed."""
        self.disconnected = True
        if self.on_cut is not None:
            self.on_cut()


class _Unheard:
    """Stands for the event that tells a cycle's reader of more: there is no more to a request that came whole."""

    def set(self) -> None:
        """Nobody waits for it."""


class Turn(Line):
    """A request that came whole, and the way of its answer; for uvicorn's protocol it is a cycle as its own are.

    It is called as an ASGI application calls `send`.

    Args:
        protocol: The connection's.
        path: What is asked for.
        headers: Names in lower case, and values.
        body: The request's.

    Attributes:
        keep_alive: Whether the connection may have another request.
        response_started: Whether the answer's head is written.
        response_complete: Whether all of it is.
    """

    __slots__ = (
        *("_chunked", "_flow", "_protocol", "body", "headers", "keep_alive", "path"),
        *("response_complete", "response_started"),
    )

    more_body = False
    message_event = _Unheard()

    def __init__(self, protocol: HttpToolsProtocol, path: str, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        super().__init__()
        self.whole = True
        self.path, self.headers, self.body = path, headers, body
        self.keep_alive: bool = protocol.parser.should_keep_alive()
        self.response_started = self.response_complete = self._chunked = False
        self._protocol: Any = protocol
        self._flow: Any = protocol.flow

    def begin(self, answering: Coroutine[Any, Any, None]) -> None:
        """Have it answered by a task, which says when it is `over`."""
        self.task = self._protocol.loop.create_task(answering)
        self._protocol.tasks.add(self.task)

    def over(self) -> None:
        """The task is about to end: the server need not wait for it, and the connection keeps nothing of it."""
        self._protocol.tasks.discard(self.task)
        self.task, self.headers, self.body = None, [], b""
        self._protocol = self._flow = None

    async def __call__(self, message: Any) -> None:
        """Send a part of an answer that comes in pieces, once the caller has taken enough of what came before."""
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            headers = message["headers"]
            self._chunked = all(name != b"content-length" for name, _ in headers)
            said = "".join([f"{name.decode()}: {value.decode('latin-1')}\r\n" for name, value in headers])
            rest = b"transfer-encoding: chunked\r\n\r\n" if self._chunked else b"\r\n"
            self._begin(message["status"], said, len(headers), rest)
            return
        piece, more = message.get("body", b""), message.get("more_body", False)
        if self._chunked:
            end = b"" if more else b"0\r\n\r\n"
            piece = b"%x\r\n%b\r\n%b" % (len(piece), piece, end) if piece else end
        self._protocol.transport.write(piece)
        if not more:
            self._end()

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> bool:
        """See `write_whole`."""
        if self.response_started or self._flow.write_paused or self.disconnected:
            return False
        said = "".join([f"{name}: {value}\r\n" for name, value in headers])
        self._begin(status, said, len(headers), b"\r\n" + body)
        self._end()
        return True

    def break_off(self) -> None:
        """Say that something went wrong here, if nothing else was said, and end the connection."""
        if not self.answer(500, [("content-length", "0"), ("connection", "close")], b""):
            self._protocol.transport.close()

    def _begin(self, status: int, said: str, lines: int, rest: bytes) -> None:
        """Write the answer's head, of which that many lines are given, and what follows them."""
        if said.count("\n") != lines or said.count("\r") != lines:
            raise RuntimeError("A header of an answer holds a line break.")
        closing = "connection: close\r\n" in said
        self.keep_alive = self.keep_alive and not closing
        self.response_started = True
        close = b"" if self.keep_alive or closing else b"connection: close\r\n"
        always = _lines(self._protocol.server_state.default_headers)
        pieces = (STATUS_LINE[status], always, said.encode("latin-1", "replace"), close, rest)
        self._protocol.transport.write(b"".join(pieces))

    def _end(self) -> None:
        self.response_complete = True
        if not self.keep_alive:
            self._protocol.transport.close()
        self._protocol.on_response_complete()


_always: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")


def _lines(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The headers of every answer, as they are written: uvicorn makes a new list of them once a second."""
    global _always
    if headers is not _always[0]:
        _always = headers, b"".join([b"%b: %b\r\n" % pair for pair in headers])
    return _always[1]


class LinedConnection(HttpToolsProtocol):
    """uvicorn's protocol, with a line for the request that came last."""

    def on_headers_complete(self) -> None:
        """A head is complete."""
        self.scope[LINE] = Line()  # type: ignore[literal-required]
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            line = self.cycle.scope.get(LINE)
            if isinstance(line, Line):
                line.cut()
        super().connection_lost(exc)


def write_whole(send: Any, status: int, headers: list[tuple[str, str]], body: bytes) -> bool:
    """Answer a request over uvicorn, head and body in one system call, if nothing was answered and the caller listens.

    Args:
        send: What uvicorn gave us; anything else's is left alone.
        status: HTTP status.
        headers: Names in lower case, and values; `content-length` among them.
        body: The body.

    Returns:
        Whether that was done; if not, it has to go the common way, which waits, or says what is wrong.
    """
    if type(send) is Turn:
        return send.answer(status, headers, body)
    cycle = getattr(send, "__self__", None)
    if type(cycle) is not RequestResponseCycle or cycle.response_started or cycle.flow.write_paused:
        return False
    if cycle.disconnected or cycle.scope["method"] == "HEAD":
        return False
    said = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if said.count("\n") != len(headers) or said.count("\r") != len(headers):
        return False
    always = _lines(cycle.default_headers)
    closing = "connection: close\r\n" in said
    keep_alive = cycle.keep_alive and not closing
    end = b"\r\n" if keep_alive or closing else b"connection: close\r\n\r\n"
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.keep_alive = keep_alive
    cycle.transport.write(b"".join((STATUS_LINE[status], always, said.encode("latin-1", "replace"), end, body)))
    cycle.message_event.set()
    if not keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True
