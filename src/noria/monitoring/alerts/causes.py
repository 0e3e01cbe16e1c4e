"""From what happened to the alert that says so: an alarm, a refusal, a failed run, a rollback."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from noria.domain.alert import Alert, AlertState, Example, Severity
from noria.domain.events import DriftDetected, GateFailed, QualityDropped, RolledBack, RunFailed
from noria.domain.gate import Verdict
from noria.domain.monitor import MonitorKind, MonitorState, Moved
from noria.domain.rollout import Rollout
from noria.domain.run import Run
from noria.monitoring.alerts.evidence import Showing
from noria.ports import Clock, StateStore
from noria.settings import AlertRule
from noria.settings.monitors import retrains

Cause = DriftDetected | QualityDropped | GateFailed | RunFailed | RolledBack

GATE, RUN, ROLLOUT = "gate", "run", "rollout"
"""What an alert's `monitor` says where no monitor raised it; the worker adds `registry`, `spool` and the like."""
_CHANGED = {
    MonitorKind.TEXT_DRIFT: "What callers write to {endpoint} has changed",
    MonitorKind.NUMERIC_DRIFT: "The length of what callers write to {endpoint} has changed",
    MonitorKind.CATEGORICAL_DRIFT: "The mix of answers that {endpoint} gives has changed",
    MonitorKind.QUALITY: "{endpoint} is right less often than its model promised: {mean:.0%} instead of at least "
    "{floor:.0%}",
}
_A_DAY = timedelta(days=1)
_NAMED = {"text", "length", "prediction", "quality"}
"""Monitors that those sentences were written for."""


@dataclass(frozen=True, slots=True)
class Causes:
    """Makes alerts of events.

    Attributes:
        state: Monitors, verdicts, runs, rollouts.
        clock: Times.
        moved: What changed most in what a monitor saw (`Monitors.moved`).
        showing: Which slices and records show it.
        rules: Endpoint → its rules.
    """

    state: StateStore
    clock: Clock
    moved: Callable[[MonitorState], tuple[Moved, ...]]
    showing: Showing
    rules: Callable[[str], Mapping[str, AlertRule]]

    def alert(self, event: Cause) -> Alert:
        """The alert that an event asks for."""
        match event:
            case DriftDetected() | QualityDropped():
                return self._of_monitor(event)
            case GateFailed():
                return self._of_gate(event)
            case RunFailed():
                return self._of_run(event)
            case RolledBack():
                return self._of_rollout(event)

    def of_evidence(self, state: MonitorState) -> Alert:
        """The alert of a monitor's evidence as it is now."""
        alert = Alert(
            id=state.id,
            endpoint=state.endpoint,
            monitor=state.monitor,
            state=AlertState.FIRING,
            raised_at=self.clock.now(),
            since=state.since,
            summary="",
            log_e=state.log_e,
            rows=state.rows,
            moved=self.moved(state),
            slices=self.showing.slices(state),
            records=self._records(state),
            severity=Severity.CRITICAL,
            trigger=retrains(state.monitor),
        )
        told = f"{_changed(state)} since {_time(state.since)}: {alert.how_sure} after {state.rows:,} records."
        return _as_said(alert, told, self._rule(state))

    def _records(self, state: MonitorState) -> tuple[Example, ...]:
        """Records that show what a promise was broken by; what drifted shows in what moved."""
        if state.kind is not MonitorKind.SCORE:
            return ()
        since = max(state.since, state.folded_until - _A_DAY)
        return self.showing.examples(state.endpoint, since, state.folded_until, state.column, highest=True)

    def _of_monitor(self, event: DriftDetected | QualityDropped) -> Alert:
        state = self.state.get(MonitorState, event.state_id)
        assert state is not None, f"{event.state_id} alarmed, so it is in the state"
        return self.of_evidence(state)

    def _rule(self, state: MonitorState) -> AlertRule | None:
        """What the project says of the monitor's own alarm."""
        rules = self.rules(state.endpoint).values()
        return next((r for r in rules if r.monitor == state.monitor and r.above is None), None)

    def _of_gate(self, event: GateFailed) -> Alert:
        verdict = self.state.get(Verdict, event.verdict_id)
        assert verdict is not None, f"{event.verdict_id} was decided, so it is in the state"
        why = "; ".join(reason.rstrip(".") for reason in verdict.reasons) or "no gate could be run"
        summary = f"{verdict.ref} was refused and gets no traffic: {why}."
        return event_alert(event.endpoint, GATE, verdict.version, self.clock.now(), verdict.decided_at, summary)

    def _of_run(self, event: RunFailed) -> Alert:
        run = self.state.get(Run, event.run_id)
        assert run is not None, f"{event.run_id} failed, so it is in the state"
        summary = f"A retraining of {event.endpoint} failed: {run.error or 'it left no reason'}"
        return event_alert(event.endpoint, RUN, run.id, self.clock.now(), run.started_at, summary)

    def _of_rollout(self, event: RolledBack) -> Alert:
        verdict, rollout = self.state.get(Verdict, event.rollout_id), self.state.get(Rollout, event.rollout_id)
        assert verdict is not None, f"{event.rollout_id} allowed the version, so it is in the state"
        since = rollout.started_at if rollout is not None else verdict.decided_at
        summary = f"{verdict.ref} was taken out of the traffic: {event.reason.rstrip('.')}."
        now, grave = self.clock.now(), Severity.CRITICAL
        return event_alert(event.endpoint, ROLLOUT, verdict.version, now, since, summary, grave)


def event_alert(
    endpoint: str,
    monitor: str,
    about: str,
    now: datetime,
    since: datetime,
    summary: str,
    severity: Severity = Severity.WARNING,
) -> Alert:
    """A firing alert that no monitor raised."""
    return Alert(
        id=f"{endpoint}:{monitor}:{about}" if about else f"{endpoint}:{monitor}",
        endpoint=endpoint,
        monitor=monitor,
        state=AlertState.FIRING,
        raised_at=now,
        since=since,
        summary=summary,
        severity=severity,
        trigger=False,
    )


def is_over(alert: Alert, champion: str) -> bool:
    """Whether a new champion ends what an alert is about.

    A monitor's alert is over when another version answers, a failed run's when any does, a refusal's or a rollback's
    when a later version does: the version that a rollback brings back is the earlier one. A refusal is over, too, when
    the version itself answers, judged once more. A plain threshold's is over when its windows say so.
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


def _changed(state: MonitorState) -> str:
    """What has changed, in words."""
    if state.monitor not in _NAMED or state.kind not in _CHANGED:
        if "floor" in state.numbers:
            mean, floor = state.numbers["mean"], state.numbers["floor"]
            worse = f"{state.monitor} of {state.endpoint} is worse than was promised"
            return f"{worse}: {mean:.2%} instead of at most {floor:.2%},"
        return f"The distribution of {state.monitor} at {state.endpoint} has changed"
    numbers = {"mean": float("nan"), "floor": float("nan"), **state.numbers}
    return _CHANGED[state.kind].format(endpoint=state.endpoint, **numbers)


def _as_said(alert: Alert, summary: str, rule: AlertRule | None) -> Alert:
    said = replace(alert, summary=summary)
    if rule is None:
        return said
    severity = Severity(rule.severity.value)
    return replace(said, severity=severity, group=rule.group or "", trigger=rule.trigger)


def _later(version: str, than: str) -> bool:
    return int(version) > int(than) if version.isdecimal() and than.isdecimal() else version != than


def _time(moment: datetime) -> str:
    return f"{moment:%-d %B %Y %H:%M} UTC"
