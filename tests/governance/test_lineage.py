"""From an answer to all that made it, and back; what isn't known is said."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fakes.state import FakeState
from fakes.story import StoppedClock
from noria.domain.alert import Alert, AlertState, Example
from noria.domain.approval import Approval, ApprovalState
from noria.domain.errors import UnknownTrace
from noria.domain.events import AlertRaised
from noria.domain.gate import GateResult, Verdict
from noria.domain.lineage import Kind, Link
from noria.domain.rollout import Rollout, Stage, StageChange
from noria.domain.run import Run, RunState, StepDone, Trigger, TriggerKind
from noria.governance.lineage import Given, Learnt, Lineage

AT = datetime(2026, 11, 23, 14, tzinfo=UTC)
ALERT = Alert(
    id="triage:text:1", endpoint="triage", monitor="text", state=AlertState.RESOLVED, raised_at=AT,
    since=AT - timedelta(hours=1), summary="What callers write has changed.", log_e=9.0,
    records=(Example("r-drifted", "hello"),),
)  # fmt: skip
CAUSE = AlertRaised(endpoint="triage", alert_id=ALERT.id, at=AT).id
RUN = Run(
    id="triage-ab12", endpoint="triage", state=RunState.SUCCEEDED, model="triage", version="2", mlflow_run_id="m1",
    trigger=Trigger(kind=TriggerKind.ALERT, cause=CAUSE, actor="noria", reason=ALERT.summary),
    started_at=AT + timedelta(minutes=1), finished_at=AT + timedelta(minutes=3),
    steps=(StepDone(name="snapshot", started_at=AT, finished_at=AT),),
)  # fmt: skip
VERDICT = Verdict(
    id="triage-2-cd34", endpoint="triage", model="triage", version="2", champion="triage/1", decided_at=AT,
    policy_hash="p", results=(GateResult(gate="quality", passed=True, summary="as good"),),
)  # fmt: skip
ROLLOUT = Rollout(
    id=VERDICT.id, endpoint="triage", model="triage", version="2", verdict_id=VERDICT.id, stage=Stage.PROMOTED,
    started_at=AT, changed_at=AT, cursor_us=0, feedback_cursor_us=0, log_threshold=3.0,
    history=(StageChange(AT, Stage.SHADOW, 0, ""), StageChange(AT, Stage.CANARY, 10, "")),
)  # fmt: skip
ANSWER: Mapping[str, Any] = {
    "databricks_request_id": "r1", "endpoint": "triage", "model_name": "triage", "model_version": "2",
    "route": "champion", "outcome": "answered", "status_code": 200, "request_time": AT, "shadow_of": None,
    "cache_hit": False, "policy_hash": "p",
}  # fmt: skip


class Log:
    """What the log holds, as a test says."""

    def __init__(self) -> None:
        self.answers: dict[str, Mapping[str, Any]] = {"r1": ANSWER}
        self.said: list[Mapping[str, Any]] = [
            {"feedback_id": "f1", "label": "negative", "score": None, "source": "human", "feedback_time": AT}
        ]
        self.datasets = {
            RUN.id: Learnt(id="d1", says="30 rows", count=2, records=({"request_id": "r0", "split": "train"},))
        }
        self.learners: dict[str, str] = {}

    def answer(self, name: str) -> Mapping[str, Any] | None:
        return self.answers.get(name)

    def feedback(self, request_id: str) -> Sequence[Mapping[str, Any]]:
        return self.said

    def given(self, model: str, version: str, most: int) -> Given:
        mine = [a for a in self.answers.values() if (a["model_name"], a["model_version"]) == (model, version)]
        ids = tuple(a["databricks_request_id"] for a in mine)[:most]
        return Given(count=len(mine), first=AT, last=AT, newest=ids) if mine else Given()

    def learnt(self, run: Run, most: int) -> Learnt | None:
        return self.datasets.get(run.id)

    def lessons(self, runs: Sequence[Run], request_id: str) -> Mapping[str, str]:
        return self.learners


@pytest.fixture
def state() -> FakeState:
    state = FakeState(StoppedClock(AT))
    with state.change("noria", "version.promoted", "triage/2", reason="12 of 12") as change:
        for noun in (ALERT, RUN, VERDICT, ROLLOUT):
            change.put(noun)
    return state


@pytest.fixture
def log() -> Log:
    return Log()


def kinds(link: Link) -> list[str]:
    return [each.kind.value for each in link.walk()]


def the(link: Link, kind: Kind) -> Link:
    (found,) = [each for each in link.walk() if each.kind is kind]
    return found


def losses(link: Link) -> Iterator[str]:
    return (each.missing for each in link.walk() if each.missing)


def test_an_answer_leads_to_all_that_made_it(state: FakeState, log: Log) -> None:
    found = Lineage(state, log).trace("r1")
    assert kinds(found) == [
        "answer", "version", "run", "dataset", "records", "trigger", "alert", "records",
        "verdict", "gate", "rollout", "change", "feedback",
    ]  # fmt: skip
    assert the(found, Kind.RUN).id == RUN.id
    assert the(found, Kind.ALERT).id == ALERT.id
    assert the(found, Kind.DATASET).links[0].facts["records"] == [{"request_id": "r0", "split": "train"}]
    assert "2 labelled production records, of which 1 are named here: r0" in the(found, Kind.DATASET).links[0].says
    assert the(found, Kind.ROLLOUT).says == "shadow → canary 10 %"
    assert not list(losses(found))


def test_an_answer_that_was_learnt_from_says_by_whom(state: FakeState, log: Log) -> None:
    log.learners = {RUN.id: "train"}
    lesson = the(Lineage(state, log).trace("r1"), Kind.LESSON)
    assert (lesson.id, lesson.says) == (RUN.id, "learnt from it and made triage/2")


def test_a_version_leads_to_the_answers_that_it_gave(state: FakeState, log: Log) -> None:
    found = Lineage(state, log).trace("triage/2")
    assert found.kind is Kind.VERSION
    assert the(found, Kind.ANSWERS).facts == {"count": 1, "newest": ["r1"]}
    assert the(found, Kind.RUN).id == RUN.id


def test_a_run_leads_to_its_version_and_the_answers_that_it_gave(state: FakeState, log: Log) -> None:
    found = Lineage(state, log).trace(RUN.id)
    assert the(found, Kind.VERSION).id == "triage/2"
    assert the(found, Kind.ANSWERS).facts["newest"] == ["r1"]


def test_an_alert_leads_to_the_run_that_it_set_off(state: FakeState, log: Log) -> None:
    assert the(Lineage(state, log).trace(ALERT.id), Kind.RUN).id == RUN.id


def test_a_verdict_leads_to_its_version(state: FakeState, log: Log) -> None:
    assert the(Lineage(state, log).trace(VERDICT.id), Kind.VERSION).id == "triage/2"


def test_who_overrode_the_gates_is_named(state: FakeState, log: Log) -> None:
    refused = GateResult(gate="quality", passed=False, summary="worse")
    overridden = replace(VERDICT, results=(refused,), override_by="ada", override_reason="we know better")
    with state.note() as note:
        note.put(overridden)
    approver = the(Lineage(state, log).trace("r1"), Kind.APPROVER)
    assert (approver.id, approver.says) == ("ada", "ada allowed what the gates refused: we know better")


def test_who_approved_a_version_is_named_and_that_nobody_has_yet_is_said(state: FakeState, log: Log) -> None:
    waits = Approval(
        verdict_id=VERDICT.id, endpoint="triage", state=ApprovalState.WAITING, asked_at=AT,
        expires_at=AT + timedelta(days=3), requested_by=("bob",),
    )  # fmt: skip
    with state.note() as note:
        note.put(replace(VERDICT, needs_approval=True))
        note.put(waits)
    assert "Waits for approval by anybody but bob until 2026-11-26 14:00 UTC." in losses(
        Lineage(state, log).trace("r1")
    )
    with state.note() as note:
        note.put(waits.decided(ApprovalState.APPROVED, "ada", AT + timedelta(hours=1), "the numbers hold"))
    found = Lineage(state, log).trace("r1")
    approver = the(found, Kind.APPROVER)
    assert (approver.id, approver.says) == ("ada", "ada approved it: the numbers hold")
    assert (approver.at, approver.facts["requested_by"]) == (AT + timedelta(hours=1), ["bob"])
    assert the(found, Kind.VERDICT).facts["standing"] == "approved"


def test_who_added_a_version_that_no_run_made_is_named(state: FakeState, log: Log) -> None:
    log.answers["r2"] = {**ANSWER, "databricks_request_id": "r2", "model_version": "1"}
    with state.change("bob", "version.registered", "triage/1", reason="from the lab", evidence={"licence": "MIT"}):
        pass
    found = Lineage(state, log).trace("r2")
    assert the(found, Kind.ADDITION).says == "added by bob: from the lab"
    assert list(losses(found)) == ["No verdict about it is on record."]


def test_what_is_gone_is_said_and_not_invented(state: FakeState, log: Log) -> None:
    log.datasets.clear()
    with state.note() as note:
        note.put(replace(ALERT, raised_at=AT + timedelta(days=1)))
    found = Lineage(state, log).trace("r1")
    assert list(losses(found)) == [
        "Its rows are no longer kept.",
        "It has fired again since; what it said then is in the audit trail.",
    ]
    with state.note() as note:
        note.put(replace(RUN, trigger=replace(RUN.trigger, cause="alert:triage:gone:1")))
    assert "The alert is no longer on record." in losses(Lineage(state, log).trace("r1"))


def test_a_request_that_was_refused_before_a_version_was_picked_says_so(state: FakeState, log: Log) -> None:
    log.answers["r3"] = {**ANSWER, "databricks_request_id": "r3", "model_name": "", "model_version": ""}
    assert "refused before one was picked" in next(losses(Lineage(state, log).trace("r3")))


@pytest.mark.parametrize("name", ["r9", "triage/9", "nobody", "' OR 1=1 --"])
def test_what_nobody_knows_is_an_error_that_says_what_to_give(state: FakeState, log: Log, name: str) -> None:
    with pytest.raises(UnknownTrace, match="No request, version, run, verdict or alert"):
        Lineage(state, log).trace(name)
