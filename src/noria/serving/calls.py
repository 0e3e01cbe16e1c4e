"""Gets an answer out of a model server, which may be replaced while it is asked, or out of one that stands in for it.

Each version is asked by the rules of its own endpoint: how often (`serving/retries`), how long one try may take, and
whether it failed so often that it is left alone (`serving/breaker`). When the version that was picked can't answer and
the caller has seen nothing yet, the champions of the endpoint's fallbacks are asked, in order, in what is left of the
endpoint's timeout. What is the caller's own mistake is never asked of anybody else.

A server of ours that is being started anew is waited for with patience, and only a request that it failed in the end
counts against it; a service elsewhere is judged by each try.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from noria.domain.endpoint import ELSEWHERE, Route, Target
from noria.domain.errors import CircuitOpen, InvalidRequest, NoriaError, UpstreamFailed, UpstreamTimeout
from noria.domain.inference import Intent
from noria.ports import Upstream, UpstreamReply
from noria.serving.allowance import Charge
from noria.serving.breaker import Breakers, BreakerState
from noria.serving.cache import Kept, Wish
from noria.serving.passage import Passage
from noria.serving.replies import Reply, garbage, judge
from noria.serving.retries import CallFailed, Tries, is_there
from noria.serving.router import Router
from noria.serving.rules import Rules
from noria.serving.streaming import Incoming
from noria.serving.tracing import traceparent
from noria.serving.wires import Call

LONGEST_ANSWER = 64 * 1024 * 1024
"""Bytes of an answer that is read into memory."""


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
        charge: What was set aside of its key's and its endpoint's limits; None if nothing was.
        wish: What it means for the endpoint's cache; None if it has nothing to do with one.
    """

    route: Route
    target: Target
    call: Call
    intent: Intent
    timeout_s: float
    tracestate: str = ""
    charge: Charge | None = None
    wish: Wish | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back from whom: an answer, or a stream that has begun and is still to be read."""

    target: Target
    reply: Reply
    stream: Incoming | None = None

    def kept(self, now_us: int) -> Kept:
        """The whole answer, for the cache; a stream must be at its end."""
        if self.stream is None:
            return Kept(self.reply.body, None, now_us)
        return Kept(self.stream.reply().body, tuple(self.stream.pieces or ()), now_us)


@dataclass(frozen=True, slots=True)
class Hop:
    """A version that is asked, by its own endpoint's rules.

    Attributes:
        endpoint: Whose version it is.
        target: The version.
        rules: The endpoint's.
        deadline: When the whole request is over, on the event loop's clock.
        whole: Ask for the answer in one piece.
        content: Wait for a stream's first content before it counts as begun.
    """

    endpoint: str
    target: Target
    rules: Rules
    deadline: float
    whole: bool
    content: bool


class Caller:
    """Calls targets.

    Args:
        upstream: The transport.
        router: Says where a version listens now, and by which rules it is asked.
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
        self._breakers = Breakers(router.in_service)

    def breakers(self) -> Mapping[str, BreakerState]:
        """`model/version` → whether it may be asked, of all versions in service."""
        return self._breakers.states(time.monotonic())  # the loops' own clock, which other threads may read, too

    async def ask(self, order: Order, passage: Passage, *, alone: bool = False) -> Answered:
        """Have a request answered.

        Args:
            order: Whom to ask what. The timeout is over everything that is tried.
            passage: Where it is kept how often was asked, and who answered.
            alone: Ask nobody but the version of the order, and for one piece, even where the caller wants a stream.

        Raises:
            CallFailed: Nobody answered; it tells of the version that was picked.
        """
        rules = self._router.rules(order.route.endpoint)
        deadline = asyncio.get_running_loop().time() + order.timeout_s
        fallbacks = () if alone else rules.fallbacks
        hop = Hop(order.route.endpoint, order.target, rules, deadline, alone, bool(fallbacks))
        try:
            return await self._ask(order, hop, passage)
        except CallFailed as failed:
            if not fallbacks or isinstance(failed.error, InvalidRequest):
                raise
            answered = await self._fall_back(order, passage, failed, self._others(order, fallbacks, deadline))
            if answered is None:
                raise
            return answered

    async def _fall_back(
        self, order: Order, passage: Passage, failed: CallFailed, others: Iterator[Hop]
    ) -> Answered | None:
        """Ask those who stand in, one after the other; None if nobody answers.

        Raises:
            CallFailed: One of them says that the request is at fault.
        """
        endpoint = order.route.endpoint
        for hop in others:
            passage.falls_back(endpoint, failed.error.code)
            endpoint = hop.endpoint
            try:
                answered = await self._ask(order, hop, passage)
            except CallFailed as error:
                if isinstance(error.error, InvalidRequest):
                    passage.stood_in(hop.target)
                    raise
                failed = error
                continue
            passage.stood_in(hop.target)
            return answered
        return None

    def _others(self, order: Order, fallbacks: tuple[str, ...], deadline: float) -> Iterator[Hop]:
        """Who stands in, as long as there is time."""
        for number, endpoint in enumerate(fallbacks, start=1):
            target = self._router.fallback(endpoint, order.route.wire)
            if target is not None and asyncio.get_running_loop().time() < deadline:
                rules = self._router.rules(endpoint)
                yield Hop(endpoint, target, rules, deadline, whole=False, content=number < len(fallbacks))

    async def _ask(self, order: Order, hop: Hop, passage: Passage) -> Answered:
        """Ask one version until it answers or won't.

        Raises:
            CallFailed: It didn't answer.
        """
        now, ref, url = asyncio.get_running_loop().time, hop.target.ref, self._url(hop)
        ours = not url.startswith(ELSEWHERE)
        patience_ends = min(now() + min(hop.rules.patience_s, self._patience_s), hop.deadline)
        tries: Tries | None = None
        ticket = self._enter(ref, url, now())
        try:
            while True:
                try:
                    answered = await self._ask_once(order, hop, passage, now())
                    break
                except CallFailed as failed:
                    tries = tries or Tries(hop.rules.tries, ours, patience_ends, hop.deadline, self._jitter)
                    wait_s = tries.again(failed, now())
                    if wait_s is None or not ours:
                        self._settle(hop, ticket or 0, is_there(failed, ours))
                        ticket = None
                    if wait_s is None:
                        raise
                    await asyncio.sleep(wait_s)
                    if ticket is None:
                        ticket = self._enter(ref, url, now(), failed)
            if answered.stream is not None:
                self._breakers.began(ref, now())
                broken = None if ours else False
                held = ticket or 0
                answered.stream.settle = lambda there: self._settle(hop, held, broken if there is False else there)
            else:
                self._breakers.worked(ref)
            ticket = None
            return answered
        finally:
            if ticket is not None:
                self._breakers.left(ref, ticket)

    async def _ask_once(self, order: Order, hop: Hop, passage: Passage, now: float) -> Answered:
        """Send one request.

        Raises:
            CallFailed: It brought no answer.
        """
        call, rules = order.call, hop.rules
        streamed = call.stream and not hop.whole
        left_s = max(hop.deadline - now, 0.001)
        passage.tries += 1
        try:
            if rules.try_timeout_s is None or rules.try_timeout_s >= left_s:
                reply = await self._post(order, hop, left_s)
                begun = await self._begin(reply, hop, call, None) if streamed else None
            elif streamed:
                reply, begun = await self._begin_in_time(order, hop, left_s, rules.try_timeout_s)
            else:
                reply, begun = await self._post(order, hop, rules.try_timeout_s), None
            if begun is not None:
                return Answered(hop.target, _STREAMED, begun)
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

    async def _post(self, order: Order, hop: Hop, timeout_s: float) -> UpstreamReply:
        call = order.call
        body = call.whole_body if hop.whole else call.body
        return await self._upstream.post(self._url(hop), call.path, body, _headers(order), timeout_s)

    async def _begin_in_time(
        self, order: Order, hop: Hop, left_s: float, try_s: float
    ) -> tuple[UpstreamReply, Incoming | None]:
        """The reply, and the stream if it is one, which has to begin within one try's time."""
        try:
            async with asyncio.timeout(try_s):
                reply = await self._post(order, hop, left_s)
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

    def _url(self, hop: Hop) -> str:
        return self._router.current(hop.endpoint, hop.target).url

    def _enter(self, ref: str, url: str, now: float, failed: CallFailed | None = None) -> int | None:
        """A ticket from the version's breaker.

        Raises:
            CallFailed: It is open: the failure before, if there was one.
        """
        try:
            return self._breakers.enter(ref, url, now)
        except CircuitOpen as error:
            raise failed or CallFailed(error) from error

    def _settle(self, hop: Hop, ticket: int, there: bool | None) -> None:
        """Tell the version's breaker how a request ended: it is there, it isn't, or nothing is known of that."""
        ref, rules = hop.target.ref, hop.rules
        if there:
            self._breakers.worked(ref)
        elif there is None:
            self._breakers.left(ref, ticket)
        else:
            now = asyncio.get_running_loop().time()
            self._breakers.failed(ref, self._url(hop), ticket, now, rules.breaker_failures, rules.breaker_open_s)


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
