"""Alerts: one for each cause, with what changed, since when and how sure; resolved when the cause is gone.

Raising the same cause twice raises one alert. A sequential test's alarm is final, so an alert fires until the version
it is about no longer answers.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from noria.domain.alert import Alert, AlertState
from noria.domain.events import (
    AlertRaised,
    DriftDetected,
    GateFailed,
    QualityDropped,
    RolledBack,
    RunFailed,
    VersionPromoted,
)
from noria.domain.gate import Verdict
from noria.domain.monitor import MonitorKind, MonitorState, Moved
from noria.domain.rollout import Rollout
from noria.domain.run import Run
from noria.ports import Clock, StateStore, Steps

Cause = DriftDetected | QualityDropped | GateFailed | RunFailed | RolledBack

ACTOR = "noria"
GATE, RUN, ROLLOUT = "gate", "run", "rollout"
"""What an alert's `monitor` says where no monitor raised it; the worker adds `registry`, `spool` and the like."""
_CHANGED = {
    MonitorKind.TEXT_DRIFT: "What callers write to {endpoint} has changed",
    MonitorKind.NUMERIC_DRIFT: "The length of what callers write to {endpoint} has changed",
    MonitorKind.CATEGORICAL_DRIFT: "The mix of answers that {endpoint} gives has changed",
    MonitorKind.QUALITY: "{endpoint} is right less often than its model promised: {mean:.0%} instead of at least "
    "{floor:.0%}",
}


