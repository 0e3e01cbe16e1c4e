"""Alerts: one for each cause, with what changed, since when and how sure; resolved when the cause is gone.

Raising the same cause twice raises one alert. A sequential test's alarm is final, so its alert fires until the version
it is about no longer answers.
"""

from dataclasses import dataclass, replace

from noria.domain.alert import Alert, Severity
from noria.domain.events import VersionPromoted
from noria.monitoring.alerts.causes import Cause, Causes, event_alert, is_over
from noria.monitoring.alerts.changing import Move, change
from noria.monitoring.alerts.outbox import Outbox
from noria.ports import Clock, StateStore, Steps


@dataclass(frozen=True, slots=True)
class Alerts:
    """Raises and resolves alerts.

    Attributes:
        state: Where they are.
        clock: Times.
        causes: Makes alerts of events.
        outbox: Who has to be told.
    """

    state: StateStore
    clock: Clock
    causes: Causes
    outbox: Outbox

    def raise_alert(self, event: Cause, step: Steps) -> None:
        """Raise the alert that an event asks for; one for the same cause that was raised already stays as it is."""
        step("raise the alert", self._raise_for, event)

    def raise_system(self, endpoint: str, monitor: str, summary: str, severity: Severity = Severity.CRITICAL) -> None:
        """Raise an alert of the system itself (`registry`, `spool`, …); while it fires, only its summary may change."""
        now = self.clock.now()
        alert = event_alert(endpoint, monitor, "", now, now, summary, severity)

        def decide(known: Alert | None) -> Move | None:
            if known is None or not known.fires:
                return _raised(alert)
            if known.summary == summary:
                return None
            return replace(_raised(replace(known, summary=summary)), news=False)

        change(self.state, self.outbox, alert.id, decide)

    def resolve_system(self, endpoint: str, monitor: str, why: str) -> None:
        """Resolve an alert of the system itself, if it fires."""
        self._resolve(f"{endpoint}:{monitor}", why)

    def resolve_for(self, event: VersionPromoted, step: Steps) -> None:
        """Resolve what was wrong with the versions that a new champion replaces."""
        step("resolve alerts", self._resolve_for, event)

    def _raise_for(self, event: Cause) -> None:
        alert = self.causes.alert(event)

        def decide(known: Alert | None) -> Move | None:
            if known is None or known.since < alert.since:
                return _raised(alert, event.id)
            return None

        change(self.state, self.outbox, alert.id, decide)

    def _resolve_for(self, event: VersionPromoted) -> None:
        for alert in self.state.find(Alert, endpoint=event.endpoint):
            if alert.fires and is_over(alert, event.version):
                self._resolve(alert.id, f"{event.model}/{event.version} is champion now.")

    def _resolve(self, alert_id: str, why: str) -> None:
        def decide(known: Alert | None) -> Move | None:
            if known is None or not known.fires:
                return None
            return Move(alert=known.resolve(self.clock.now(), why), action="alert.resolved", reason=why)

        change(self.state, self.outbox, alert_id, decide)


def _raised(alert: Alert, event: str = "") -> Move:
    evidence: dict[str, object] = {"log_e": alert.log_e, "rows": alert.rows, **({"event": event} if event else {})}
    return Move(alert=alert, action="alert.raised", reason=alert.summary, evidence=evidence)
