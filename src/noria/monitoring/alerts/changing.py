"""The one way in which an alert changes: read, decide, and write with its audit event and what is owed to whom.

Several processes change alerts (the worker, a person at the command line); what was decided on a state that somebody
changed meanwhile is decided anew.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from noria.domain.alert import Alert, AlertState
from noria.domain.audit import LOOP
from noria.domain.events import AlertRaised
from noria.monitoring.alerts.outbox import Outbox
from noria.ports import StateStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What becomes of an alert.

    Attributes:
        alert: As it is from now on.
        action: For the audit trail: `alert.raised`, `alert.resolved`, `alert.pending`, `alert.acknowledged`, ….
        reason: Why, for the audit trail.
        evidence: Numbers for the audit trail.
        actor: Who.
        news: Whether the loop and people are told.
    """

    alert: Alert
    action: str
    reason: str
    evidence: Mapping[str, object] = field(default_factory=dict)
    actor: str = LOOP
    news: bool = True


Decide = Callable[[Alert | None], Move | None]
"""The alert as it is, None if there is none → what becomes of it; None to leave it as it is."""


class _Meanwhile(Exception):
    """Somebody else changed the alert."""


def change(state: StateStore, outbox: Outbox, alert_id: str, decide: Decide) -> Alert | None:
    """Change an alert as decided; the alert as it is then."""
    while True:
        seen = state.get(Alert, alert_id)
        move = decide(seen)
        if move is None:
            return seen
        try:
            _write(state, outbox, seen, move)
        except _Meanwhile:
            continue
        return move.alert


def _write(state: StateStore, outbox: Outbox, seen: Alert | None, move: Move) -> None:
    alert = move.alert
    with state.change(move.actor, move.action, alert.id, reason=move.reason, evidence=move.evidence) as writing:
        if writing.get(Alert, alert.id) != seen:
            raise _Meanwhile
        writing.put(alert)
        if move.news and alert.state is not AlertState.PENDING:
            outbox.owe(writing, alert)
        if move.news and alert.fires:
            writing.emit(AlertRaised(endpoint=alert.endpoint, alert_id=alert.id, at=alert.raised_at))
