"""`noria run`: what a person sees of runs, and stopping one."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from noria import bootstrap
from noria.cli import app
from noria.domain.errors import UnknownModel
from noria.domain.run import Progress, Run, RunState, StepDone, Trigger, TriggerKind


def run(project: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["--project", str(project), "run", *words])


@pytest.fixture
def training(project: Path) -> Path:
    at = datetime.now(UTC) - timedelta(minutes=2, seconds=5)
    trigger = Trigger(kind=TriggerKind.ALERT, cause="alert:1", actor="noria", reason="the texts changed")
    told = Progress(
        step="train", since=at, at=at + timedelta(seconds=30), done=25, of=100, message="step 25", numbers={"loss": 0.4}
    )
    step = StepDone(name="labels", started_at=at, finished_at=at + timedelta(seconds=3), summary="200 labels")
    steps = (step, *(StepDone(name=name, started_at=at, finished_at=at) for name in ("snapshot", "validate")))
    with bootstrap.state(bootstrap.settings(project)).note() as note:
        note.put(
            Run(
                id="triage-1", endpoint="triage", trigger=trigger, state=RunState.RUNNING, started_at=at, steps=steps,
                model="triage", progress=told, cost_usd=1.5,
            )
        )  # fmt: skip
    return project


def test_runs_are_listed_with_where_they_are(training: Path) -> None:
    said = run(training, "list").stdout
    assert all(word in said for word in ("triage-1", "alert", "running", "train 25%", "2 min ago"))
    assert json.loads(run(training, "list", "--json").stdout)[0]["progress"]["done"] == 25
    assert "no run yet" in run(training, "list", "--endpoint", "other").stdout


def test_a_run_shows_why_its_steps_and_how_long_it_will_take(training: Path) -> None:
    said = run(training, "show", "triage-1").stdout
    for words in ("the texts changed", "200 labels", "… train 25%", "about 90 s left", "loss 0.4", "1.50 US dollars"):
        assert words in said
    assert isinstance(run(training, "show", "triage-9").exception, UnknownModel)


def test_what_training_printed_is_shown(training: Path) -> None:
    assert "printed nothing yet" in run(training, "logs", "triage-1").stdout
    folder = bootstrap.settings(training).work_dir / "triage-1"
    folder.mkdir(parents=True)
    (folder / "run.log").write_text("\n".join(f"line {n}" for n in range(99)) + "\n\x1b[31mred\n")
    said = run(training, "logs", "triage-1", "-n", "2").stdout.splitlines()
    assert said == ["line 98", "�[31mred"]


def test_a_run_is_cancelled_with_a_name_and_a_reason(training: Path) -> None:
    assert "is cancelled" in run(training, "cancel", "triage-1", "--by", "ada", "--reason", "wrong data").stdout
    assert "cancelled by ada: wrong data" in run(training, "show", "triage-1").stdout
    assert run(training, "show", "triage-1", "--follow").exit_code == 1
    run(training, "logs", "triage-1", "--follow")
