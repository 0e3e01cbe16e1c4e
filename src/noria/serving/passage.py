"""One request's passage through the gateway: its intent, its one outcome, and what the metrics hear of it."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from noria.domain.endpoint import Target
from noria.domain.errors import LogUnavailable, NoriaError, RedactionUnavailable
from noria.domain.inference import Intent, Outcome, OutcomeKind
from noria.domain.limits import Limits
from noria.domain.price import Price
from noria.ports import Clock
from noria.serving.allowance import Allowances, Charge
from noria.serving.log.recorder import Recorder
from noria.serving.replies import Reply

log = logging.getLogger(__name__)

TRY_AGAIN_US = 5_000_000
"""How long a failure to write counts, in microseconds, if nothing else is written."""
REST_US = 1_000_000
"""Between two attempts to write what is owed to the log, in microseconds."""


class Observer(Protocol):
    """Who counts requests: `started` once for each, `finished` exactly once for each `started`."""

    def started(self, endpoint: str) -> None:
        """A request was taken."""
        ...

    def finished(self, intent: Intent, outcome: Outcome) -> None:
        """A request ended."""
        ...

    def shadow_dropped(self, endpoint: str) -> None:
        """A shadow copy was not made."""
        ...

    def log_refused(self, entry: str) -> None:
        """The log took no `intent`, or no `outcome`."""
        ...


PriceOf = Callable[[str, str], Price | None]
"""Endpoint and `model/version` → what the tokens of that version cost; None if nobody knows."""


class Passages:
    """Opens passages, knows how many are open and stream, and whether the log takes what they write."""

    def __init__(
        self, recorder: Recorder, observer: Observer, clock: Clock, allowances: Allowances, price: PriceOf
    ) -> None:
        self.observer = observer
        self.clock = clock
        self.allowances = allowances
        self.price = price
        self.under_way = 0
        self.streams = 0
        self._recorder = recorder
        self._refused: tuple[int, str] | None = None
        self._owed: list[Outcome] = []

    def begin(self, intent: Intent, stream: bool = False, charge: Charge | None = None) -> "Passage":
        """A passage for an intent that isn't on disk yet; whether its answer comes as a stream, and what was set aside
        for it."""
        self.under_way += 1
        self.streams += stream
        self.observer.started(intent.endpoint)
        return Passage(self, intent, stream, charge)

    @property
    def log_problem(self) -> str:
        """Why the log took nothing lately; empty if it did, or if it is time to try again."""
        if self._refused is None or self.clock.now_us() - self._refused[0] > TRY_AGAIN_US:
            return ""
        return self._refused[1]

    async def write(self, entry: Intent | Outcome) -> None:
        """Put an entry on disk, even if the task that waits for it is cancelled meanwhile.

        Raises:
            LogUnavailable: It could not be written.
        """
        try:
            if isinstance(entry, Intent):
                await self._recorder.intent(entry)
            else:
                await self._recorder.outcome(entry)
        except RedactionUnavailable:  # the log is there; this one body can't go into it
            raise
        except LogUnavailable as error:
            self._refused = (self.clock.now_us(), error.problem)
            self.observer.log_refused("intent" if isinstance(entry, Intent) else "outcome")
            raise
        self._refused = None
        if self._owed:
            await self.catch_up()

    def owe(self, outcome: Outcome) -> None:
        """Remember an outcome that the log would not take, for when it does: its intent must not stay open for ever."""
        self._owed.append(outcome)

    async def catch_up(self, rest_us: int = 0) -> None:
        """Write what is owed to the log, unless it refused something less than `rest_us` ago. Raises nothing."""
        if not self._owed or (self._refused is not None and self.clock.now_us() - self._refused[0] < rest_us):
            return
        owed, self._owed = self._owed, []
        await asyncio.shield(self._write_owed(owed))  # whoever is cancelled meanwhile takes nothing with him

    async def _write_owed(self, owed: list[Outcome]) -> None:
        """Write outcomes; those that can't be written are owed on."""
        written = await asyncio.gather(*map(self._write_one, owed), return_exceptions=True)
        for outcome, error in zip(owed, written, strict=True):
            if isinstance(error, LogUnavailable):
                self._refused = (self.clock.now_us(), error.problem)
            if error is not None:
                self._owed.append(outcome)

    async def _write_one(self, outcome: Outcome) -> None:
        await self._recorder.outcome(outcome)


