from datetime import timedelta

import pytest

from fakes.outbox import outbox, showing
from fakes.records import MemoryRecords
from fakes.state import FakeState
from fakes.traffic import BEGIN, HOUR, Clock, at_once
from noria.domain.alert import Alert, AlertState
from noria.domain.audit import broken_at
from noria.domain.events import (
    AlertRaised,
    DriftDetected,
    GateFailed,
    QualityDropped,
    RolledBack,
    RunFailed,
    VersionPromoted,
)
from noria.domain.gate import GateResult, Verdict
from noria.domain.monitor import MonitorKind, MonitorState, Moved
from noria.domain.run import Run, RunState, Trigger, TriggerKind
from noria.monitoring.alerts import Alerts, Causes

RULES: dict = {}
MOVED = (Moved("iphone, battery", 0.001, 0.2, ("my iphone died",)),)


@pytest.fixture
def clock():
    return Clock(BEGIN + 5 * HOUR)


@pytest.fixture
def state(clock):
    return FakeState(clock)


@pytest.fixture
def alerts(state, clock):
    causes = Causes(
        state,
        clock,
        lambda monitor: MOVED if monitor.kind is not MonitorKind.QUALITY else (),
        showing(MemoryRecords()),
        lambda _: RULES,
    )
    return Alerts(state, clock, causes, outbox(state, clock))


def monitor(name="text", kind=MonitorKind.TEXT_DRIFT, version="1", since=BEGIN, log_e=9.42, **numbers):
    return MonitorState(
        id=f"triage:{name}:{version}", endpoint="triage", monitor=name, kind=kind, model_version=version, since=since,
        folded_until=BEGIN + HOUR, rows=1240, log_e=log_e, log_threshold=4.0, numbers=numbers,
    )  # fmt: skip


def drift(state, noun=None):
    """A monitor alarmed; returns the event."""
    noun = noun or monitor()
    with state.note() as note:
        note.put(noun)
    kind = QualityDropped if noun.kind is MonitorKind.QUALITY else DriftDetected
    return kind(endpoint="triage", monitor=noun.monitor, state_id=noun.id, since=noun.since)


def verdict(state, version="2", passed=False):
    noun = Verdict(
        id=f"v{version}", endpoint="triage", model="triage", version=version, champion="triage/1", decided_at=BEGIN,
        policy_hash="p", results=(GateResult(gate="groups", passed=passed, summary="delta loses 14 points."),),
    )  # fmt: skip
    with state.note() as note:
        note.put(noun)


def raised(state):
    return [event for event in state.pending_events() if isinstance(event, AlertRaised)]


def promoted(version):
    return VersionPromoted(endpoint="triage", model="triage", version=version, revision=int(version) + 1)


def test_a_drift_alarm_raises_an_alert_that_says_what_since_when_and_how_sure(state, alerts, clock):
    alerts.raise_alert(drift(state), at_once)
    alert = state.get(Alert, "triage:text:1")
    assert alert.summary == (
        "What callers write to triage has changed since 2 March 2026 09:00 UTC: "
        "evidence 12,333 to 1 after 1,240 records."
    )
    assert (alert.state, alert.since, alert.raised_at, alert.rows) == (AlertState.FIRING, BEGIN, clock.at, 1240)
    assert alert.moved == MOVED
    assert [event.alert_id for event in raised(state)] == [alert.id]


@pytest.mark.parametrize(
    ("noun", "says"),
    [
        (monitor("length", MonitorKind.NUMERIC_DRIFT), "The length of what callers write to triage"),
        (monitor("prediction", MonitorKind.CATEGORICAL_DRIFT), "The mix of answers that triage gives"),
        (
            monitor("quality", MonitorKind.QUALITY, mean=0.61, floor=0.78),
            "right less often than its model promised: 61% ",
        ),
        (monitor(log_e=900.0), "× 10³⁹⁰ to 1"),
    ],
    ids=["length", "prediction", "quality", "overwhelming"],
)
def test_every_kind_of_monitor_has_its_sentence(state, alerts, noun, says):
    alerts.raise_alert(drift(state, noun), at_once)
    assert says in state.get(Alert, noun.id).summary


def test_raising_is_audited_in_the_same_change(state, alerts):
    alerts.raise_alert(drift(state), at_once)
    (entry,) = state.audit_trail()
    assert (entry.actor, entry.action, entry.subject) == ("noria", "alert.raised", "triage:text:1")
    assert entry.evidence["rows"] == 1240
    assert broken_at(state.audit_trail()) is None


def test_the_same_cause_raises_one_alert(state, alerts, clock):
    event = drift(state)
    for _ in range(3):
        alerts.raise_alert(event, at_once)
        clock.at += timedelta(minutes=1)
    assert len(raised(state)) == len(list(state.audit_trail())) == 1


def test_a_repeat_after_the_cause_is_gone_raises_nothing(state, alerts):
    event = drift(state)
    alerts.raise_alert(event, at_once)
    alerts.resolve_for(promoted("2"), at_once)
    alerts.raise_alert(event, at_once)
    assert state.get(Alert, "triage:text:1").state is AlertState.RESOLVED


