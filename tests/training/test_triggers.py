from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from fakes.records import MemoryRecords
from fakes.state import FakeState
from fakes.workflows import MemorySteps
from noria.domain.alert import Alert, AlertState
from noria.domain.errors import InvalidProject
from noria.domain.events import (
    AlertRaised,
    BaseModelChanged,
    FeedbackArrived,
    LabelsArrived,
    RetrainRequested,
    RunStarted,
    ScheduleDue,
)
from noria.domain.run import Run, RunState, TriggerKind
from noria.settings import Project
from noria.tables import FEEDBACK
from noria.training.triggers import Triggers, last_time, run_id_of

START = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at

    def now_us(self) -> int:
        return int(self.at.timestamp() * 1e6)


class Bench:
    """Triggers over fakes, and what tests do with them."""

    def __init__(self, **training: Any) -> None:
        self.clock = Clock()
        self.state = FakeState(self.clock)
        self.records = MemoryRecords()
        self.training = {"data": "rows.csv", "cooldown": "1h"} | training
        self.triggers = Triggers(self.state, self.records, self.clock, self.project)
        self.batch = 0

    def project(self) -> Project:
        common = {"task": "classification", "policy": "p.yaml"}
        gguf = {"gguf": {"gguf": "m.gguf", "licence": "MIT", "source": "s"}}
        return Project.model_validate(
            {
                "project": "wheel",
                "endpoints": {"triage": common | {"training": self.training}, "assistant": common | gguf},
            }
        )

    def pass_time(self, **span: float) -> None:
        self.clock.at += timedelta(**span)

    def alert(self, monitor: str = "text", endpoint: str = "triage") -> AlertRaised:
        alert = Alert(
            id=f"{endpoint}:{monitor}:1",
            endpoint=endpoint,
            monitor=monitor,
            state=AlertState.FIRING,
            raised_at=self.clock.at,
            since=self.clock.at - timedelta(days=3),
            summary="the texts have changed",
        )
        with self.state.note() as note:
            note.put(alert)
        return AlertRaised(endpoint=endpoint, alert_id=alert.id, at=alert.raised_at)

    def resolve(self, event: AlertRaised) -> None:
        alert = self.state.get(Alert, event.alert_id)
        assert alert is not None
        with self.state.note() as note:
            note.put(alert.resolve(self.clock.at, "a new champion"))

    def person(self, endpoint: str = "triage") -> RetrainRequested:
        return RetrainRequested(endpoint=endpoint, actor="ada", reason="new labels", at=self.clock.at)

    def label(self, count: int) -> None:
        self.batch += 1
        rows = [
            {"request_id": f"{self.batch}-{n}", "endpoint": "triage", "feedback_time": START, "label": "good"}
            for n in range(count)
        ]
        self.records.append("feedback", pa.Table.from_pylist(rows, FEEDBACK), "test", self.batch)

    def consider(self, event: Any) -> Run | None:
        self.triggers.consider(event, MemorySteps())
        return self.state.get(Run, run_id_of(event))

    def end(self, run: Run, state: RunState = RunState.SUCCEEDED) -> None:
        with self.state.note() as note:
            note.put(replace(run, state=state, finished_at=self.clock.at))

    def actions(self) -> list[tuple[str, str]]:
        return [(event.action, event.reason) for event in self.state.audit_trail()]

    def told(self, kind: type) -> list[Any]:
        return [event for event in self.state.pending_events() if isinstance(event, kind)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_an_alarm_starts_a_run_and_the_audit_says_why(bench: Bench) -> None:
    event = bench.alert()
    run = bench.consider(event)
    assert run is not None
    assert (run.state, run.trigger.kind, run.trigger.cause) == (RunState.RUNNING, TriggerKind.ALERT, event.id)
    assert run.model == "triage"
    assert bench.told(RunStarted) == [RunStarted(endpoint="triage", run_id=run.id)]
    assert bench.actions() == [("run.started", "the texts have changed")]


def test_the_same_event_starts_one_run_however_often_it_is_told(bench: Bench) -> None:
    event = bench.alert()
    first = bench.consider(event)
    assert bench.consider(event) == first
    assert len(bench.state.find(Run)) == 1
    assert len(bench.actions()) == 1


def test_one_run_at_a_time_and_a_person_is_told_why_not(bench: Bench) -> None:
    run = bench.consider(bench.alert())
    assert run is not None
    assert bench.consider(bench.person()) is None
    assert bench.actions()[-1] == ("run.declined", f"run {run.id} is under way")
    bench.end(run)
    bench.pass_time(seconds=1)
    assert bench.consider(bench.person()) is not None


def test_a_person_does_not_wait_for_the_cooldown_and_does_not_start_one(bench: Bench) -> None:
    bench.end(bench.consider(bench.alert()) or pytest.fail("no run"))
    bench.pass_time(minutes=1)
    asked = bench.consider(bench.person())
    assert asked is not None
    assert (asked.trigger.kind, asked.trigger.actor) == (TriggerKind.PERSON, "ada")
    bench.end(asked)
    bench.pass_time(minutes=60)
    assert bench.consider(bench.alert("quality")) is not None


def test_an_endpoint_without_a_version_gets_its_first_run_from_the_loop_itself(bench: Bench) -> None:
    run = bench.consider(RetrainRequested(endpoint="triage", actor="noria", reason="no version yet", at=START))
    assert run is not None
    assert run.trigger.kind is TriggerKind.BOOTSTRAP
    bench.end(run)
    assert bench.consider(bench.alert()) is not None  # the first version starts no cooldown


def test_an_alarm_in_the_cooldown_is_put_off_and_gets_its_run_afterwards(bench: Bench) -> None:
    bench.end(bench.consider(bench.alert()) or pytest.fail("no run"))
    bench.pass_time(minutes=20)
    event = bench.alert("quality")
    assert bench.consider(event) is None
    action, reason = bench.actions()[-1]
    assert action == "run.postponed"
    assert reason == "the last run that nobody asked for began 0:20:00 ago; 0:40:00 of cooldown is left"
    bench.triggers.due(bench.clock.at)
    assert bench.state.get(Run, run_id_of(event)) is None
    bench.pass_time(minutes=41)
    bench.triggers.due(bench.clock.at)
    run = bench.state.get(Run, run_id_of(event))
    assert run is not None
    assert run.trigger.cause == event.id
    bench.triggers.due(bench.clock.at)
    assert len(bench.state.find(Run)) == 2


def test_an_alarm_that_was_put_off_and_is_over_gets_no_run(bench: Bench) -> None:
    bench.end(bench.consider(bench.alert()) or pytest.fail("no run"))
    event = bench.alert("quality")
    bench.consider(event)
    bench.resolve(event)
    bench.pass_time(hours=2)
    bench.triggers.due(bench.clock.at)
    assert bench.state.get(Run, run_id_of(event)) is None


def test_a_decline_that_is_told_twice_is_written_down_once(bench: Bench) -> None:
    bench.consider(bench.alert())
    event = bench.person()
    bench.consider(event)
    bench.consider(event)
    assert [action for action, _ in bench.actions()] == ["run.started", "run.declined"]


def test_alerts_of_the_system_itself_ask_for_no_run(bench: Bench) -> None:
    for monitor in ("gate", "registry", "spool", "run"):
        assert bench.consider(bench.alert(monitor)) is None
    assert bench.actions() == []


def test_an_alarm_starts_nothing_where_the_project_says_so_or_nothing_is_trained() -> None:
    bench = Bench(on_alert=False)
    assert bench.consider(bench.alert()) is None
    assert bench.consider(bench.alert(endpoint="assistant")) is None
    assert bench.actions() == [
        ("run.declined", "training.on_alert is off"),
        ("run.declined", "assistant has no training in noria.yaml"),
    ]


def test_enough_new_labels_start_a_run_and_are_counted_anew_from_there() -> None:
    bench = Bench(on_labels=10, cooldown="1s")
    bench.label(50)
    bench.triggers.due(bench.clock.at)  # what is there already counts for nothing
    bench.label(9)
    bench.triggers.due(bench.clock.at)
    assert bench.told(LabelsArrived) == []
    bench.label(1)
    bench.triggers.due(bench.clock.at)
    event = LabelsArrived(endpoint="triage", total=60)
    assert bench.told(LabelsArrived) == [event]
    run = bench.consider(event)
    assert run is not None
    assert run.trigger.reason == "there are 60 labels now"
    bench.label(30)
    bench.triggers.due(bench.clock.at)
    assert len(bench.told(LabelsArrived)) == 1  # a run is under way: they wait
    bench.end(run)
    bench.pass_time(seconds=2)
    bench.triggers.due(bench.clock.at)
    assert [e.total for e in bench.told(LabelsArrived)] == [60, 90]


def test_a_schedule_comes_round_once_for_each_time_and_once_for_all_that_were_missed() -> None:
    bench = Bench(schedule="0 * * * *")
    bench.triggers.due(bench.clock.at)
    bench.pass_time(minutes=59)
    bench.triggers.due(bench.clock.at)
    assert bench.told(ScheduleDue) == []
    bench.pass_time(minutes=1)
    bench.triggers.due(bench.clock.at)
    bench.triggers.due(bench.clock.at)
    assert [event.at for event in bench.told(ScheduleDue)] == [START + timedelta(hours=1)]
    bench.pass_time(hours=5, minutes=30)
    bench.triggers.due(bench.clock.at)
    assert [event.at for event in bench.told(ScheduleDue)][1:] == [START + timedelta(hours=6)]
    run = bench.consider(bench.told(ScheduleDue)[0])
    assert run is not None
    assert run.trigger.reason == "the schedule came round at 2026-03-02 13:00 UTC"


def test_a_schedule_that_is_none_is_explained() -> None:
    assert last_time("*/5 * * * *", START) == START
    with pytest.raises(InvalidProject, match="'every day' is not a cron expression"):
        last_time("every day", START)


# --- conditions, budgets, other causes --------------------------------------------------------------------------------


def grants(bench: Bench) -> list[Run]:
    return bench.state.find(Run, endpoint="triage")


def end(bench: Bench, **fields: Any) -> None:
    """End the run that is under way."""
    (run,) = [run for run in grants(bench) if run.state is RunState.RUNNING]
    with bench.state.note() as note:
        note.put(replace(run, state=RunState.SUCCEEDED, **fields))


def emitted(bench: Bench, kind: type) -> list[Any]:
    return [event for event in bench.state.pending_events(1000) if isinstance(event, kind)]


@pytest.mark.parametrize(
    ("training", "runs"),
    [
        ({}, 1),
        ({"alert_monitors": ["text"]}, 1),
        ({"alert_monitors": ["quality"]}, 0),
        ({"alert_severity": "warning"}, 1),
        ({"alert_severity": "critical"}, 0),
        ({"on_alert": False}, 0),
    ],
)
def test_only_alerts_that_the_project_listens_to_start_a_run(training: dict[str, Any], runs: int) -> None:
    bench = Bench(**training)
    bench.triggers.consider(bench.alert(), MemorySteps())
    assert len(grants(bench)) == runs


def test_a_months_runs_are_counted_and_the_next_one_waits_for_the_next_month() -> None:
    bench = Bench(max_runs_per_month=2, cooldown="1s")
    for _ in range(3):
        bench.pass_time(days=1)
        bench.triggers.consider(bench.person(), MemorySteps())
        if any(run.state is RunState.RUNNING for run in grants(bench)):
            end(bench)
    assert len(grants(bench)) == 2
    declined = [event for event in bench.state.audit_trail() if event.action == "run.declined"]
    assert "2 runs began this month; 2 are allowed" in declined[-1].reason
    bench.pass_time(days=31)
    bench.triggers.consider(bench.person(), MemorySteps())
    assert len(grants(bench)) == 3


def test_a_months_money_is_counted() -> None:
    bench = Bench(max_usd_per_month=10, cooldown="1s")
    bench.triggers.consider(bench.person(), MemorySteps())
    end(bench, cost_usd=12.5)
    bench.pass_time(days=1)
    bench.triggers.consider(bench.person(), MemorySteps())
    assert len(grants(bench)) == 1
    assert "cost 12.50 US dollars; 10.00 are allowed" in bench.triggers.would("triage").hindrance


def test_feedback_starts_a_run_once_enough_of_it_came() -> None:
    bench = Bench(on_feedback=30)
    bench.label(10)
    bench.triggers.due(bench.clock.at)
    bench.label(29)
    bench.triggers.due(bench.clock.at)
    assert not emitted(bench, FeedbackArrived)
    bench.label(1)
    bench.triggers.due(bench.clock.at)
    bench.triggers.due(bench.clock.at)
    (event,) = emitted(bench, FeedbackArrived)
    bench.triggers.consider(event, MemorySteps())
    assert [run.trigger.kind for run in grants(bench)] == [TriggerKind.FEEDBACK]


def test_another_base_model_starts_a_run_and_one_that_cannot_be_seen_does_not() -> None:
    bench = Bench(on_base_model=True)
    seen = iter(["one", "one", "", "two", "two"])
    object.__setattr__(bench.triggers, "base", lambda _: next(seen))
    for _ in range(5):
        bench.triggers.due(bench.clock.at)
    (event,) = emitted(bench, BaseModelChanged)
    bench.triggers.consider(event, MemorySteps())
    assert [run.trigger.kind for run in grants(bench)] == [TriggerKind.BASE_MODEL]


def test_an_interval_counts_from_the_last_run_whoever_asked_for_it() -> None:
    bench = Bench(every="2d", cooldown="1h")
    bench.pass_time(days=9)
    bench.triggers.due(bench.clock.at)
    assert not emitted(bench, ScheduleDue)
    bench.triggers.consider(bench.person(), MemorySteps())
    end(bench)
    bench.pass_time(days=1)
    bench.triggers.due(bench.clock.at)
    assert not emitted(bench, ScheduleDue)
    bench.pass_time(days=1)
    bench.triggers.due(bench.clock.at)
    bench.triggers.due(bench.clock.at)
    (event,) = emitted(bench, ScheduleDue)
    bench.triggers.consider(event, MemorySteps())
    assert len(grants(bench)) == 2


def test_what_would_become_of_a_wish_is_said_and_nothing_is_changed() -> None:
    bench = Bench()
    assert bench.triggers.would("triage").hindrance == ""
    assert "no training" in bench.triggers.would("assistant").hindrance
    bench.triggers.consider(bench.person(), MemorySteps())
    assert "is under way" in bench.triggers.would("triage").hindrance
    assert len(grants(bench)) == 1
