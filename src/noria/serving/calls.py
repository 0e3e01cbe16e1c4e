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
from collections.abc import Callable, Coroutine, Iterator, Mapping
from time import monotonic
from typing import Any

from noria.domain.endpoint import ELSEWHERE, Wire
from noria.domain.errors import CircuitOpen, InvalidRequest
from noria.ports import Upstream
from noria.serving.breaker import Breakers, BreakerState
from noria.serving.orders import Answered, Hop, Order
from noria.serving.passage import Passage
from noria.serving.retries import CallFailed, Tries, is_there
from noria.serving.router import Router
from noria.serving.sending import Sender


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
        self._sender = Sender(upstream)
        self._router = router
        self._jitter = jitter
        self._patience_s = patience_s
        self._breakers = Breakers(router.in_service)

    def breakers(self) -> Mapping[str, BreakerState]:
        """`model/version` → whether it may be asked, of all versions in service."""
        return self._breakers.states(monotonic())

    def ask(self, order: Order, passage: Passage, *, alone: bool = False) -> Coroutine[Any, Any, Answered]:
        """Have a request answered.

        Args:
            order: Whom to ask what. The endpoint's timeout is over everything that is tried.
            passage: Where it is kept how often was asked, and who answered.
            alone: Ask nobody but the version of the order, and for one piece, even where the caller wants a stream.

        Raises:
            CallFailed: Nobody answered; it tells of the version that was picked.
        """
        rules = order.rules
        now = monotonic()
        deadline = now + rules.timeout_s
        fallbacks = () if alone else rules.fallbacks
        hop = Hop(order.route.endpoint, order.target, rules, deadline, alone, bool(fallbacks))
        if fallbacks:
            return self._ask_all(order, hop, passage, now, fallbacks)
        return self._ask(order, hop, passage, now)

    async def _ask_all(
        self, order: Order, hop: Hop, passage: Passage, begun: float, fallbacks: tuple[str, ...]
    ) -> Answered:
        """Ask the version that was picked, then those who stand in."""
        try:
            return await self._ask(order, hop, passage, begun)
        except CallFailed as failed:
            if isinstance(failed.error, InvalidRequest):
                raise
            others = self._others(order, passage, fallbacks, hop.deadline)
            answered = await self._fall_back(order, passage, failed, others)
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
                answered = await self._ask(order, hop, passage, monotonic())
            except CallFailed as error:
                if isinstance(error.error, InvalidRequest):
                    self._stood_in(order, hop, passage)
                    raise
                failed = error
                continue
            self._stood_in(order, hop, passage)
            return answered
        return None

    @staticmethod
    def _stood_in(order: Order, hop: Hop, passage: Passage) -> None:
        tokens = order.route.wire is Wire.OPENAI
        passage.stood_in(hop.target, hop.endpoint, hop.rules.limits, counts_tokens=tokens)

    def _others(self, order: Order, passage: Passage, fallbacks: tuple[str, ...], deadline: float) -> Iterator[Hop]:
        """Who stands in, as long as there is time: never who has spent what he may."""
        for number, endpoint in enumerate(fallbacks, start=1):
            found = self._router.fallback(endpoint, order.route.wire)
            if found is not None and monotonic() < deadline and passage.may_stand_in(endpoint, found[1].limits):
                yield Hop(endpoint, *found, deadline, whole=False, content=number < len(fallbacks))

    async def _ask(self, order: Order, hop: Hop, passage: Passage, begun: float) -> Answered:
        """Ask one version until it answers or won't.

        Raises:
            CallFailed: It didn't answer.
        """
        ref, url = hop.target.ref, self._url(hop)
        ours = not url.startswith(ELSEWHERE)
        tries: Tries | None = None
        ticket = self._enter(ref, url, begun)
        now, place = begun, url
        try:
            while True:
                try:
                    answered = await self._sender.send(order, hop, place, passage, now)
                    break
                except CallFailed as failed:
                    tries = tries or self._tries(hop, ours, begun)
                    wait_s = tries.again(failed, monotonic())
                    if wait_s is None or not ours:
                        self._settle(hop, ticket or 0, is_there(failed, ours))
                        ticket = None
                    if wait_s is None or (not ours and self._breakers.is_open(ref, monotonic() + wait_s)):
                        raise
                    await asyncio.sleep(wait_s)
                    now = monotonic()
                    if ticket is None:
                        ticket = self._enter(ref, url, now, failed)
                    place = self._url(hop)
            if answered.stream is not None:
                self._breakers.began(ref, monotonic())
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

    def _tries(self, hop: Hop, ours: bool, begun: float) -> Tries:
        patience_ends = min(begun + min(hop.rules.patience_s, self._patience_s), hop.deadline)
        return Tries(hop.rules.tries, ours, patience_ends, hop.deadline, self._jitter)

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
            now = monotonic()
            self._breakers.failed(ref, self._url(hop), ticket, now, rules.breaker_failures, rules.breaker_open_s)
