"""Gets an answer out of a model server, which may be replaced while it is asked.

A request that never reached a server is sent again until one takes it or patience ends: a server that was killed needs
seconds to come back. One that broke off before it answered is asked once more, since predicting changes nothing; only
once, because the request itself may be what kills it. A 503 counts as not taken.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from noria.domain.endpoint import Route, Target
from noria.domain.errors import UpstreamFailed, UpstreamTimeout
from noria.domain.inference import Intent
from noria.ports import Upstream, UpstreamReply
from noria.serving.replies import garbage
from noria.serving.router import Router
from noria.serving.tracing import traceparent
from noria.serving.wires import Call

FIRST_PAUSE_S = 0.025
LONGEST_PAUSE_S = 0.5
LONGEST_ANSWER = 64 * 1024 * 1024
"""Bytes of an answer that is read into memory."""
_UNAVAILABLE = 503


@dataclass(frozen=True, slots=True)
class Order:
    """A request that is to be answered.

    Attributes:
        route: The endpoint's route when the request came.
        target: The version to ask.
        call: What to ask.
        intent: The record that the answer belongs to.
        timeout_s: Until the last byte, seconds.
        tracestate: What the caller's trace carries along; empty for nothing.
    """

    route: Route
    target: Target
    call: Call
    intent: Intent
    timeout_s: float
    tracestate: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back: the whole body, or a stream that is still to be read."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    stream: UpstreamReply | None = None


class Caller:
    """Calls targets.

    Args:
        upstream: The transport.
        router: Says where a version listens now.
        jitter: Between 0 and 1, so that waiting requests don't all come back at once.
        patience_s: Bounds the endpoints' own patience, seconds.
    """

    def __init__(
        self, upstream: Upstream, router: Router, jitter: Callable[[], float], patience_s: float = math.inf
    ) -> None:
        self._upstream = upstream
        self._router = router
        self._jitter = jitter
        self._patience_s = patience_s

    async def ask(self, order: Order, *, whole: bool = False) -> Answered:
        """Send a request until it is answered.

        Args:
            order: Whom to ask what. The timeout is over all attempts.
            whole: Ask for the answer in one piece, even where the caller wants a stream.

        Raises:
            UpstreamFailed: It broke off, or nobody took it.
            UpstreamTimeout: It took too long.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + order.timeout_s
        rules = self._router.rules(order.route.endpoint)
        patience_ends = now() + min(rules.patience_s, self._patience_s, order.timeout_s)
        pause_s, broke_off = FIRST_PAUSE_S, False
        while True:
            wait_s = pause_s * (0.5 + self._jitter())
            last = now() + wait_s > patience_ends
            try:
                answered = await self._ask_once(order, max(deadline - now(), 0.001), whole)
                if answered.status != _UNAVAILABLE or last:
                    return answered
            except UpstreamFailed as error:
                if last or (error.sent and (broke_off or isinstance(error, UpstreamTimeout))):
                    raise
                broke_off = broke_off or error.sent
            await asyncio.sleep(wait_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _ask_once(self, order: Order, timeout_s: float, whole: bool) -> Answered:
        call = order.call
        url = self._router.current(order.route.endpoint, order.target).url
        headers = _headers(order)
        body = call.whole_body if whole else call.body
        reply = await self._upstream.post(url, call.path, body, headers, timeout_s)
        events = reply.headers.get("content-type", "").startswith("text/event-stream")
        if call.stream and not whole and events and reply.status == 200:
            return Answered(reply.status, reply.headers, b"", reply)
        return Answered(reply.status, reply.headers, await _read(reply))


def _headers(order: Order) -> dict[str, str]:
    """What goes with a request, so that the model server can say whom it worked for."""
    intent = order.intent
    headers = {
        "content-type": order.call.content_type,
        "x-request-id": intent.request_id,
        "traceparent": traceparent(intent.trace_id, intent.span_id, intent.sampled),
    }
    if order.tracestate:
        headers["tracestate"] = order.tracestate
    return headers


async def _read(reply: UpstreamReply) -> bytes:
    """A reply's whole body."""
    pieces, size = [], 0
    try:
        async for piece in reply.chunks:
            size += len(piece)
            if size > LONGEST_ANSWER:
                raise garbage(f"longer than {LONGEST_ANSWER} bytes")
            pieces.append(piece)
    finally:
        await reply.chunks.aclose()
    return b"".join(pieces)
