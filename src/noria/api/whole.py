"""A whole answer in one write: head and body reach the caller together, in one system call instead of two."""

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle


def write_whole(send: Any, status: int, headers: list[tuple[str, str]], body: bytes) -> bool:
    """Answer a request over uvicorn, past its messages, if nothing was answered yet and the caller is listening.

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
