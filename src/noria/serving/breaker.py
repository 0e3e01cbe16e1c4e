"""Circuit breakers: a version that keeps failing is left alone for a while, then one request finds out how it is.

Closed: everybody is let through. After `failures` in a row it is open, and nobody is. After `open_s` it is half-open:
one request, the probe, is let through, which closes it if it is answered and opens it again if not. Any other answer
closes it too, also one to a request that was under way when it opened; a failure of such a request says nothing new and
isn't counted.

There is one for each version at its address, in the memory of one API process; none for a version that never failed.
"""

import math
from collections.abc import Callable, Mapping
from enum import StrEnum

from noria.domain.errors import CircuitOpen

REMEMBERED = 256
"""Versions that failed once and are remembered, before those that are out of service are forgotten."""
_SOON_S = 1.0
"""When to come back while a probe is under way, seconds."""


class BreakerState(StrEnum):
    """Who is let through: all, none, one."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """One version's breaker. Times are seconds of any one clock.

    A request that is let through holds a ticket, and whoever holds one gives it back exactly once, by `failed` or
    `left`, or by `worked`, which needs none.
    """

    __slots__ = ("_failures", "_generation", "_open_until", "_probing")

    def __init__(self) -> None:
        self._failures = 0
        self._generation = 0
        self._open_until: float | None = None
        self._probing = False

    def state(self, now: float) -> BreakerState:
        """How it stands."""
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._open_until else BreakerState.HALF_OPEN

    def enter(self, now: float) -> int | None:
        """A ticket for one request; None if it may not go."""
        if self._open_until is not None:
            if now < self._open_until or self._probing:
                return None
            self._probing = True
        return self._generation

    def opens_in(self, now: float) -> float:
        """Seconds until it is worth while to come back."""
        return _SOON_S if self._open_until is None else max(self._open_until - now, _SOON_S)

    def worked(self) -> None:
        """It answered."""
        if self._open_until is not None:
            self._generation += 1  # what was let through before has nothing more to say
        self._failures, self._open_until, self._probing = 0, None, False

    def failed(self, ticket: int, now: float, failures: int, open_s: float) -> None:
        """It failed a request.

        Args:
            ticket: The request's.
            now: When.
            failures: Failures in a row that open it.
            open_s: How long it stays open, seconds.
        """
        if ticket != self._generation:
            return
        self._failures += 1
        if self._probing or self._failures >= failures:
            self._generation += 1
            self._open_until, self._probing = now + open_s, False

    def left(self, ticket: int) -> None:
        """A request ended without saying anything about it: its caller went away."""
        if ticket == self._generation:
            self._probing = False


class Breakers:
    """The breakers of all versions that failed lately.

    Args:
        in_service: The versions that may be asked, `model/version`; all others may be forgotten.
    """

    def __init__(self, in_service: Callable[[], frozenset[str]]) -> None:
        self._in_service = in_service
        self._held: dict[str, tuple[str, Breaker]] = {}

    def enter(self, ref: str, url: str, now: float) -> int:
        """A ticket for a request to a version at an address.

        Raises:
            CircuitOpen: It may not go; says when to come back.
        """
        held = self._held.get(ref)
        if held is None or held[0] != url:
            return 0
        ticket = held[1].enter(now)
        if ticket is None:
            wait_s = math.ceil(held[1].opens_in(now))
            raise CircuitOpen(
                f"{ref} failed again and again and is left alone for the moment.",
                f"Come back in {wait_s} s; noria status shows how it is.",
                retry_after_s=wait_s,
            )
        return ticket

    def is_open(self, ref: str, now: float) -> bool:
        """Whether nobody is let through to the version at that time, as things are."""
        held = self._held.get(ref)
        return held is not None and held[1].state(now) is BreakerState.OPEN

    def worked(self, ref: str) -> None:
        """The version answered."""
        held = self._held.get(ref)
        if held is not None:
            held[1].worked()

    def began(self, ref: str, now: float) -> None:
        """The version began a stream: one that was given up works again, for the rest it counts how the stream ends."""
        held = self._held.get(ref)
        if held is not None and held[1].state(now) is not BreakerState.CLOSED:
            held[1].worked()

    def failed(self, ref: str, url: str, ticket: int, now: float, failures: int, open_s: float) -> None:
        """The version failed a request; see `Breaker.failed`."""
        held = self._held.get(ref)
        if held is None or held[0] != url:
            self._make_room()
            held = self._held[ref] = (url, Breaker())
        held[1].failed(ticket, now, failures, open_s)

    def left(self, ref: str, ticket: int) -> None:
        """A request to the version ended without saying anything about it."""
        held = self._held.get(ref)
        if held is not None:
            held[1].left(ticket)

    def states(self, now: float) -> Mapping[str, BreakerState]:
        """`model/version` → state, of all in service and of all that are remembered."""
        closed = dict.fromkeys(sorted(self._in_service()), BreakerState.CLOSED)
        return closed | {ref: breaker.state(now) for ref, (_, breaker) in list(self._held.items())}

    def _make_room(self) -> None:
        if len(self._held) >= REMEMBERED:
            known = self._in_service()
            self._held = {ref: held for ref, held in self._held.items() if ref in known}
