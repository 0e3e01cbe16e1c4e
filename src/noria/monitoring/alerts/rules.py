"""The project's rules, looked at whenever a window was folded in: also once more, when late records re-open it."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from noria.domain.alert import Alert, AlertState, RuleState, Seen, Severity
from noria.domain.endpoint import Route
from noria.domain.events import WindowClosed, WindowJudged
from noria.domain.monitor import MonitorState
from noria.monitoring.alerts.causes import Causes
from noria.monitoring.alerts.changing import Move, change
from noria.monitoring.alerts.judging import Finding, judge, remember
from noria.monitoring.alerts.measured import Measured, Window
from noria.monitoring.alerts.outbox import Outbox
from noria.ports import Clock, RecordStore, StateStore, Steps
from noria.settings import AlertRule, Endpoint, Project
from noria.settings.alerts import DRIFT_STATISTICS
from noria.settings.monitors import column_of

TRAIL = 48
"""Windows that an alert shows, if its rule looks at fewer."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Judges every rule of an endpoint.

    Attributes:
        state: What the rules saw so far, and the alerts.
        clock: Times.
        records: The tables that hold the statistics.
        project: The project in service.
        causes: Says what a monitor's evidence means.
        outbox: Who has to be told.
    """

    state: StateStore
    clock: Clock
    records: RecordStore
    project: Callable[[], Project]
    causes: Causes
    outbox: Outbox

    def judge(self, event: WindowClosed | WindowJudged, step: Steps) -> None:
        """Look at the window that was folded in; one without data neither fires nor resolves anything."""
        step("judge the rules", self._judge, event)

    def _judge(self, event: WindowClosed | WindowJudged) -> None:
        endpoint, route = self.project().endpoints.get(event.endpoint), self.state.get(Route, event.endpoint)
        rules = dict(endpoint.alerts) if endpoint is not None else {}
        if endpoint is not None and route is not None:
            window = Window(self.records, event.endpoint, event.start, event.end, route.champion.ref)
            for name, rule in rules.items():
                if rule.metric is not None and _looks_at(rule, endpoint, event):
                    self._on_metric(name, rule, window)
                elif rule.monitor is not None and rule.above is not None:
                    self._on_evidence(name, rule, event.endpoint, route.champion.version)
        self._forget(event.endpoint, rules)

    def _on_metric(self, name: str, rule: AlertRule, window: Window) -> None:
        measured = window.value(rule)
        if measured is None:
            return
        seen = self._remember(name, rule, window, Seen(window.start, measured.value, measured.model))
        finding = judge(rule, seen)

        def decide(alert: Alert | None) -> Move | None:
            return self._decide(alert, name, rule, window, measured, finding, seen)

        change(self.state, self.outbox, f"{window.endpoint}:{name}", decide)

    def _remember(self, name: str, rule: AlertRule, window: Window, new: Seen) -> tuple[Seen, ...]:
        """The rule's newest windows with this one; another rule of the same name begins anew."""
        identity, text = f"{window.endpoint}:{name}", _text(rule)
        with self.state.note() as note:
            known = note.get(RuleState, identity)
            before = known.seen if known is not None and known.text == text else ()
            seen = remember(before, new, max(TRAIL, rule.needed[1]))
            if known is None or (known.text, known.seen) != (text, seen):
                note.put(RuleState(id=identity, endpoint=window.endpoint, rule=name, text=text, seen=seen))
        return seen

    def _decide(
        self,
        alert: Alert | None,
        name: str,
        rule: AlertRule,
        window: Window,
        measured: Measured,
        finding: Finding,
        seen: tuple[Seen, ...],
    ) -> Move | None:
        """What becomes of a rule's alert."""
        state = alert.state if alert is not None else AlertState.RESOLVED
        if alert is not None and state is AlertState.FIRING:
            return self._over(alert, rule, finding) if finding.well else None
        if finding.beyond and (finding.fires or state is AlertState.RESOLVED):
            return self._begin(name, rule, window, measured, finding, seen)
        if alert is not None and state is AlertState.PENDING and not finding.beyond:
            why = "it passed before it fired"
            resolved = alert.resolve(self.clock.now(), why)
            return Move(alert=resolved, action="alert.resolved", reason=why, news=False)
        return None

    def _begin(
        self,
        name: str,
        rule: AlertRule,
        window: Window,
        measured: Measured,
        finding: Finding,
        seen: tuple[Seen, ...],
    ) -> Move:
        """The rule's alert, pending or firing."""
        metric, where = rule.metric or "", f", {rule.slice}" if rule.slice else ""
        side, limit = ("above", rule.above) if rule.above is not None else ("below", rule.below)
        of = "" if rule.needed == (1, 1) else f", in {finding.hits} of the last {finding.windows} windows"
        summary = (
            f"{metric} of {window.endpoint}{where} is {measured.value:.4g}, {side} {limit:g}{of}, since"
            f" {finding.since:%-d %B %Y %H:%M} UTC (a plain threshold: it may be chance)."
        )
        alert = Alert(
            id=f"{window.endpoint}:{name}",
            endpoint=window.endpoint,
            monitor=name,
            state=AlertState.FIRING if finding.fires else AlertState.PENDING,
            raised_at=self.clock.now(),
            since=finding.since,
            summary=summary,
            rows=measured.rows,
            severity=Severity(rule.severity.value),
            group=rule.group or "",
            rule=name,
            metric=metric,
            value=measured.value,
            limit=limit,
            slice=rule.slice,
            trail=seen[-TRAIL:],
            trigger=rule.trigger,
        )
        if not finding.fires:
            return Move(alert=alert, action="alert.pending", reason=summary, news=False)
        shown = replace(alert, slices=window.slices(rule), **self._shown(rule, window))
        evidence = {"value": measured.value, "limit": limit, "windows": finding.hits, "of": finding.windows}
        return Move(alert=shown, action="alert.raised", reason=summary, evidence=evidence)

    def _shown(self, rule: AlertRule, window: Window) -> dict[str, Any]:
        """Records that show it, and of what drifted the cells that moved most."""
        column, _, statistic = (rule.metric or "").rpartition(".")
        records = self.causes.showing.examples(
            window.endpoint, window.start, window.end, column_of(column), highest=rule.above is not None
        )
        states = self.state.find(MonitorState, endpoint=window.endpoint) if statistic in DRIFT_STATISTICS else []
        mine = [
            s for s in states if column in (s.monitor, s.column) and window.champion.endswith(f"/{s.model_version}")
        ]
        return {"records": records, "moved": self.causes.moved(mine[0]) if mine else ()}

    def _over(self, alert: Alert, rule: AlertRule, finding: Finding) -> Move:
        limit = rule.clear if rule.clear is not None else rule.above if rule.above is not None else rule.below
        why = f"{rule.metric} is {finding.newest.value:.4g} now, on the right side of {limit:g}."
        return Move(alert=alert.resolve(self.clock.now(), why), action="alert.resolved", reason=why)

    def _on_evidence(self, name: str, rule: AlertRule, endpoint: str, version: str) -> None:
        """Fire once a monitor's odds reach what the rule says; it is over when another version answers."""
        states = self.state.find(MonitorState, endpoint=endpoint)
        state = next((s for s in states if s.monitor == rule.monitor and s.model_version == version), None)
        if state is None or rule.above is None or _odds(state) < rule.above:
            return
        found = self.causes.of_evidence(state)
        alert = replace(
            found, id=f"{endpoint}:{name}:{version}", monitor=name, rule=name, metric=f"{state.monitor} evidence",
            severity=Severity(rule.severity.value), group=rule.group or "", trigger=rule.trigger, limit=rule.above,
        )  # fmt: skip

        def decide(known: Alert | None) -> Move | None:
            if known is not None and known.since >= alert.since:
                return None
            evidence: dict[str, object] = {"log_e": alert.log_e, "rows": alert.rows}
            return Move(alert=alert, action="alert.raised", reason=alert.summary, evidence=evidence)

        change(self.state, self.outbox, alert.id, decide)

    def _forget(self, endpoint: str, rules: dict[str, AlertRule]) -> None:
        """Resolve what rules raised that the project has no more."""
        why = "noria.yaml has no such rule any more."

        def decide(known: Alert | None) -> Move | None:
            if known is None or known.state is AlertState.RESOLVED:
                return None
            resolved = known.resolve(self.clock.now(), why)
            return Move(alert=resolved, action="alert.resolved", reason=why, news=known.fires)

        for alert in self.state.find(Alert, endpoint=endpoint):
            if alert.rule and alert.rule not in rules and alert.state is not AlertState.RESOLVED:
                change(self.state, self.outbox, alert.id, decide)


def _looks_at(rule: AlertRule, endpoint: Endpoint, event: WindowClosed | WindowJudged) -> bool:
    """Whether a window is one of those that a rule is about; where a shorter one had to do, it counts as one."""
    length, usual = event.end - event.start, endpoint.monitors.window
    longer = event.longer if isinstance(event, WindowClosed) else length > usual
    return not longer if rule.window in (None, usual) else longer and length == rule.window


def _odds(state: MonitorState) -> float:
    return math.exp(min(state.log_e, 700.0))


def _text(rule: AlertRule) -> str:
    """What a rule says of windows; other severities, groups and triggers don't make it another rule."""
    return json.dumps(rule.model_dump(mode="json", exclude={"severity", "group", "trigger"}), sort_keys=True)
