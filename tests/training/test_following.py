"""Runs that tell how far they are, and runs that somebody stops."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fakes.state import FakeState
from fakes.traffic import Clock
from fakes.workflows import MemorySteps
from noria.adapters.compute import LocalCompute
from noria.adapters.trainers.progress import Progress as Teller
from noria.domain.errors import Cancelled, Refused, UnknownModel
from noria.domain.events import RunFailed
from noria.domain.run import Progress, Run, RunState, StepDone, Trigger, TriggerKind
from noria.ports import JobSpec
from noria.training.cancelling import cancel
from noria.training.following import Following
from noria.training.order import STEPS
from noria.training.pipeline import PIPELINE
from training.test_pipeline import Bench

AT = datetime(2026, 3, 2, 12, tzinfo=UTC)


def run(**more):
    trigger = Trigger(kind=TriggerKind.PERSON, cause="asked", actor="ada", reason="because")
    known = {"id": "triage-1", "endpoint": "triage", "trigger": trigger, "state": RunState.RUNNING, "started_at": AT}
    return Run(**(known | more))


@pytest.fixture
def state():
    made = FakeState(Clock())
    with made.note() as note:
        note.put(run())
    return made


def test_what_a_job_says_is_shown_in_its_run_with_what_is_left(state, tmp_path):
    path = tmp_path / "progress.jsonl"
    following = Following(state, "triage-1", "train", path)
    assert following.wanted()
    assert state.get(Run, "triage-1").progress is None
    Teller(str(path)).say(10, 100, "epoch 1", loss=0.5)
    Teller(str(path)).say(25, 100, "epoch 1", loss=0.4)
    assert following.wanted()
    told = state.get(Run, "triage-1").progress
    assert (told.step, told.done, told.of, told.message, dict(told.numbers)) == (
        "train",
        25,
        100,
        "epoch 1",
        {"loss": 0.4},
    )
    assert told.share == 0.25
    following.over()
    assert state.get(Run, "triage-1").progress is None


def test_a_line_that_is_half_written_waits_for_its_end(state, tmp_path):
    path = tmp_path / "progress.jsonl"
    following = Following(state, "triage-1", "train", path)
    line = json.dumps({"at": AT.isoformat(), "done": 1, "of": 2, "message": "m", "numbers": {}})
    path.write_text(line[:20])
    assert following.wanted()
    assert state.get(Run, "triage-1").progress is None
    path.write_text(line + "\n")
    assert following.wanted()
    assert state.get(Run, "triage-1").progress.share == 0.5


@pytest.mark.parametrize(
    ("done", "of", "share", "left"), [(1, 4, 0.25, 30.0), (0, 4, 0.0, None), (3, 0, None, None), (9, 4, 1.0, 0.0)]
)
def test_what_is_left_follows_from_the_pace_so_far(done, of, share, left):
    told = Progress(step="train", since=AT, at=AT + timedelta(seconds=10), done=done, of=of)
    assert (told.share, told.remaining_s) == (share, left)


def test_a_run_is_cancelled_in_somebodys_name_and_goes_no_further(state):
    clock = Clock(AT)
    ended = cancel(state, clock, "triage-1", " ada ", "wrong data")
    assert (ended.state, ended.error, ended.finished_at) == (RunState.CANCELLED, "cancelled by ada: wrong data", AT)
    [event] = state.audit_trail()
    assert (event.actor, event.action, event.subject, event.reason) == (
        "ada",
        "run.cancelled",
        "triage-1",
        "wrong data",
    )
    assert not Following(state, "triage-1", "train", Path("nowhere")).wanted()
    with pytest.raises(Refused, match="is over: it cancelled"):
        cancel(state, clock, "triage-1", "ada", "again")


def test_what_cannot_be_cancelled_is_said(state):
    with pytest.raises(UnknownModel):
        cancel(state, Clock(), "triage-9", "ada", "why")
    for actor, reason in (("", "why"), ("ada", " ")):
        with pytest.raises(Refused, match="person and a reason"):
            cancel(state, Clock(), "triage-1", actor, reason)
    with state.note() as note:
        note.put(run(steps=(StepDone(name="register", started_at=AT, finished_at=AT),)))
    with pytest.raises(Refused, match="has its candidate already"):
        cancel(state, Clock(), "triage-1", "ada", "why")


def test_the_names_of_the_steps_are_those_of_the_pipeline():
    assert tuple(name for name, _ in PIPELINE) == STEPS


@pytest.mark.parametrize("at", STEPS[:5])
def test_a_run_that_is_cancelled_before_any_step_registers_nothing_and_fails_nobody(tmp_path, at):
    bench = Bench(tmp_path)
    event, steps = bench.start(), MemorySteps()

    def stopped(name, function, *arguments):
        if name == at:
            cancel(bench.state, bench.clock, "triage-1", "ada", "enough")
        return steps(name, function, *arguments)

    bench.pipeline.execute(event, stopped)
    assert bench.state.get(Run, "triage-1").state is RunState.CANCELLED
    assert bench.registry.versions("triage") == []
    assert bench.registry.abandoned == ["triage-1"]
    assert not [e for e in bench.state.pending_events() if isinstance(e, RunFailed)]


def sleep_for_ever(mark: str) -> dict[str, str]:
    Path(mark).write_text("begun")
    while True:
        time.sleep(0.05)


def test_a_job_that_nobody_wants_any_more_is_killed_and_the_engine_takes_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    engine, mark = LocalCompute(threads=1), tmp_path / "mark"
    try:
        job = JobSpec("training.test_following:sleep_for_ever", {"mark": str(mark)})
        with pytest.raises(Cancelled, match="nobody wants it"):
            engine.run(job, lambda: not mark.exists())
        assert engine.run(JobSpec("training.test_following:say", {"word": "next"})) == {"said": "next"}
        assert engine.run(JobSpec("training.test_following:say", {"word": "on"}), lambda: True) == {"said": "on"}
    finally:
        engine.close()


def say(word: str) -> dict[str, str]:
    return {"said": word}
