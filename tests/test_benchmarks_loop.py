"""The loop's benchmark: what it counts is what happened."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import pytest
from benchmarks.loop import canaries, gates, lora, turns
from benchmarks.loop.shop import reworded

from fakes.state import FakeState
from fakes.story import ALERT, PASSED, ROLLOUT, StoppedClock
from noria.adapters.registry.client import load_mlflow
from noria.domain.events import AlertRaised
from noria.domain.rollout import Stage, StageChange
from noria.domain.run import Run, RunState, StepDone, Trigger, TriggerKind

AT = datetime(2026, 11, 23, 14, tzinfo=UTC)


def test_a_failing_candidate_is_gone_and_an_equal_one_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(canaries.RUNS, True, 40)
    found, missing = canaries.measure(True)
    assert not missing
    assert found["false_rollback_rate"] <= found["false_rollback_rate_95"][1] < 0.2
    assert found["bad_canaries"]["errors"]["rolled_back"] == 1
    assert 0 < found["bad_canary_median_requests"] < 1000


def test_another_world_has_other_words_and_the_same_short_ones() -> None:
    assert reworded("the parcel is late", 0) == "the parcel is late"
    assert reworded("the parcel is late", 2) == "the lecrapcx is etalcx"
    assert reworded("parcel", 1) != reworded("parcel", 2)


def second(number: float) -> datetime:
    return AT + timedelta(seconds=number)


def test_the_parts_of_a_turn_add_up_to_the_whole() -> None:
    state = FakeState(StoppedClock(AT))
    alert = replace(ALERT, raised_at=AT)
    with state.note() as note:
        note.put(alert)
    cause = AlertRaised(endpoint="triage", alert_id=alert.id, at=AT).id
    steps = [("labels", 1, 2), ("train", 3, 8)]
    run = Run(
        id="r",
        endpoint="triage",
        trigger=Trigger(kind=TriggerKind.ALERT, cause=cause, actor="noria", reason=""),
        state=RunState.SUCCEEDED,
        started_at=second(1),
        finished_at=second(9),
        steps=tuple(StepDone(name=n, started_at=second(a), finished_at=second(b)) for n, a, b in steps),
    )
    history = (StageChange(second(12), Stage.SHADOW, 0, ""), StageChange(second(15), Stage.PROMOTED, 100, ""))
    parts = turns._parts(
        state, run, replace(PASSED, decided_at=second(11)), replace(ROLLOUT, history=history), second(-2)
    )
    between = [
        "alert_to_run", "run_to_training", "train", "training_to_candidate", "gates", "verdict_to_shadow",
        "shadow_and_canary",
    ]  # fmt: skip
    assert sum(parts[name] for name in between) == parts["alert_to_serving"] == 15
    rolled_back = replace(ROLLOUT, history=(replace(history[0]), replace(history[1], stage=Stage.ROLLED_BACK)))
    with pytest.raises(RuntimeError, match="rolled back"):
        turns._parts(state, run, PASSED, rolled_back, AT)


@pytest.mark.slow
def test_a_thousand_rows_are_tried_as_the_trial_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_mlflow("sklearn", "pyfunc", "models")
    monkeypatch.setitem(gates.ROUNDS, True, 1)
    found, _ = gates.measure(tmp_path, True)
    assert found["gate_throughput_vs_upstream"] > 0
    assert all(each["rows_per_s"] > 10 for each in found["gates"].values())


@pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed, so nothing is missing")
def test_without_torch_the_reason_is_said_for_each_figure(tmp_path: Path) -> None:
    found, missing = lora.measure(tmp_path, True)
    assert not found
    assert set(missing) == {"lora_tokens_per_s", "lora_accuracy_before", "lora_accuracy_after"}
    assert all("torch" in reason for reason in missing.values())