def test_a_version_that_is_watched_anew_may_alarm_again(state, alerts, clock):
    alerts.raise_alert(drift(state), at_once)
    alerts.resolve_for(promoted("2"), at_once)
    clock.at += HOUR
    alerts.raise_alert(drift(state, monitor(since=BEGIN + 5 * HOUR)), at_once)
    assert state.get(Alert, "triage:text:1").state is AlertState.FIRING
    assert len(raised(state)) == 2


def test_a_refused_candidate_is_an_alert_with_the_gates_reasons(state, alerts):
    verdict(state)
    alerts.raise_alert(GateFailed(endpoint="triage", verdict_id="v2"), at_once)
    alert = state.get(Alert, "triage:gate:2")
    assert alert.summary == "triage/2 was refused and gets no traffic: groups: delta loses 14 points."


def test_a_refusal_is_over_when_the_version_is_judged_once_more_and_answers(state, alerts):
    verdict(state)
    alerts.raise_alert(GateFailed(endpoint="triage", verdict_id="v2"), at_once)
    alerts.resolve_for(promoted("1"), at_once)
    assert state.get(Alert, "triage:gate:2").state is AlertState.FIRING
    alerts.resolve_for(promoted("2"), at_once)
    assert state.get(Alert, "triage:gate:2").state is AlertState.RESOLVED


def test_a_failed_run_is_an_alert_with_its_error(state, alerts):
    trigger = Trigger(kind=TriggerKind.PERSON, cause="c", actor="ada", reason="r")
    run = Run(
        id="run-1", endpoint="triage", trigger=trigger, state=RunState.FAILED, started_at=BEGIN, error="Too few labels."
    )
    with state.note() as note:
        note.put(run)
    alerts.raise_alert(RunFailed(endpoint="triage", run_id="run-1"), at_once)
    assert state.get(Alert, "triage:run:run-1").summary == "A retraining of triage failed: Too few labels."


def test_a_rollback_is_an_alert_with_its_reason(state, alerts):
    verdict(state, "3", passed=True)
    alerts.raise_alert(RolledBack(endpoint="triage", rollout_id="v3", reason="It fails more often."), at_once)
    assert "triage/3 was taken out of the traffic: It fails more often." in state.get(Alert, "triage:rollout:3").summary


def test_a_new_champion_resolves_what_was_wrong_with_the_one_before(state, alerts, clock):
    verdict(state)
    for event in (drift(state), drift(state, monitor("quality", MonitorKind.QUALITY, mean=0.5, floor=0.7))):
        alerts.raise_alert(event, at_once)
    alerts.raise_alert(GateFailed(endpoint="triage", verdict_id="v2"), at_once)
    alerts.raise_system("triage", "registry", "Somebody moved the alias champion.")
    alerts.raise_alert(drift(state, monitor(version="3")), at_once)
    alerts.resolve_for(promoted("3"), at_once)
    assert {a.id for a in state.find(Alert) if a.state is AlertState.FIRING} == {"triage:registry", "triage:text:3"}
    over = state.get(Alert, "triage:text:1")
    assert (over.resolution, over.resolved_at) == ("triage/3 is champion now.", clock.at)
    assert [e.subject for e in state.audit_trail() if e.action == "alert.resolved"].count("triage:text:1") == 1


def test_the_version_that_a_rollback_brings_back_does_not_resolve_the_rollback(state, alerts):
    verdict(state, "3", passed=True)
    alerts.raise_alert(RolledBack(endpoint="triage", rollout_id="v3", reason="It fails."), at_once)
    alerts.resolve_for(promoted("2"), at_once)
    assert state.get(Alert, "triage:rollout:3").state is AlertState.FIRING
    alerts.resolve_for(promoted("4"), at_once)
    assert state.get(Alert, "triage:rollout:3").state is AlertState.RESOLVED


def test_another_endpoints_alerts_stay(state, alerts):
    alerts.raise_alert(drift(state), at_once)
    alerts.resolve_for(VersionPromoted(endpoint="other", model="m", version="2", revision=1), at_once)
    assert state.get(Alert, "triage:text:1").state is AlertState.FIRING


def test_an_alert_of_the_system_is_told_once_and_resolved_once(state, alerts, clock):
    alerts.resolve_system("triage", "spool", "There was nothing.")
    alerts.raise_system("triage", "spool", "The disk is full.")
    clock.at += HOUR
    alerts.raise_system("triage", "spool", "The disk is full.")
    alerts.raise_system("triage", "spool", "The disk is still full.")
    assert len(raised(state)) == 1
    assert state.get(Alert, "triage:spool").summary == "The disk is still full."
    assert state.get(Alert, "triage:spool").raised_at == clock.at - HOUR
    alerts.resolve_system("triage", "spool", "There is space again.")
    alerts.resolve_system("triage", "spool", "There is space again.")
    assert state.get(Alert, "triage:spool").resolution == "There is space again."
    assert [e.action for e in state.audit_trail()] == ["alert.raised", "alert.raised", "alert.resolved"]
    alerts.raise_system("triage", "spool", "The disk is full.")
    assert len(raised(state)) == 2
