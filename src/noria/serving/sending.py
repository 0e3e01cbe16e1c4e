"""Sends one request to one version, within one try's time, and reads what comes back."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from noria.domain.errors import NoriaError, UpstreamFailed, UpstreamTimeout
from noria.ports import Upstream, UpstreamReply
from noria.serving.orders import Answered, Hop, Order
from noria.serving.passage import Passage
from noria.serving.replies import Reply, garbage, judge
from noria.serving.retries import CallFailed
from noria.serving.streaming import Incoming
from noria.serving.tracing import traceparent
from noria.serving.wires import Call

LONGEST_ANSWER = 64 * 1024 * 1024
"""Bytes of an answer that is read into memory."""


class Sender:
    """Sends requests.

    Args:
        upstream: The transport.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def send(self, order: Order, hop: Hop, url: str, passage: Passage, now: float) -> Answered:
        """Send one request to where the version listens now.

        Raises:
            CallFailed: It brought no answer.
        """
        call, rules = order.call, hop.rules
        streamed = call.stream and not hop.whole
        left_s = max(hop.deadline - now, 0.001)
        passage.tries += 1
        try:
            if rules.try_timeout_s is None or rules.try_timeout_s >= left_s:
                reply = await self._post(order, hop, url, left_s)
                begun = await self._begin(reply, hop, call, None) if streamed else None
            elif streamed:
                reply, begun = await self._begin_in_time(order, hop, url, left_s, rules.try_timeout_s)
            else:
                reply, begun = await self._post(order, hop, url, rules.try_timeout_s), None
            if begun is not None:
                return Answered(hop.target, _STREAMED, begun)
            body = reply.chunks.rest()
            if body is None:
                body = await _read(reply)
        except UpstreamFailed as error:
            passage.tries -= not error.sent
            raise CallFailed(error) from error
        except NoriaError as error:  # nothing was sent: it can't be asked as things are
            passage.tries -= 1
            raise CallFailed(error) from error
        try:
            return Answered(hop.target, judge(call.read, reply.status, body, hop.target.ref))
        except NoriaError as error:
            raise CallFailed(error, reply.status, reply.headers, body) from error

    def _post(self, order: Order, hop: Hop, url: str, timeout_s: float) -> Coroutine[Any, Any, UpstreamReply]:
        call = order.call
        body = call.whole_body if hop.whole else call.body
        return self._upstream.post(url, call.path, body, _headers(order), timeout_s)

    async def _begin_in_time(
        self, order: Order, hop: Hop, url: str, left_s: float, try_s: float
    ) -> tuple[UpstreamReply, Incoming | None]:
        """The reply, and the stream if it is one, which has to begin within one try's time."""
        try:
            async with asyncio.timeout(try_s):
                reply = await self._post(order, hop, url, left_s)
                return reply, await self._begin(reply, hop, order.call, try_s)
        except TimeoutError:
            raise UpstreamTimeout(
                f"{hop.target.ref} did not begin to answer within {try_s:g} s.", "See routing.try_timeout."
            ) from None

    async def _begin(self, reply: UpstreamReply, hop: Hop, call: Call, silence_s: float | None) -> Incoming | None:
        """A stream whose beginning is there; None if the reply is none."""
        if reply.status != 200 or not reply.headers.get("content-type", "").startswith("text/event-stream"):
            return None
        incoming = Incoming(reply, call.shows_usage, silence_s)
        try:
            await incoming.begin(hop.content)
        except BaseException:
            await reply.chunks.aclose()
            raise
        return incoming


_STREAMED = Reply(body=b"")
"""What is known of a stream's answer when it begins."""


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