@dataclass(frozen=True, slots=True)
class Alerts:
    """Raises and resolves alerts.

    Attributes:
        moved: What changed most in what a monitor saw (`Monitors.moved`).
    """

    state: StateStore
    clock: Clock
    moved: Callable[[MonitorState], tuple[Moved, ...]]

    def raise_alert(self, event: Cause, step: Steps) -> None:
        """Raise the alert that an event asks for; one for the same cause that was raised already stays as it is."""
        step("raise the alert", self._raise_for, event)

    def raise_system(self, endpoint: str, monitor: str, summary: str) -> None:
        """Raise an alert of the system itself (`registry`, `spool`, …); while it fires, only its summary may change."""
        now = self.clock.now()
        known = self.state.get(Alert, f"{endpoint}:{monitor}")
        if known is None or not _fires(known):
            self._fire(_alert(endpoint, monitor, "", now, now, summary))
        elif known.summary != summary:
            self._fire(replace(known, summary=summary), told=True)

    def resolve_system(self, endpoint: str, monitor: str, why: str) -> None:
        """Resolve an alert of the system itself, if it fires."""
        self._resolve([a for a in [self.state.get(Alert, f"{endpoint}:{monitor}")] if a is not None], why)

    def resolve_for(self, event: VersionPromoted, step: Steps) -> None:
        """Resolve what was wrong with the versions that a new champion replaces."""
        step("resolve alerts", self._resolve_for, event)

    def _raise_for(self, event: Cause) -> None:
        match event:
            case DriftDetected() | QualityDropped():
                alert = self._of_monitor(event)
            case GateFailed():
                alert = self._of_gate(event)
            case RunFailed():
                alert = self._of_run(event)
            case RolledBack():
                alert = self._of_rollout(event)
        known = self.state.get(Alert, alert.id)
        if known is None or known.since < alert.since:
            self._fire(alert, evidence={"event": event.id})

    def _of_monitor(self, event: DriftDetected | QualityDropped) -> Alert:
        state = self.state.get(MonitorState, event.state_id)
        assert state is not None, f"{event.state_id} alarmed, so it is in the state"
        changed = _CHANGED[state.kind].format(endpoint=state.endpoint, **state.numbers)
        odds = f"{math.exp(min(state.log_e, 50)):,.0f}{' or more' if state.log_e > 50 else ''}"
        return Alert(
            id=state.id,
            endpoint=state.endpoint,
            monitor=state.monitor,
            state=AlertState.FIRING,
            raised_at=self.clock.now(),
            since=state.since,
            summary=f"{changed} since {_time(state.since)}: evidence {odds} to 1 after {state.rows:,} records.",
            log_e=state.log_e,
            rows=state.rows,
            moved=self.moved(state),
        )

    def _of_gate(self, event: GateFailed) -> Alert:
        verdict = self.state.get(Verdict, event.verdict_id)
        assert verdict is not None, f"{event.verdict_id} was decided, so it is in the state"
        why = "; ".join(reason.rstrip(".") for reason in verdict.reasons) or "no gate could be run"
        summary = f"{verdict.model}/{verdict.version} was refused and gets no traffic: {why}."
        now = self.clock.now()
        return _alert(event.endpoint, GATE, verdict.version, now, verdict.decided_at, summary)

    def _of_run(self, event: RunFailed) -> Alert:
        run = self.state.get(Run, event.run_id)
        assert run is not None, f"{event.run_id} failed, so it is in the state"
        summary = f"A retraining of {event.endpoint} failed: {run.error or 'it left no reason'}"
        return _alert(event.endpoint, RUN, run.id, self.clock.now(), run.started_at, summary)

    def _of_rollout(self, event: RolledBack) -> Alert:
        verdict, rollout = self.state.get(Verdict, event.rollout_id), self.state.get(Rollout, event.rollout_id)
        assert verdict is not None, f"{event.rollout_id} allowed the version, so it is in the state"
        now = self.clock.now()
        since = rollout.started_at if rollout is not None else verdict.decided_at
        summary = f"{verdict.model}/{verdict.version} was taken out of the traffic: {event.reason.rstrip('.')}."
        return _alert(event.endpoint, ROLLOUT, verdict.version, now, since, summary)

    def _fire(self, alert: Alert, *, told: bool = False, evidence: Mapping[str, object] | None = None) -> None:
        """Store a firing alert and, unless people know of it, tell the loop."""
        numbers = {"log_e": alert.log_e, "rows": alert.rows, **(evidence or {})}
        with self.state.change(ACTOR, "alert.raised", alert.id, reason=alert.summary, evidence=numbers) as change:
            change.put(alert)
            if not told:
                change.emit(AlertRaised(endpoint=alert.endpoint, alert_id=alert.id, at=alert.raised_at))

    def _resolve_for(self, event: VersionPromoted) -> None:
        over = [a for a in self.state.find(Alert, endpoint=event.endpoint) if _is_over(a, event.version)]
        self._resolve(over, f"{event.model}/{event.version} is champion now.")

    def _resolve(self, alerts: list[Alert], why: str) -> None:
        for alert in filter(_fires, alerts):
            with self.state.change(ACTOR, "alert.resolved", alert.id, reason=why) as change:
                change.put(alert.resolve(self.clock.now(), why))


def _alert(endpoint: str, monitor: str, about: str, now: datetime, since: datetime, summary: str) -> Alert:
    """An alert that no monitor raised."""
    name = f"{endpoint}:{monitor}:{about}" if about else f"{endpoint}:{monitor}"
    firing = AlertState.FIRING
    return Alert(id=name, endpoint=endpoint, monitor=monitor, state=firing, raised_at=now, since=since, summary=summary)


def _fires(alert: Alert) -> bool:
    return alert.state is AlertState.FIRING


def _is_over(alert: Alert, champion: str) -> bool:
    """Whether a new champion ends what an alert is about.

    A monitor's alert is over when another version answers, a failed run's when any does, a refusal's or a rollback's
    when a later version does: the version that a rollback brings back is the earlier one. A refusal is over, too, when
    the version itself answers, judged once more.
    """
    about = alert.id.rpartition(":")[2]
    match alert.monitor:
        case "gate":
            return champion == about or _later(champion, about)
        case "rollout":
            return _later(champion, about)
        case "run":
            return True
        case _:
            return alert.log_e > 0 and about != champion


def _later(version: str, than: str) -> bool:
    return int(version) > int(than) if version.isdecimal() and than.isdecimal() else version != than


def _time(moment: datetime) -> str:
    return f"{moment:%-d %B %Y %H:%M} UTC"
