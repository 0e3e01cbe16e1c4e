import os
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from noria.adapters.registry.client import connect, load_mlflow
from noria.adapters.registry.mlflow import MlflowRegistry
from noria.adapters.trainers import load_trainer, train_job
from noria.adapters.trainers.classifier import Answers, ClassifierTrainer, Options, fit, uncalibrated
from noria.adapters.trainers.records import make_baseline
from noria.domain.errors import InvalidProject
from noria.evaluation.baseline import Baseline
from noria.evaluation.quality import calibration_error
from noria.ports import TrainingJob

OPENING = {"praise": ["love it", "great", "thank you"], "blame": ["awful", "never again", "lost"], "ask": ["when", "?"]}


def messages(rows: int, seed: int, brand: str = "airline") -> tuple[list[str], list[str]]:
    """Labelled messages; one in ten carries the wrong label."""
    rng = random.Random(seed)
    texts, labels = [], []
    for _ in range(rows):
        label = rng.choice(list(OPENING))
        texts.append(f"{rng.choice(OPENING[label])} @{brand} number {rng.randrange(1000)}")
        labels.append(label if rng.random() < 0.9 else rng.choice(list(OPENING)))
    return texts, labels


def table(rows: int, seed: int, origin: str = "baseline") -> pa.Table:
    texts, labels = messages(rows, seed)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return pa.table(
        {
            "text": texts,
            "label": labels,
            "group": ["airline"] * rows,
            "origin": [origin] * rows,
            "time": [start + timedelta(minutes=i) for i in range(rows)],
        }
    )


def job(registry: MlflowRegistry, folder: Path, run_id: str, **more: Any) -> TrainingJob:
    pq.write_table(table(300, 1), folder / "train.parquet")
    pq.write_table(table(100, 2), folder / "holdout.parquet")
    return TrainingJob(
        endpoint="triage",
        model="triage",
        run_id=run_id,
        tracking_uri=registry.tracking_uri,
        experiment="wheel",
        train=str(folder / "train.parquet"),
        holdout=str(folder / "holdout.parquet"),
        **more,
    )


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> MlflowRegistry:
    folder = tmp_path_factory.mktemp("mlflow-classifier")
    made = MlflowRegistry(f"sqlite:///{folder / 'mlflow.db'}", folder / "mlartifacts", "wheel")
    made.prepare()
    return made


def test_it_learns_and_its_probabilities_are_meant() -> None:
    texts, labels = messages(3000, 1)
    model = fit(texts, labels, ["baseline"] * 3000, Options())
    fresh, truth = messages(1500, 2)
    answers = Answers.of(model, fresh)
    hits = [said == right for said, right in zip(answers.labels, truth, strict=True)]
    assert np.mean(hits) > 0.88
    assert calibration_error(hits, answers.scores) < 0.06


@pytest.mark.parametrize("labels", [2, 3])
def test_probabilities_are_made_true_without_another_answer(labels: int) -> None:
    texts, truth = messages(900, 1)
    names = list(OPENING)[:labels]
    rows = [(text, label) for text, label in zip(texts, truth, strict=True) if label in names]
    sure = Options(
        c=500.0, calibration="temperature"
    )  # it learns the wrong labels by heart, and is far too sure of itself
    model = fit([t for t, _ in rows], [la for _, la in rows], ["baseline"] * len(rows), sure)
    before = uncalibrated(model)
    assert before is not None
    fresh, right = zip(*[(t, la) for t, la in zip(*messages(1500, 2), strict=True) if la in names], strict=True)
    assert Answers.of(before, fresh).labels == Answers.of(model, fresh).labels
    places = [list(model.classes_).index(label) for label in right]

    def surprise(asked: Any) -> float:
        return float(-np.log(asked.predict_proba(fresh)[np.arange(len(places)), places]).mean())

    assert surprise(model) < surprise(before)
    assert uncalibrated(fit([t for t, _ in rows], [la for _, la in rows], ["x"] * len(rows), Options())) is None


