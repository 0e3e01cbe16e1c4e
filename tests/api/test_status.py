"""The loop at a glance: its shape is relied on by the console, the command line and the demo."""

import json
import math
from dataclasses import replace

from fakes.state import FakeState
from fakes.story import NOW, PROJECT, StoppedClock, before, route, target, tell
from noria.api.status import audit_status, loop_status, plain
from noria.domain.alert import Alert
from noria.domain.endpoint import Role
from noria.domain.status import Heartbeat

TARGET = {"model", "version", "role", "weight", "verdict_id"}
MONITOR = {"id", "endpoint", "monitor", "kind", "model_version", "since", "folded_until", "rows", "log_e",
           "log_threshold", "numbers", "alarms", "monitor_version", "column"}  # fmt: skip
WORKER = {
    "id", "alive", "at", "age_seconds", "pid", "spools", "unshipped", "open_intents", "hosts", "telemetry",
    "notifiers", "problems",
}  # fmt: skip


def told() -> FakeState:
    state = FakeState(StoppedClock())
    tell(state)
    return state


def test_the_shape_of_the_status_is_pinned() -> None:
    status = loop_status(told(), PROJECT, StoppedClock())

    assert set(status) == {
        "at", "revision", "project", "endpoints", "alerts", "runs", "rollouts", "verdicts", "worker", "audit",
    }  # fmt: skip
    assert set(status["project"]) == {"name", "default_endpoint", "hash", "applied_at", "actor"}
    triage, assistant = status["endpoints"]
    assert set(triage) == set(assistant) == {
        "name", "task", "model", "wire", "revision", "policy_hash", "champion", "previous", "canary", "shadows",
        "variants", "monitors", "alerts_firing", "run", "rollout", "verdict",
    }  # fmt: skip
    assert set(triage["champion"]) == set(triage["canary"]) == TARGET
    assert {frozenset(m) for m in triage["monitors"]} == {frozenset(MONITOR)}
    assert set(status["worker"]) == WORKER
    assert set(status["audit"]) == {"events", "newest"}
    assert {"seconds", "steps", "trigger", "state"} <= set(status["runs"][0])
    assert {"finished", "champion", "candidate", "history", "weight", "stage"} <= set(status["rollouts"][0])
    assert {"passed", "reasons", "results"} <= set(status["verdicts"][0])
    json.dumps(status, allow_nan=False)


def test_the_numbers_of_the_story_are_found_where_they_belong() -> None:
    status = loop_status(told(), PROJECT, StoppedClock())
    triage, assistant = status["endpoints"]

    assert (triage["name"], triage["task"], triage["wire"], triage["revision"]) == (
        "triage",
        "classification",
        "mlflow",
        4,
    )
    assert (triage["champion"]["weight"], triage["canary"]["weight"], triage["canary"]["version"]) == (50, 50, "3")
    assert [(m["monitor"], m["alarms"]) for m in triage["monitors"]] == [
        ("text", True), ("length", False), ("prediction", False), ("quality", False),
    ]  # fmt: skip
    assert (triage["alerts_firing"], assistant["alerts_firing"]) == (1, 0)
    assert (triage["run"], triage["rollout"], triage["verdict"]) == ("run-4", "triage/3", "triage/3")
    assert [r["seconds"] for r in status["runs"]] == [12.0, 18.0, 60.0]
    assert status["runs"][1]["steps"][2]["seconds"] == 11.3
    assert [v["passed"] for v in status["verdicts"]] == [True, False]
    assert status["verdicts"][1]["reasons"][0].startswith("groups: Group united lost")
    assert (status["worker"]["alive"], status["worker"]["unshipped"], status["worker"]["open_intents"]) == (True, 12, 3)
    assert (status["audit"]["events"], status["audit"]["newest"][0]["action"]) == (6, "rollout.canary")


def test_an_empty_state_without_a_project_has_a_status_too() -> None:
    status = loop_status(FakeState(StoppedClock()), None, StoppedClock())

    assert status["project"] is None
    assert status["endpoints"] == status["alerts"] == status["runs"] == []
    assert status["worker"]["alive"] is False
    assert set(status["worker"]) == WORKER
    assert status["audit"] == {"events": 0, "newest": []}


def test_an_endpoint_of_the_project_without_a_version_is_shown_without_targets() -> None:
    (triage, _) = loop_status(FakeState(StoppedClock()), PROJECT, StoppedClock())["endpoints"]

    assert (triage["model"], triage["champion"], triage["canary"], triage["monitors"]) == ("triage", None, None, [])


def test_evidence_against_an_older_champion_is_not_shown() -> None:
    state = told()
    with state.note() as change:
        change.put(replace(route(weight=None), revision=5, targets=(target("3", Role.CHAMPION, 100),)))

    (triage, _) = loop_status(state, PROJECT, StoppedClock())["endpoints"]
    assert triage["monitors"] == []


def test_resolved_alerts_are_left_out() -> None:
    state = told()
    with state.note() as change:
        change.put(state.find(Alert)[0].resolve(NOW, "triage/3 was promoted"))

    assert loop_status(state, PROJECT, StoppedClock())["alerts"] == []


def test_a_worker_that_went_silent_is_not_alive() -> None:
    state = told()
    with state.note() as change:
        change.put(Heartbeat(at=before(seconds=40), pid=1))

    worker = loop_status(state, PROJECT, StoppedClock())["worker"]
    assert (worker["alive"], worker["age_seconds"]) == (False, 40.0)


def test_numbers_that_json_does_not_know_become_null() -> None:
    assert plain({"a": math.inf, "b": math.nan, "c": 1.5}) == {"a": None, "b": None, "c": 1.5}


def test_only_the_end_of_a_long_audit_trail_is_shown() -> None:
    state = FakeState(StoppedClock())
    for number in range(70):
        with state.change("ada", "thing.done", str(number)):
            pass
    shown = audit_status(state, newest=5)
    assert (shown["events"], [e["sequence"] for e in shown["newest"]]) == (70, [70, 69, 68, 67, 66])
