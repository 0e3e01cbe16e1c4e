"""What uvicorn can do for us and ASGI has no words for: tell of a caller who leaves, and answer in one write."""

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

LINE = "noria.line"
"""Where a request's scope has its line, if a protocol of ours serves it."""


class Line:
    """What our protocols know of a request and ASGI doesn't tell without a task that waits for it.

    Attributes:
        whole: Whether all of the request is there.
        is_cut: Whether the caller has closed the connection.
        on_cut: Called when he does.
    """

    __slots__ = ("is_cut", "on_cut", "whole")

    def __init__(self) -> None:
        self.whole = self.is_cut = False
        self.on_cut: Callable[[], object] | None = None

    def watch(self, on_cut: Callable[[], object]) -> None:
        """Have that called when the caller closes the connection; at once if he has."""
        self.on_cut = on_cut
        if self.is_cut:
            on_cut()

    def cut(self) -> None:
        """The connection is closed."""
        self.is_cut = True
        if self.on_cut is not None:
            self.on_cut()


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
    cycle = getattr(send, "__self__", None)
    if type(cycle) is not RequestResponseCycle or cycle.response_started or cycle.flow.write_paused:
        return False
    if cycle.disconnected or cycle.scope["method"] == "HEAD":
        return False
    said = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if said.count("\n") != len(headers) or said.count("\r") != len(headers):
        return False
    always = b"".join([b"%b: %b\r\n" % pair for pair in cycle.default_headers])
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
