"""An alert: one thing that is wrong with one endpoint, from the moment it fires until it is resolved."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from noria.domain.monitor import Moved


class AlertState(StrEnum):
    """Firing until its cause is gone. (A sequential test needs no pending state: its alarm is final.)"""

    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something is wrong, since when, how sure we are, and what moved.

    Attributes:
        id: `endpoint:monitor:model version`, so that the same cause raises one alert.
        endpoint: Endpoint concerned.
        monitor: Monitor that raised it, or `gate`, `registry`, `spool` for an alert of the system itself.
        state: Firing or resolved.
        raised_at: When it fired.
        since: Start of the evidence it rests on.
        summary: One sentence for a person.
        log_e: Natural logarithm of the evidence; 0 for an alert of the system itself.
        rows: Records that the evidence rests on.
        moved: What changed most, with redacted examples.
        resolved_at: When it ended.
        resolution: Why it ended.
    """

    id: str
    endpoint: str
    monitor: str
    state: AlertState
    raised_at: datetime
    since: datetime
    summary: str
    log_e: float = 0.0
    rows: int = 0
    moved: tuple[Moved, ...] = ()
    resolved_at: datetime | None = None
    resolution: str = ""

    def resolve(self, at: datetime, why: str) -> "Alert":
        """The same alert, ended."""
        return replace(self, state=AlertState.RESOLVED, resolved_at=at, resolution=why)
