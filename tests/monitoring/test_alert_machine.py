"""In whatever order things happen (windows late and twice, silences, deafness, crashes), what is promised holds."""

import math
from collections import defaultdict
from contextlib import suppress
from datetime import timedelta

import pyarrow as pa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fakes.notifier import Dies, FakeNotifier
from fakes.outbox import at_once as at_once_told
from fakes.outbox import outbox, showing
from fakes.records import MemoryRecords
from fakes.state import FakeState
from fakes.traffic import BEGIN, HOUR, Clock, at_once, route
from noria.domain.alert import Alert, AlertState, Silence, silenced
from noria.domain.audit import broken_at
from noria.domain.delivery import Delivery, Outgoing
from noria.domain.errors import Conflict, UnknownAlert
from noria.domain.events import AlertRaised, WindowClosed
from noria.monitoring.alerts import Alerts, Causes, Desk, Matcher, Rules
from noria.settings import Project
from noria.tables import PROFILE_METRICS

CAUSES = ("spool", "registry", "disk")
SLOW = {"metric": "execution_duration_ms.avg", "above": 500, "clear": 300, "windows": "2 of 3", "trigger": True}
PROJECT = Project.model_validate(
    {
        "project": "care",
        "endpoints": {
            "triage": {
                "task": "classification", "policy": "p.yaml", "training": {"data": "seed.csv"}, "alerts": {"slow": SLOW}
            }
        },
    }
)  # fmt: skip
FOLLOWS = {
    None: {"alert.pending", "alert.raised"},
    "alert.pending": {"alert.raised", "alert.resolved"},
    "alert.raised": {"alert.resolved", "alert.acknowledged"},
    "alert.acknowledged": {"alert.resolved", "alert.acknowledged"},
    "alert.resolved": {"alert.pending", "alert.raised"},
}
"""What may follow what in the account of one alert."""


class Ears(FakeNotifier):
    """A notifier that notices when it is told what is silenced."""

    def __init__(self, name, house):
        super().__init__(name)
        self.house = house

    def notify(self, notice):
        now, silences = self.house.clock.at, self.house.state.find(Silence)
        assert not any(silenced(alert, silences, now) for alert in notice.alerts)
        super().notify(notice)