class Passage:
    """The life of one record. `end` may be called again, and from more than one place: the first call counts, and
    after one that the log refused, the `leave` that says what the caller was told instead.

    Attributes:
        intent: What was asked of whom.
        ttft_us: See Outcome.
        tries: See Outcome.
        cache_hit: See Outcome.
    """

    __slots__ = (
        *("_all", "_also", "_charge", "_ended", "_hops", "_intended", "_refused", "_stand_in", "_stream"),
        *("cache_hit", "intent", "tries", "ttft_us"),
    )

    def __init__(self, passages: Passages, intent: Intent, stream: bool, charge: Charge | None) -> None:
        self._all = passages
        self._stream = stream
        self._charge = charge
        self._intended = False
        self._ended = False
        self._stand_in: Target | None = None
        self._also: Charge | None = None
        self._hops: tuple[str, ...] = ()
        self._refused = False
        self.intent = intent
        self.ttft_us: int | None = None
        self.tries = 0
        self.cache_hit = False

    @property
    def version(self) -> str:
        """`model/version`."""
        return f"{self.intent.model}/{self.intent.version}"

    async def open(self) -> None:
        """Put the intent on disk.

        Raises:
            LogUnavailable: It could not be written.
        """
        try:
            await self._all.write(self.intent)
        except asyncio.CancelledError:
            self._intended = True
            raise
        self._intended = True

    async def end(self, kind: OutcomeKind, status: int, reply: Reply, errors: tuple[str, ...] = ()) -> None:
        """Put the outcome on disk, even if the task that asks for it is cancelled meanwhile.

        Args:
            kind: How the request ended.
            status: HTTP status given to the caller.
            reply: What the caller got.
            errors: Reasons, as codes.

        Raises:
            LogUnavailable: It could not be written, so the caller must not hear of it; `leave` says what he is told.
        """
        if self._ended:
            return
        self._ended = True
        outcome = self._outcome(kind, status, reply, errors)
        try:
            if self._intended:
                await self._all.write(outcome)
        except Exception:
            self._refused = True
            raise
        finally:
            if not self._refused:
                self._close(outcome)

    async def leave(self, kind: OutcomeKind, status: int, reply: Reply, errors: tuple[str, ...] = ()) -> None:
        """End for a caller who hears of this in any case: what the log won't take now is written when it does, and
        without its body what it can't hold."""
        try:
            await self.end(kind, status, reply, errors)
        except LogUnavailable as error:
            named = about(self.intent)
            log.error("the outcome of %s is not on disk yet: %s", self.intent.request_id, error, extra=named)
        except Exception as error:
            our_fault(error, about(self.intent))
            reply = replace(reply, body=b"")
        if self._refused:
            self._refused = False
            outcome = self._outcome(kind, status, reply, errors)
            self._all.owe(outcome)
            self._close(outcome)

    def first_content(self) -> None:
        """The first content of a stream is on its way to the caller."""
        if self.ttft_us is None:
            self.ttft_us = max(0, self._all.clock.now_us() - self.intent.received_us)

    def _outcome(self, kind: OutcomeKind, status: int, reply: Reply, errors: tuple[str, ...]) -> Outcome:
        """How the request ends now."""
        now_us = self._all.clock.now_us()
        return Outcome(
            request_id=self.intent.request_id,
            kind=kind,
            status=status,
            finished_us=now_us,
            duration_us=max(0, now_us - self.intent.received_us),
            response=reply.body,
            ttft_us=self.ttft_us,
            input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens,
            errors=(*self._hops, *errors),
            model=self._stand_in.model if self._stand_in else "",
            version=self._stand_in.version if self._stand_in else "",
            tries=self.tries,
            cache_hit=self.cache_hit,
            cost_usd=self._cost(reply),
        )

    def _close(self, outcome: Outcome) -> None:
        self._all.under_way -= 1
        self._all.streams -= self._stream
        self._tell(outcome)

    def falls_back(self, endpoint: str, code: str) -> None:
        """The version of that endpoint could not answer, for the reason of that code, and another is asked."""
        self._hops = (*self._hops, code, f"fallback_from_{endpoint}")

    def stood_in(self, target: Target, endpoint: str, limits: Limits | None, *, counts_tokens: bool) -> None:
        """A version answers that the intent doesn't name.

        Args:
            target: The version.
            endpoint: Whose it is.
            limits: That endpoint's; None if it has none.
            counts_tokens: Whether its answers are made of tokens.
        """
        self._stand_in = target
        if limits is not None:
            price, body = self._all.price(self.intent.endpoint, target.ref), self.intent.request
            self._also = Allowances.of_stand_in(endpoint, limits, body, price, counts_tokens=counts_tokens)

    def may_stand_in(self, endpoint: str, limits: Limits | None) -> bool:
        """Whether an endpoint has anything left to answer with in another's stead; if not, the record says so."""
        if limits is None or not self._all.allowances.spent(endpoint, limits):
            return True
        self._hops = (*self._hops, f"fallback_spent_{endpoint}")
        return False

    def _cost(self, reply: Reply) -> float | None:
        """What the answer cost, US dollars; None if nobody knows."""
        if not self.tries:  # no model had anything to do with it
            return 0.0
        answered = self._stand_in.ref if self._stand_in is not None else self.version
        price = self._all.price(self.intent.endpoint, answered)
        if price is None or price.free:
            return None if price is None else 0.0
        if reply.input_tokens is None and reply.output_tokens is None:
            return None
        return price.cost(reply.input_tokens or 0, reply.output_tokens or 0, reply.cached_tokens)

    def _tell(self, outcome: Outcome) -> None:
        if self._charge is not None:
            self._all.allowances.settle(self._charge, outcome)
        if self._also is not None:
            self._all.allowances.settle(self._also, outcome)
        self._all.observer.finished(self.intent, outcome)


def about(intent: Intent) -> dict[str, str]:
    """What a line of the process's log names, as `extra`, so that the record and the trace are found."""
    return {"request_id": intent.request_id, "trace_id": intent.trace_id}


def our_fault(error: Exception, named: Mapping[str, str]) -> NoriaError:
    """What a caller hears of an error that nobody foresaw; our log hears everything, and whose request it was."""
    log.error("an error that nobody foresaw", exc_info=error, extra=named)
    return NoriaError("Noria met a fault of its own.", "Its log says more; please report it.")
