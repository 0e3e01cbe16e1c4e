"""What still has to be told to whom: one document for each alert and notifier, so that nothing is told silently amiss.

A delivery says which state of its alert the receiver should know. While they differ it is open: tried, tried again with
growing pauses, never forgotten. An alert that changes before the receiver heard of it is told as it is now.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from noria.domain.alert import Alert, AlertState

FIRST_PAUSE = timedelta(seconds=5)
"""Before a second attempt; each further one waits twice as long."""
LONGEST_PAUSE = timedelta(minutes=10)
GIVE_UP = timedelta(days=7)
"""A receiver that took nothing for so long is not asked again for this alert."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An alert on its way to one receiver.

    Attributes:
        id: `alert → notifier`.
        endpoint: The alert's endpoint.
        alert_id: The alert.
        notifier: Who tells it.
        state: What the receiver should know: the alert fires, or it is resolved.
        at: When the alert came into that state.
        due_at: Not before this.
        batch: Identity of what was or is being sent, for the receiver to tell repeats by; empty until the first try.
        attempts: Tries so far, for this state.
        first_failed_at: When it failed first since the receiver last took anything.
        last_error: Why the last try failed; empty if it did not.
        delivered_at: When the receiver took it; None while it is open.
        closed: Why it was closed without being delivered; empty if it was delivered, or is open.
        alarmed: Whether the receiver may believe that it fires: that was tried to say, and its end was not taken yet.
        times: How often the receiver was told of anything.
    """

    id: str
    endpoint: str
    alert_id: str
    notifier: str
    state: AlertState
    at: datetime
    due_at: datetime
    batch: str = ""
    attempts: int = 0
    first_failed_at: datetime | None = None
    last_error: str = ""
    delivered_at: datetime | None = None
    closed: str = ""
    alarmed: bool = False
    times: int = 0

    @property
    def open(self) -> bool:
        """Whether the receiver still has to be told."""
        return self.delivered_at is None and not self.closed

    def owing(self, alert: Alert, due_at: datetime) -> "Delivery":
        """The delivery of another state of the alert; since when the receiver is deaf stays known."""
        failing = self.open and self.first_failed_at is not None
        return replace(
            self,
            state=alert.state,
            at=alert.changed_at,
            due_at=due_at,
            batch="",
            attempts=0,
            first_failed_at=self.first_failed_at if failing else None,
            last_error=self.last_error if failing else "",
            delivered_at=None,
            closed="",
        )

    def claimed(self, batch: str, now: datetime) -> "Delivery":
        """About to be tried; if the process dies over it, it is tried again after the pause."""
        attempts = self.attempts + 1
        alarmed = self.alarmed or self.state is AlertState.FIRING
        return replace(self, batch=batch, attempts=attempts, due_at=now + pause(attempts), alarmed=alarmed)

    def held(self) -> "Delivery":
        """Silenced after it was tried: it begins anew when it may be told again."""
        return replace(self, batch="", attempts=0, first_failed_at=None, last_error="")

    def failed(self, why: str, now: datetime) -> "Delivery":
        """Tried in vain."""
        return replace(self, last_error=why, first_failed_at=self.first_failed_at or now)

    def done(self, now: datetime) -> "Delivery":
        """Taken by the receiver."""
        return replace(self.heard(self.state), delivered_at=now, last_error="", first_failed_at=None)

    def heard(self, state: AlertState) -> "Delivery":
        """The receiver took that the alert is in that state, which may be another one by now."""
        return replace(self, alarmed=state is AlertState.FIRING, times=self.times + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """Ids of all deliveries that are open; there is one such list."""

    id: str = "outgoing"
    open: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What a notifier tells: one or more alerts of one group, which all fire or are all resolved.

    Attributes:
        id: The same whenever the same is told again, so that a receiver can leave repeats out.
        alerts: At least one.
        next: Alert's id → what happens next, in words.
        pictures: Alert's id → a chart of what moved, as a Vega-Lite specification.
    """

    id: str
    alerts: tuple[Alert, ...]
    next: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def state(self) -> AlertState:
        """Firing or resolved, as all its alerts are."""
        return self.alerts[0].state


def pause(attempts: int) -> timedelta:
    """How long to wait after so many attempts."""
    return min(FIRST_PAUSE * (1 << min(max(attempts - 1, 0), 20)), LONGEST_PAUSE)


def batch_id(deliveries: "list[Delivery]") -> str:
    """Identity of what is told when these are told together."""
    parts = sorted(f"{d.id} {d.state.value} {d.at.isoformat()} {d.times}" for d in deliveries)
    return sha256("\n".join(parts).encode()).hexdigest()[:32]
