"""What sets off a run, and what keeps one from being set off.

An alarm, a schedule, enough labels or a person ask for a run; this grants it, puts it off or declines it, and says why
in the audit log. One run at a time for each endpoint. What nobody asked for also keeps a distance (`cooldown`); an
alert that comes too early is put off, not forgotten.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from threading import Lock
from typing import Any

from croniter import croniter

from noria.domain.alert import Alert, AlertState, Severity
from noria.domain.audit import LOOP
from noria.domain.errors import InvalidProject
from noria.domain.events import (
    AlertRaised,
    BaseModelChanged,
    Event,
    FeedbackArrived,
    LabelsArrived,
    RetrainRequested,
    RunStarted,
    ScheduleDue,
)
from noria.domain.run import Run, RunState, Trigger, TriggerCursor, TriggerKind
from noria.ports import Clock, RecordStore, StateStore, Steps
from noria.settings import Project, Training
from noria.training.allowing import Decision, hindrance
from noria.training.sources import count_labels, count_statements

Wish = AlertRaised | ScheduleDue | LabelsArrived | FeedbackArrived | BaseModelChanged | RetrainRequested
"""Events that ask for a run."""
Count = Callable[[RecordStore, str], int]


@dataclass(frozen=True, slots=True)
class Triggers:
    """Decides which wishes become runs.

    Attributes:
        state: Runs, alerts, cursors.
        records: For counting labels.
        clock: Times.
        project: The project in service.
    """

    state: StateStore
    records: RecordStore
    clock: Clock
    project: Callable[[], Project]
    base: Callable[[Training], str] = lambda _: ""
    """What the model that training starts from is at the moment, in a few characters; empty if it starts from none."""
    _counted: dict[tuple[str, Count], tuple[int, int]] = field(default_factory=dict)
    """Endpoint and what is counted → version of the feedback table and the count, so that idle tables aren't read."""
    _turn: Lock = field(default_factory=Lock)
    """Wishes are weighed one at a time, or two of them would be granted at once."""

    def consider(self, event: Wish, step: Steps) -> None:
        """Grant a run, put it off, or decline it, once for each event."""
        step("decide", self._in_turn, event)

    def due(self, now: datetime) -> None:
        """Tell the loop of schedules that came round and labels that came in; grant what was put off."""
        for name, endpoint in self.project().endpoints.items():
            if endpoint.training is not None:
                with self._turn:
                    cursor = self.state.get(TriggerCursor, name) or TriggerCursor(endpoint=name)
                    self._postponed(cursor, endpoint.training)
                    self._labels(cursor, endpoint.training)
                    self._feedback(cursor, endpoint.training)
                    self._base(cursor, endpoint.training)
                    self._schedule(cursor, endpoint.training, now)
                    self._interval(cursor, endpoint.training, now)

    def _in_turn(self, event: Wish) -> str:
        with self._turn:
            return self._decide(event)

    def _decide(self, event: Wish) -> str:
        """The id of the run that was granted, or why none was."""
        run_id = run_id_of(event)
        if self.state.get(Run, run_id) is not None:
            return run_id
        kind, reason, actor = self._describe(event)
        decision = self._may(event, kind)
        if decision is None:
            return "an alert of the system itself asks for no run"
        if not decision.hindrance:
            self._grant(event.endpoint, Trigger(kind=kind, cause=event.id, actor=actor, reason=reason), run_id)
            return run_id
        self._refuse(event, decision, actor, reason)
        return decision.hindrance

    def _describe(self, event: Wish) -> tuple[TriggerKind, str, str]:
        """Kind, reason and actor of a wish."""
        if isinstance(event, RetrainRequested):
            kind = TriggerKind.BOOTSTRAP if event.actor == LOOP else TriggerKind.PERSON
            return kind, event.reason, event.actor
        if isinstance(event, ScheduleDue):
            return TriggerKind.SCHEDULE, f"the schedule came round at {event.at:%Y-%m-%d %H:%M} UTC", LOOP
        if isinstance(event, LabelsArrived):
            return TriggerKind.LABELS, f"there are {event.total} labels now", LOOP
        if isinstance(event, FeedbackArrived):
            return TriggerKind.FEEDBACK, f"{event.total} statements about answers are there now", LOOP
        if isinstance(event, BaseModelChanged):
            return TriggerKind.BASE_MODEL, "the model that training starts from is another one", LOOP
        alert = self.state.get(Alert, event.alert_id)
        return TriggerKind.ALERT, alert.summary if alert is not None else f"alert {event.alert_id}", LOOP

    def _may(self, event: Wish, kind: TriggerKind) -> Decision | None:
        """Whether the wish can be granted now; None if it is none."""
        endpoint = self.project().endpoints.get(event.endpoint)
        training = endpoint.training if endpoint is not None else None
        if isinstance(event, AlertRaised):
            alert = self.state.get(Alert, event.alert_id)
            if alert is None or not alert.asks_for_run:
                return None
            if training is not None and (why := _unheard(alert, training)):
                return Decision(why)
        if training is None:
            return Decision(f"{event.endpoint} has no training in noria.yaml")
        return self._hindrance(event.endpoint, training, kind)

    def _hindrance(self, endpoint: str, training: Training, kind: TriggerKind) -> Decision:
        return hindrance(self.state, endpoint, training, kind, self.clock.now())

    def _grant(self, endpoint: str, trigger: Trigger, run_id: str) -> None:
        """Start the run; labels are counted anew from here."""
        labels = count_labels(self.records, endpoint)
        with self.state.change(
            trigger.actor,
            "run.started",
            run_id,
            reason=trigger.reason,
            evidence={"endpoint": endpoint, "kind": trigger.kind.value, "cause": trigger.cause, "labels": labels},
        ) as change:
            change.put(
                Run(
                    id=run_id,
                    endpoint=endpoint,
                    trigger=trigger,
                    state=RunState.RUNNING,
                    started_at=self.clock.now(),
                    model=self.project().model_name(endpoint),
                )
            )
            cursor = change.get(TriggerCursor, endpoint) or TriggerCursor(endpoint=endpoint)
            said = None if cursor.feedback is None else self._total(count_statements, endpoint)
            change.put(replace(cursor, labels=labels, feedback=said, postponed=""))
            change.emit(RunStarted(endpoint=endpoint, run_id=run_id))

    def _refuse(self, event: Wish, decision: Decision, actor: str, reason: str) -> None:
        """Write down that there is no run, and why; an alert that only came too early waits for its turn."""
        before = self.state.get(TriggerCursor, event.endpoint)
        if before is not None and before.declined == event.id:
            return
        waits = isinstance(event, AlertRaised) and decision.wait
        with self.state.change(
            actor,
            "run.postponed" if waits else "run.declined",
            event.endpoint,
            reason=decision.hindrance,
            evidence={"cause": event.id, "wish": reason},
        ) as change:
            cursor = before or TriggerCursor(endpoint=event.endpoint)
            postponed = event.alert_id if isinstance(event, AlertRaised) and waits else cursor.postponed
            change.put(replace(cursor, declined=event.id, postponed=postponed, why=decision.hindrance))

    def _postponed(self, cursor: TriggerCursor, training: Training) -> None:
        """Grant what was put off as soon as nothing stands against it, if its alert still fires."""
        if not cursor.postponed:
            return
        alert = self.state.get(Alert, cursor.postponed)
        if alert is None or alert.state is not AlertState.FIRING or not training.on_alert:
            self._move(cursor.endpoint, postponed="")
        elif self._free(cursor, training, TriggerKind.ALERT):
            event = AlertRaised(endpoint=cursor.endpoint, alert_id=alert.id, at=alert.raised_at)
            trigger = Trigger(kind=TriggerKind.ALERT, cause=event.id, actor=LOOP, reason=alert.summary)
            self._grant(cursor.endpoint, trigger, run_id_of(event))

    def _labels(self, cursor: TriggerCursor, training: Training) -> None:
        """Tell the loop when enough labels came in, at a moment when a run could be granted."""
        if training.on_labels is None:
            return
        total = self._total(count_labels, cursor.endpoint)
        if cursor.labels is None:
            self._move(cursor.endpoint, labels=total)
        elif total - cursor.labels >= training.on_labels and self._free(cursor, training, TriggerKind.LABELS):
            self._move(cursor.endpoint, LabelsArrived(endpoint=cursor.endpoint, total=total), labels=total)

    def _feedback(self, cursor: TriggerCursor, training: Training) -> None:
        """Tell the loop when enough was said of answers, at a moment when a run could be granted."""
        if training.on_feedback is None:
            return
        total = self._total(count_statements, cursor.endpoint)
        if cursor.feedback is None:
            self._move(cursor.endpoint, feedback=total)
        elif total - cursor.feedback >= training.on_feedback and self._free(cursor, training, TriggerKind.FEEDBACK):
            self._move(cursor.endpoint, FeedbackArrived(endpoint=cursor.endpoint, total=total), feedback=total)

    def _base(self, cursor: TriggerCursor, training: Training) -> None:
        """Tell the loop when the model that training starts from is another one."""
        if not training.on_base_model or not (base := self.base(training)):
            return
        if not cursor.base:
            self._move(cursor.endpoint, base=base)
        elif base != cursor.base and self._free(cursor, training, TriggerKind.BASE_MODEL):
            self._move(cursor.endpoint, BaseModelChanged(endpoint=cursor.endpoint, base=base), base=base)

    def _interval(self, cursor: TriggerCursor, training: Training, now: datetime) -> None:
        """Tell the loop when the last run began long enough ago; before the first one nothing is due."""
        if training.every is None:
            return
        newest = next(iter(self.state.find(Run, endpoint=cursor.endpoint, limit=1)), None)
        if newest is None or now - newest.started_at < training.every:
            return
        if self._free(cursor, training, TriggerKind.SCHEDULE):
            due = newest.started_at + training.every
            self._move(cursor.endpoint, ScheduleDue(endpoint=cursor.endpoint, at=due))

    def _free(self, cursor: TriggerCursor, training: Training, kind: TriggerKind) -> bool:
        return not self._hindrance(cursor.endpoint, training, kind).hindrance

    def _total(self, count: Count, endpoint: str) -> int:
        """What there is of an endpoint's feedback, counted anew only if the table has changed."""
        version = self.records.snapshot("feedback")
        known, total = self._counted.get((endpoint, count), (-2, 0))
        if known != version:
            total = count(self.records, endpoint)
            self._counted[endpoint, count] = (version, total)
        return total

    def would(self, endpoint: str) -> Decision:
        """What would become of a person's wish now."""
        known = self.project().endpoints.get(endpoint)
        if known is None or known.training is None:
            return Decision(f"{endpoint} has no training in noria.yaml")
        return self._hindrance(endpoint, known.training, TriggerKind.PERSON)

    def _schedule(self, cursor: TriggerCursor, training: Training, now: datetime) -> None:
        """Tell the loop of the newest time of the schedule that has passed; earlier ones that were missed are one."""
        if training.schedule is None:
            return
        if cursor.scheduled is None:
            self._move(cursor.endpoint, scheduled=now)
        elif (last := last_time(training.schedule, now)) > cursor.scheduled:
            self._move(cursor.endpoint, ScheduleDue(endpoint=cursor.endpoint, at=last), scheduled=last)

    def _move(self, endpoint: str, event: Event | None = None, **fields: Any) -> None:
        """Move the endpoint's cursor, and tell the loop why."""
        with self.state.note() as note:
            cursor = note.get(TriggerCursor, endpoint) or TriggerCursor(endpoint=endpoint)
            note.put(replace(cursor, **fields))
            if event is not None:
                note.emit(event)


def _unheard(alert: Alert, training: Training) -> str:
    """Why an alert starts no run of this endpoint; empty if it may."""
    if not training.on_alert:
        return "training.on_alert is off"
    if training.alert_monitors and alert.monitor not in training.alert_monitors:
        return f"training.alert_monitors doesn't name {alert.monitor}"
    if alert.severity.rank < Severity(training.alert_severity.value).rank:
        return f"the alert is {alert.severity.value}; training.alert_severity asks for {training.alert_severity.value}"
    return ""


def run_id_of(event: Wish) -> str:
    """The run that an event would start: the same event never starts two."""
    return f"{event.endpoint}-{sha256(event.id.encode()).hexdigest()[:10]}"


def last_time(schedule: str, now: datetime) -> datetime:
    """The newest time of a cron expression (UTC) that isn't after now.

    Raises:
        InvalidProject: It isn't a cron expression.
    """
    if not croniter.is_valid(schedule):
        raise InvalidProject(
            f"{schedule!r} is not a cron expression.", "Write training.schedule like 0 3 * * 1 (Mondays at 3:00 UTC)."
        )
    time: datetime = croniter(schedule, now + timedelta(microseconds=1)).get_prev(datetime)
    return time
