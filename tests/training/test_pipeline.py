import json
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fakes.compute import InlineCompute
from fakes.records import MemoryRecords
from fakes.registry import FakeRegistry
from fakes.state import FakeState
from fakes.trainer import FakeTrainer, TrainerCompute
from fakes.workflows import MemorySteps
from noria.adapters.registry.mlflow import MlflowRegistry
from noria.domain.alert import Alert, AlertState
from noria.domain.errors import InvalidData, NoriaError
from noria.domain.events import AlertRaised, CandidateRegistered, RunFailed, RunStarted
from noria.domain.model import ModelVersion
from noria.domain.run import Run, RunState, Trigger, TriggerKind
from noria.settings import Project, Settings
from noria.tables import FEEDBACK, INFERENCE
from noria.training.pipeline import PIPELINE, Pipeline

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
NAMES = [name for name, _ in PIPELINE]


class Clock:
    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at

    def now_us(self) -> int:
        return int(self.at.timestamp() * 1e6)


class Bench:
    """A pipeline over fakes, and what tests do with it."""

    def __init__(self, root: Path, registry: Any = None, compute: Any = None) -> None:
        self.root = root
        self.clock = Clock()
        self.state = FakeState(self.clock)
        self.records = MemoryRecords()
        self.registry = registry or FakeRegistry(root / "registry", self.clock)
        self.trainer = FakeTrainer(self.registry)
        self.compute = compute or TrainerCompute(self.trainer)
        self.cards: list[tuple[str, ModelVersion, Mapping[str, Any]]] = []
        self.on_sleep: Callable[[], None] = lambda: None
        self.more: dict[str, Any] = {}
        self.training: dict[str, Any] = {"data": "rows.csv", "min_labels": 5, "label_wait": "10s"}
        self.pipeline = Pipeline(
            state=self.state,
            records=self.records,
            registry=self.registry,
            compute=self.compute,
            clock=self.clock,
            settings=self.settings,
            redact=lambda _endpoint: lambda text: text.replace("secret", "[secret]"),
            write_card=self.write_card,
            sleep=self.sleep,
        )
        self.batch = 0
        rng = random.Random(4)
        lines = [
            f"{'fine' if n % 2 else 'awful'} trip {n} {rng.random()},{'good' if n % 2 else 'bad'}" for n in range(200)
        ]
        (root / "rows.csv").write_text("text,label\nsecret 1,bad\n" + "\n".join(lines) + "\n")

    def settings(self) -> Settings:
        endpoint = {"task": "classification", "policy": "p.yaml", "group": "brand", "training": self.training}
        endpoint |= self.more
        project = {"project": "wheel", "endpoints": {"triage": endpoint}}
        return Settings(root=self.root, project=Project.model_validate(project))

    def write_card(self, endpoint: str, version: ModelVersion, run: Run, evidence: Mapping[str, Any]) -> None:
        self.cards.append((endpoint, version, evidence))
        self.registry.attach(version, {"README.md": b"card"}, "card")

    def sleep(self, seconds: float) -> None:
        self.clock.at += timedelta(seconds=seconds)
        self.on_sleep()

    def start(self, kind: TriggerKind = TriggerKind.PERSON, cause: str = "asked") -> RunStarted:
        run = Run(
            id="triage-1",
            endpoint="triage",
            trigger=Trigger(kind=kind, cause=cause, actor="ada", reason="because"),
            state=RunState.RUNNING,
            started_at=self.clock.at,
            model="triage",
        )
        with self.state.note() as note:
            note.put(run)
        return RunStarted(endpoint="triage", run_id=run.id)

    def alarm(self) -> RunStarted:
        alert = Alert(
            id="triage:text:1",
            endpoint="triage",
            monitor="text",
            state=AlertState.FIRING,
            raised_at=START,
            since=START - timedelta(days=9),
            summary="the texts have changed",
        )
        with self.state.note() as note:
            note.put(alert)
        event = AlertRaised(endpoint="triage", alert_id=alert.id, at=alert.raised_at)
        return self.start(TriggerKind.ALERT, event.id)

    def labelled(self, count: int, at: datetime) -> None:
        """Labelled records of requests at that time."""
        self.batch += 1
        ids = [f"{self.batch}-{n}" for n in range(count)]
        asked = [
            {
                "databricks_request_id": request,
                "request_time": at,
                "request": json.dumps({"input": f"{'odd' if n % 2 else 'grim'} phone {request}"}),
                "endpoint": "triage",
                "route": "champion",
                "metadata": [("brand", "phone")],
            }
            for n, request in enumerate(ids)
        ]
        said = [
            {"request_id": request, "endpoint": "triage", "feedback_time": at, "label": "good" if n % 2 else "bad"}
            for n, request in enumerate(ids)
        ]
        self.records.append("inference", pa.Table.from_pylist(asked, INFERENCE), "test", self.batch)
        self.records.append("feedback", pa.Table.from_pylist(said, FEEDBACK), "test", self.batch)

    @property
    def run(self) -> Run:
        found = self.state.get(Run, "triage-1")
        assert found is not None
        return found

    def told(self, kind: type) -> list[Any]:
        return [event for event in self.state.pending_events() if isinstance(event, kind)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_run_ends_with_a_candidate_its_evidence_and_its_card(bench: Bench) -> None:
    bench.labelled(80, START)
    bench.pipeline.execute(bench.start(), MemorySteps())
    run = bench.run
    assert (run.state, run.version, run.error) == (RunState.SUCCEEDED, "1", "")
    assert [step.name for step in run.steps] == NAMES
    assert run.finished_at == bench.clock.at
    assert bench.told(CandidateRegistered) == [
        CandidateRegistered(endpoint="triage", model="triage", version="1", run_id=run.id)
    ]
    version = bench.registry.version("triage", "1")
    assert version.run_id == run.mlflow_run_id
    assert version.tags["noria.run_id"] == run.id
    assert version.licence == "LicenseRef-proprietary"
    assert version.source == "trained by classifier on rows.csv and 80 labelled records of triage"
    assert {"accuracy", "macro_f1", "group_gap"} <= set(version.metrics)
    evidence = bench.registry.download(version, "evidence")
    fairness = json.loads((evidence / "fairness.json").read_text())
    assert {row["group"] for row in fairness["rows"]} == {"phone", "(not given)", "all"}
    assert json.loads((evidence / "dataset.json").read_text())["production_rows"] == 80
    endpoint, carded, said = bench.cards[0]
    assert (endpoint, carded) == ("triage", version)
    assert said["metrics"]["accuracy"] == version.metrics["accuracy"]
    assert said["data"]["production_rows"] == 80
    assert said["fairness"] == fairness["rows"]


def test_the_audit_holds_the_candidate_with_its_checksum_and_numbers(bench: Bench) -> None:
    bench.pipeline.execute(bench.start(), MemorySteps())
    (entry,) = bench.state.audit_trail()
    assert (entry.action, entry.subject, entry.reason) == ("candidate.registered", "triage/1", "because")
    assert entry.evidence["checksum"] == bench.registry.version("triage", "1").checksum
    assert entry.evidence["accuracy"] == bench.registry.version("triage", "1").metrics["accuracy"]


def test_the_gates_get_the_rows_that_the_run_held_out(bench: Bench) -> None:
    bench.labelled(80, START)
    bench.pipeline.execute(bench.start(), MemorySteps())
    rows = bench.pipeline.holdout("triage", "triage-1")
    assert rows is not None
    assert set(rows.origins) == {"baseline", "production"}
    assert len(rows.texts) == bench.run.steps[1].numbers["holdout_rows"]
    assert bench.pipeline.holdout("other", "triage-1") is None


def test_a_version_that_no_run_made_is_judged_on_the_projects_file_or_on_what_the_newest_run_held_out(
    bench: Bench,
) -> None:
    assert bench.pipeline.holdout("triage", "") is None
    bench.pipeline.execute(bench.start(), MemorySteps())
    assert bench.pipeline.holdout("triage", "") == bench.pipeline.holdout("triage", "triage-1")
    (bench.root / "held.csv").write_text("text,label,group\na secret trip,good,north\n")
    bench.more = {"holdout": "held.csv"}
    rows = bench.pipeline.holdout("triage", "")
    assert rows is not None
    assert (rows.texts, rows.labels, rows.groups, rows.origins) == (
        ("a [secret] trip",),
        ("good",),
        ("north",),
        ("baseline",),
    )


def test_what_the_project_brings_is_redacted_before_it_is_kept(bench: Bench) -> None:
    file = bench.root / "rows.csv"
    file.write_text(file.read_text().replace("trip", "secret"))
    bench.pipeline.execute(bench.start(), MemorySteps())
    rows = bench.pipeline.holdout("triage", "triage-1")
    assert rows is not None
    assert all("[secret]" in text for text in rows.texts)


def test_a_run_that_an_alarm_set_off_waits_for_labels_of_requests_since_the_alarm(bench: Bench) -> None:
    bench.labelled(50, START - timedelta(minutes=1))
    seen: list[str] = []

    def people_label() -> None:
        seen.append(bench.run.steps[0].summary)
        bench.labelled(2, bench.clock.at)

    bench.on_sleep = people_label
    bench.pipeline.execute(bench.alarm(), MemorySteps())
    assert seen == [f"{n} of 5 labels since the alarm" for n in (0, 2, 4)]
    assert bench.run.state is RunState.SUCCEEDED
    assert bench.run.steps[0].summary == "6 of 5 labels since the alarm"


def test_a_run_whose_labels_never_come_fails_and_says_so(bench: Bench) -> None:
    bench.pipeline.execute(bench.alarm(), MemorySteps())
    assert bench.run.state is RunState.FAILED
    assert bench.run.error.startswith("Only 0 of 5 labels came within 0:00:10 of the run's start.")
    assert bench.told(RunFailed) == [RunFailed(endpoint="triage", run_id="triage-1")]
    assert bench.registry.versions("triage") == []
    (entry,) = bench.state.audit_trail()
    assert (entry.action, entry.reason) == ("run.failed", bench.run.error)


def test_data_that_cannot_be_used_fails_the_run_with_the_sentence(bench: Bench) -> None:
    (bench.root / "rows.csv").write_text("text,group\nhello,x\n")
    bench.pipeline.execute(bench.start(), MemorySteps())
    assert bench.run.state is RunState.FAILED
    assert "has no column label" in bench.run.error
    assert [step.name for step in bench.run.steps] == ["labels"]
    assert bench.told(CandidateRegistered) == []


def test_a_card_that_cannot_be_written_leaves_no_candidate(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise InvalidData("The policy names no owner.", "Name one.")

    monkeypatch.setattr(bench, "write_card", refuse)
    object.__setattr__(bench.pipeline, "write_card", refuse)
    bench.pipeline.execute(bench.start(), MemorySteps())
    assert bench.run.state is RunState.FAILED
    assert bench.run.version == ""
    assert bench.told(CandidateRegistered) == []


class Killed(BaseException):
    """The process was killed."""


class KilledAfter:
    """Steps of a worker that dies after a step was done and before that was written down."""

    def __init__(self, steps: MemorySteps, name: str) -> None:
        self.steps = steps
        self.name = name

    def __call__(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        if name == self.name:
            function(*arguments)
            raise Killed
        return self.steps(name, function, *arguments)


@pytest.mark.parametrize("name", [*NAMES, "finish"])
def test_a_worker_that_dies_after_any_step_leaves_one_candidate_all_the_same(bench: Bench, name: str) -> None:
    event, steps = bench.start(), MemorySteps()
    with pytest.raises(Killed):
        bench.pipeline.execute(event, KilledAfter(steps, name))
    bench.pipeline.execute(event, steps)
    assert bench.run.state is RunState.SUCCEEDED
    assert [step.name for step in bench.run.steps] == NAMES
    assert len(bench.trainer.jobs) == 1
    assert [v.version for v in bench.registry.versions("triage")] == ["1"]
    assert len(bench.told(CandidateRegistered)) == 1
    assert [entry.action for entry in bench.state.audit_trail()] == ["candidate.registered"]


def test_a_run_that_ended_is_not_walked_again(bench: Bench) -> None:
    event = bench.start()
    bench.pipeline.execute(event, MemorySteps())
    bench.pipeline.execute(event, MemorySteps())
    assert len(bench.trainer.jobs) == 1
    assert len(list(bench.state.audit_trail())) == 1


def test_a_passing_trouble_of_training_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    work, failures = bench.trainer.train, [NoriaError("The process was killed.", "Run it again.")]

    def stumble(job: Any) -> Any:
        if failures:
            raise failures.pop()
        return work(job)

    monkeypatch.setattr(bench.trainer, "train", stumble)
    bench.pipeline.execute(bench.start(), MemorySteps())
    assert bench.run.state is RunState.SUCCEEDED


@pytest.mark.slow
def test_the_whole_pipeline_runs_on_mlflow_with_the_real_classifier(tmp_path: Path) -> None:
    home = tmp_path / ".noria"
    registry = MlflowRegistry(f"sqlite:///{home / 'mlflow.db'}", home / "mlartifacts", "wheel")
    bench = Bench(tmp_path, registry, InlineCompute())
    bench.labelled(80, START)
    bench.pipeline.execute(bench.start(), MemorySteps())
    assert bench.run.error == ""
    version = registry.version("triage", "1")
    assert version.tags["noria.trusted"] == "yes"
    assert version.metrics["accuracy"] > 0.9
    evidence = registry.download(version, "evidence")
    assert (evidence / "fairness.png").read_bytes().startswith(b"\x89PNG")
    assert (registry.download(version, "card") / "README.md").is_file()
    assert (registry.download(version, "baseline") / "baseline.npz").is_file()