class Machine(RuleBasedStateMachine):
    """The house of alerts."""

    @initialize()
    def begin(self):
        self.clock = Clock(BEGIN + 100 * HOUR)
        self.state, self.records = FakeState(self.clock), MemoryRecords()
        self.ears = [Ears("one", self), Ears("two", self)]
        self.windows, self.number, self.crashes = [], 0, 0
        with self.state.note() as note:
            note.put(route())
        self.start()

    def start(self):
        self.outbox = outbox(self.state, self.clock, *self.ears)
        causes = Causes(self.state, self.clock, lambda _: (), showing(self.records), lambda _: {})
        self.alerts = Alerts(self.state, self.clock, causes, self.outbox)
        self.rules = Rules(self.state, self.clock, self.records, lambda: PROJECT, causes, self.outbox)
        self.desk = Desk(self.state, self.clock, self.outbox)

    @rule(cause=st.sampled_from(CAUSES))
    def raise_(self, cause):
        self.alerts.raise_system("triage", cause, f"{cause} is wrong.")

    @rule(cause=st.sampled_from(CAUSES))
    def clear(self, cause):
        self.alerts.resolve_system("triage", cause, f"{cause} is well.")

    @rule(value=st.sampled_from([100.0, 400.0, 600.0, math.nan, None]))
    def window(self, value):
        """A window closes, with that mean, or without data."""
        start = BEGIN + len(self.windows) * HOUR
        self.windows.append(WindowClosed(endpoint="triage", start=start, end=start + HOUR))
        self.write(self.windows[-1], value)

    @rule(which=st.integers(0, 50), value=st.sampled_from([100.0, 400.0, 600.0]))
    def late_records(self, which, value):
        """A window is opened again and counted anew."""
        if self.windows:
            self.write(self.windows[which % len(self.windows)], value)

    @rule(which=st.integers(0, 50))
    def told_twice(self, which):
        if self.windows:
            before = self.state.find(Alert), list(self.state.audit_trail())
            self.rules.judge(self.windows[-1 - which % len(self.windows)], at_once)
            assert (self.state.find(Alert), list(self.state.audit_trail())) == before

    def write(self, event, value):
        self.number += 1
        if value is not None:
            window = {"start": event.start, "end": event.end}
            row = {"window": window, "endpoint": "triage", "model_id": "*", "column_name": "execution_duration_ms",
                   "count": 5, "avg": value}  # fmt: skip
            self.records.replace(
                "profile_metrics", pa.Table.from_pylist([row], schema=PROFILE_METRICS),
                self.where(event), "test", self.number,
            )  # fmt: skip
        self.rules.judge(event, at_once)

    def where(self, event):
        from noria.ports import Where

        return Where(endpoint="triage", since=event.start, until=event.end)

    @rule(name=st.sampled_from([*CAUSES, "slow"]))
    def ack(self, name):
        with suppress(UnknownAlert, Conflict):
            self.desk.acknowledge(f"triage:{name}", "ada", "on it")

    @rule(name=st.sampled_from([*CAUSES, "slow", "*"]), minutes=st.integers(1, 90))
    def silence(self, name, minutes):
        self.desk.silence(Matcher(monitor=name), self.clock.at + timedelta(minutes=minutes), "ada", "quiet")

    @rule()
    def lift(self):
        for silence in self.desk.silences()[:1]:
            self.desk.lift(silence.id, "ada", "loud again")

    @rule(which=st.integers(0, 1), times=st.integers(0, 4))
    def deafen(self, which, times):
        self.ears[which].failures = times

    @rule(seconds=st.sampled_from([0, 3, 10, 120, 3600]))
    def turn(self, seconds):
        self.clock.at += timedelta(seconds=seconds)
        self.outbox.turn(at_once_told)

    @rule(which=st.integers(0, 1))
    def crash(self, which):
        """The process dies in the midst of a turn, having told one receiver or none."""
        self.clock.at += timedelta(seconds=10)
        with suppress(Dies), self.ears[which].dying():
            self.outbox.turn(at_once_told)
        self.crashes += 1
        self.start()

    @invariant()
    def the_account_tells_the_same_story(self):
        if not hasattr(self, "state"):
            return
        trail = list(self.state.audit_trail())
        assert broken_at(trail) is None
        last = defaultdict(lambda: None)
        for entry in trail:
            if entry.action.startswith("alert."):
                assert entry.action in FOLLOWS[last[entry.subject]], (entry.subject, last[entry.subject], entry.action)
                last[entry.subject] = entry.action
        stands = {"alert.raised": AlertState.FIRING, "alert.acknowledged": AlertState.FIRING,
                  "alert.pending": AlertState.PENDING, "alert.resolved": AlertState.RESOLVED}  # fmt: skip
        assert {a.id: a.state for a in self.state.find(Alert)} == {i: stands[action] for i, action in last.items()}
        raised = [e for e in self.state.pending_events(10_000) if isinstance(e, AlertRaised)]
        assert len(raised) <= sum(e.action == "alert.raised" for e in trail)

    @invariant()
    def only_what_fires_is_looked_after(self):
        if hasattr(self, "state"):
            assert all(a.fires for a in self.state.find(Alert) if a.acknowledged and a.resolved_at is None)

    @invariant()
    def what_is_owed_is_on_the_list(self):
        if hasattr(self, "state"):
            listed = set((self.state.get(Outgoing, "outgoing") or Outgoing()).open)
            assert {d.id for d in self.state.find(Delivery) if d.open} == listed

    @invariant()
    def nothing_is_told_twice_but_for_a_crash(self):
        if hasattr(self, "state"):
            for ears in self.ears:
                ids = [notice.id for notice in ears.notices]
                assert len(ids) - len(set(ids)) <= self.crashes

    def teardown(self):
        """Once all are well and listen, everybody knows how things stand."""
        if not hasattr(self, "state"):
            return
        for silence in self.desk.silences():
            self.desk.lift(silence.id, "ada", "the end")
        for ears in self.ears:
            ears.failures = 0
        for _ in range(12):
            self.turn(3600)
        assert (self.state.get(Outgoing, "outgoing") or Outgoing()).open == ()
        for ears in self.ears:
            knows = {alert.id: alert.state for alert in ears.told}
            for alert in self.state.find(Alert):
                if alert.fires:
                    assert knows[alert.id] is AlertState.FIRING
                elif alert.state is AlertState.RESOLVED:
                    assert knows.get(alert.id) is not AlertState.FIRING


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
