"""People are told of what waits for their approval, once for each, and no longer once it is decided."""

from dataclasses import replace
from datetime import timedelta

import pytest

from fakes.notifier import FakeNotifier
from fakes.outbox import at_once, outbox, showing
from fakes.records import MemoryRecords
from fakes.release import passed_verdict
from fakes.state import FakeState
from fakes.traffic import BEGIN, HOUR, Clock
from noria.bootstrap.approving import tell_of_approvals
from noria.domain.alert import Alert, AlertState, Severity
from noria.domain.events import AlertRaised
from noria.monitoring.alerts import Alerts, Causes
from noria.release.account import keep
from noria.release.approvals import Approvals, asked
from noria.settings import ApprovalRule


class House:
    def __init__(self):
        self.clock, self.slack = Clock(BEGIN + 5 * HOUR), FakeNotifier("slack")
        self.state = FakeState(self.clock)
        self.outbox = outbox(self.state, self.clock, self.slack)
        causes = Causes(self.state, self.clock, lambda _: (), showing(MemoryRecords()), lambda _: {})
        self.alerts = Alerts(self.state, self.clock, causes, self.outbox)
        self.approvals = Approvals(self.state, self.clock)

    def ask(self, version, **rule):
        self.clock.at += timedelta(minutes=1)
        verdict = replace(passed_verdict(version), needs_approval=True, decided_at=self.clock.at)
        approval = asked(verdict, ApprovalRule.model_validate(rule), ("bob",))
        keep(self.state, verdict, "noria", "verdict.passed", "all gates passed", approval)
        return verdict.id

    def turn(self, **later):
        self.clock.at += timedelta(**later)
        tell_of_approvals(self.approvals, self.alerts)
        self.clock.at += timedelta(seconds=10)  # what others of the group may follow in
        self.outbox.turn(at_once)

    def told(self):
        return [(alert.id, alert.state.value) for alert in self.slack.told]

    def alert(self, name):
        return self.state.get(Alert, f"triage:{name}")


@pytest.fixture
def house():
    return House()


def test_each_that_waits_is_told_once_with_whom_it_waits_for_and_what_to_do(house):
    house.ask("2", people=["ada"])
    house.turn()
    house.ask("3")
    for _ in range(3):
        house.turn(minutes=1)
    assert house.told() == [("triage:approval:verdict-2", "firing"), ("triage:approval:verdict-3", "firing")]
    alert = house.alert("approval:verdict-2")
    assert (alert.severity, alert.asks_for_run) == (Severity.WARNING, False)
    assert "triage/2 passed its gates and waits for approval by ada until" in alert.summary
    assert "noria verdict show verdict-2" in alert.summary
    assert "anybody but bob" in house.alert("approval:verdict-3").summary


@pytest.mark.parametrize("decide", ["approve", "refuse"])
def test_what_is_decided_is_resolved_with_who_decided(house, decide):
    waits = house.ask("2")
    house.turn()
    getattr(house.approvals, decide)(waits, "ada", "so be it")
    house.turn(minutes=1)
    alert = house.alert(f"approval:{waits}")
    assert alert.state is AlertState.RESOLVED
    assert "by ada: so be it" in alert.resolution
    assert house.alert("approval") is None
    assert house.told()[-1] == (f"triage:approval:{waits}", "resolved")


def test_what_nobody_decided_is_told_until_another_version_is_judged(house):
    waits = house.ask("2", expires="1h")
    house.turn()
    house.turn(hours=1)
    assert house.alert(f"approval:{waits}").state is AlertState.RESOLVED
    lapsed = house.alert("approval")
    assert lapsed.fires
    assert "triage/2 passed its gates and gets no traffic: nobody decided within 1 h" in lapsed.summary
    house.turn(minutes=1)
    assert ("triage:approval", "firing") in house.told()
    house.ask("3")
    house.turn(minutes=1)
    assert not house.alert("approval").fires


def test_a_worker_that_was_away_meanwhile_takes_it_up_from_how_things_stand(house):
    waits = house.ask("2", expires="1h")
    house.turn(days=9)
    assert house.alert(f"approval:{waits}") is None
    assert house.alert("approval").fires
    raised = [e for e in house.state.pending_events(100) if isinstance(e, AlertRaised)]
    assert [e.alert_id for e in raised] == ["triage:approval"]
