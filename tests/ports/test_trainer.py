"""What every trainer promises: a logged model that can be registered, its answers, its baseline, and no second run."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fakes.prompts import RuleBase
from fakes.registry import FakeRegistry
from fakes.trainer import FakeTrainer
from noria.adapters.registry.mlflow import MlflowRegistry
from noria.adapters.trainers import few_shot
from noria.adapters.trainers.classifier import ClassifierTrainer
from noria.adapters.trainers.few_shot import FewShotTrainer
from noria.adapters.trainers.python import PythonTrainer
from noria.domain.errors import InvalidData
from noria.ports import ModelRegistry, Trainer, TrainingJob


class StoppedClock:
    def now(self) -> datetime:
        return datetime(2026, 1, 2, tzinfo=UTC)


@dataclass
class Case:
    trainer: Callable[[], Trainer]
    registry: ModelRegistry
    tracking_uri: str
    more: dict[str, object] = field(default_factory=dict)


@pytest.fixture(scope="session")
def mlflow_registry(tmp_path_factory: pytest.TempPathFactory) -> MlflowRegistry:
    folder = tmp_path_factory.mktemp("mlflow-trainer")
    registry = MlflowRegistry(f"sqlite:///{folder / 'mlflow.db'}", folder / "mlartifacts", "wheel")
    registry.prepare()
    return registry


ALL = ["fake", *(pytest.param(name, marks=pytest.mark.slow) for name in ("classifier", "few_shot", "python"))]


@pytest.fixture(params=ALL)
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    if request.param == "fake":
        fake = FakeRegistry(tmp_path / "fake", StoppedClock())
        trainer = FakeTrainer(fake)
        yield Case(lambda: trainer, fake, "fake:")
    else:
        registry = request.getfixturevalue("mlflow_registry")
        made = {"classifier": ClassifierTrainer, "few_shot": FewShotTrainer, "python": PythonTrainer}[request.param]
        more: dict[str, object] = {}
        if request.param == "few_shot":
            rules = RuleBase({"thanks": "praise", "terrible": "blame"})
            monkeypatch.setattr(few_shot, "open_base", lambda *_, **__: rules)
            more = {"base": {"upstream": "lab", "model": "m"}, "parameters": {"choices": [0, 2], "tune_rows": 20}}
        elif request.param == "python":
            more = {"parameters": {"function": "fakes.trained:words"}}
        yield Case(made, registry, registry.tracking_uri, more)


def write(path: Path, rows: int, seed: int, labels: tuple[str, ...] = ("praise", "blame")) -> str:
    """Messages whose first word tells the label, two in three times."""
    rng = random.Random(seed)
    told = {"praise": "thanks", "blame": "terrible"}
    label = [labels[i % len(labels)] for i in range(rows)]
    word = [told[name] if rng.random() < 0.9 else "hm" for name in label]
    table = pa.table(
        {
            "text": [f"{w} flight {rng.randrange(10_000)} to {rng.choice(['Oslo', 'Rome'])}" for w in word],
            "label": label,
            "group": [rng.choice(["east", "west"]) for _ in label],
            "origin": ["baseline"] * rows,
        }
    )
    pq.write_table(table, path)
    return str(path)


def job(case: Case, folder: Path, run_id: str, **more: object) -> TrainingJob:
    folder.mkdir(exist_ok=True)
    fields = {
        "endpoint": "triage",
        "model": "triage",
        "run_id": f"{folder.parent.name}-{run_id}",
        "tracking_uri": case.tracking_uri,
        "experiment": "wheel",
        "train": write(folder / "train.parquet", 120, 1),
        "holdout": write(folder / "holdout.parquet", 60, 2),
        "seed": 5,
    }
    return TrainingJob(**(fields | case.more | more))


def test_a_run_leaves_a_model_its_answers_and_its_baseline(case: Case, tmp_path: Path) -> None:
    work = job(case, tmp_path / "work", "one")
    result = case.trainer().train(work)
    answers = pq.read_table(result.predictions)
    assert {"text", "label", "group", "origin", "prediction", "score"} <= set(answers.column_names)
    assert answers["text"] == pq.read_table(work.holdout)["text"]
    right = sum(p == t for p, t in zip(answers["prediction"].to_pylist(), answers["label"].to_pylist(), strict=True))
    assert result.metrics["accuracy"] == pytest.approx(right / 60)
    assert right / 60 > 0.85
    version = case.registry.register(result.logged_model_uri, work.model, {})
    assert version.run_id == result.mlflow_run_id
    assert version.metrics["accuracy"] == pytest.approx(right / 60)
    assert (case.registry.download(version, "baseline") / "baseline.npz").is_file()


def test_the_same_run_again_returns_what_the_first_one_left(case: Case, tmp_path: Path) -> None:
    work = job(case, tmp_path / "work", "again")
    first = case.trainer().train(work)
    second = case.trainer().train(work)
    assert (second.logged_model_uri, second.mlflow_run_id) == (first.logged_model_uri, first.mlflow_run_id)
    assert second.predictions == first.predictions
    assert second.metrics["accuracy"] == first.metrics["accuracy"]


def test_two_runs_with_the_same_rows_and_seed_give_the_same_answers(case: Case, tmp_path: Path) -> None:
    one = case.trainer().train(job(case, tmp_path / "a", "left"))
    two = case.trainer().train(job(case, tmp_path / "b", "right"))
    assert one.mlflow_run_id != two.mlflow_run_id
    assert pq.read_table(one.predictions) == pq.read_table(two.predictions)


def test_rows_with_one_label_are_refused(case: Case, tmp_path: Path) -> None:
    work = job(case, tmp_path / "work", "narrow")
    write(Path(work.train), 40, 3, labels=("praise",))
    with pytest.raises(InvalidData, match="can't learn from 1 different labels"):
        case.trainer().train(work)