def test_a_labelled_production_record_outweighs_a_row_of_the_projects_own_data() -> None:
    texts = ["up", "up", "up", "down"] * 20
    labels = ["good", "good", "bad", "bad"] * 20
    origins = ["baseline", "baseline", "production", "baseline"] * 20
    heavy = fit(texts, labels, origins, Options(production_weight=5))
    light = fit(texts, labels, origins, Options(production_weight=1))
    assert heavy.predict(["up"])[0] == "bad"
    assert light.predict(["up"])[0] == "good"


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"depth": 3}, "has no parameter depth"),
        ({"c": 0}, "0 can't be the classifier's c"),
        ({"c": True}, "True can't be"),
        ({"class_weight": "heavy"}, "'heavy' can't be the classifier's class_weight"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_explained(parameters: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidProject, match=problem):
        Options.read(parameters)


def test_the_baseline_counts_the_newest_production_rows_when_there_are_enough() -> None:
    train = table(400, 1).to_pydict()
    held = pa.concat_tables([table(200, 2), table(700, 3, "production")]).to_pydict()
    said = ["praise"] * 550 + ["blame"] * 350  # only the newest 350 are blamed
    baseline = make_baseline(train, held, said, seed=0)
    assert baseline.rows == 350
    assert baseline.prediction is not None
    assert int(baseline.prediction.counts.max()) == 350


def test_the_baseline_counts_all_held_out_rows_when_production_is_young() -> None:
    train = table(400, 1).to_pydict()
    held = pa.concat_tables([table(200, 2), table(299, 3, "production")]).to_pydict()
    assert make_baseline(train, held, held["label"], seed=0).rows == 499


def test_a_trainer_that_nobody_installed_is_explained() -> None:
    assert isinstance(load_trainer("classifier"), ClassifierTrainer)
    with pytest.raises(InvalidProject, match="No trainer is called oracle") as caught:
        load_trainer("oracle")
    assert "classifier" in caught.value.remedy


@pytest.mark.slow
def test_the_logged_model_answers_through_mlflow_and_needs_no_pickle(registry: MlflowRegistry, tmp_path: Path) -> None:
    import skops.io

    result = ClassifierTrainer().train(job(registry, tmp_path, "answers"))
    version = registry.register(result.logged_model_uri, "triage", {})
    folder = registry.download(version)
    assert skops.io.get_untrusted_types(file=folder / "model.skops") == []
    assert not list(folder.rglob("*.pkl"))
    mlflow = load_mlflow("pyfunc")
    loaded = mlflow.pyfunc.load_model(str(folder))
    said = loaded.predict(np.array(["great flight", "awful, never again"], dtype=object))
    assert list(said) == ["praise", "blame"]


@pytest.mark.slow
def test_everything_that_explains_a_version_is_on_its_run(registry: MlflowRegistry, tmp_path: Path) -> None:
    result = ClassifierTrainer().train(job(registry, tmp_path, "explained", seed=9, parameters={"c": 1.5}))
    run = connect(registry.tracking_uri).get_run(result.mlflow_run_id)
    assert run.data.params["c"] == "1.5"
    assert run.data.params["seed"] == "9"
    assert run.data.tags["noria.run_id"] == "explained"
    assert run.data.tags["noria.code"]
    assert {i.dataset.name for i in run.inputs.dataset_inputs} == {"train", "holdout"}
    assert {"accuracy", "macro_f1", "calibration_error", "accuracy_baseline", "f1_blame"} <= set(run.data.metrics)
    version = registry.register(result.logged_model_uri, "explained", {})
    baseline = Baseline.from_bytes((registry.download(version, "baseline") / "baseline.npz").read_bytes())
    assert baseline.rows == 100
    assert baseline.floor is not None
    assert (registry.download(version, "predictions") / "predictions.parquet").is_file()


@pytest.mark.slow
def test_a_job_by_name_makes_its_experiment_and_is_repeated_without_its_files(tmp_path: Path) -> None:
    registry = MlflowRegistry(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "art", "wheel")
    work = job(registry, tmp_path, "by-name")
    fields = {name: getattr(work, name) for name in TrainingJob.__dataclass_fields__}
    first = train_job(trainer="classifier", artifacts_dir=str(tmp_path / "art"), **fields)
    Path(first["predictions"]).unlink()
    second = train_job(trainer="classifier", artifacts_dir=str(tmp_path / "art"), **fields)
    assert second == first
    assert Path(second["predictions"]).is_file()


@pytest.mark.slow
def test_a_run_that_was_cut_off_is_closed_and_done_anew(registry: MlflowRegistry, tmp_path: Path) -> None:
    client = connect(registry.tracking_uri)
    cut = client.create_run(registry.prepare(), tags={"noria.run_id": "cut"}).info.run_id
    work = job(registry, tmp_path, "cut")
    result = ClassifierTrainer().train(work)
    assert result.mlflow_run_id != cut
    assert client.get_run(cut).info.status == "KILLED"
    with pytest.raises(InvalidProject):
        ClassifierTrainer().train(replace(work, run_id="other", parameters={"depth": 1}))


@pytest.mark.slow
def test_a_run_leaves_no_tracking_uri_behind_in_the_environment(
    registry: MlflowRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    ClassifierTrainer().train(job(registry, tmp_path, "tidy"))
    assert "MLFLOW_TRACKING_URI" not in os.environ
