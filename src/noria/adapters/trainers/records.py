"""What every trainer keeps with its MLflow run: parameters, rows, numbers, answers, baseline, code and environment."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import noria
from noria.adapters.registry.client import metric_names
from noria.adapters.registry.modelfiles import checksum
from noria.adapters.trainers.tracking import LOGGED_MODEL, PREDICTIONS, predictions_path
from noria.domain.errors import InvalidData
from noria.evaluation.baseline import FILE, Baseline
from noria.evaluation.quality import measure
from noria.evaluation.references import likeness
from noria.ports import TrainingJob, TrainingResult

RECENT_ROWS = 300
"""Held-out production rows that make a baseline of their own; with fewer all held-out rows do."""
PACKAGES = ("noria", "mlflow", "scikit-learn", "numpy", "skops", "xllamacpp", "gepa", "torch", "transformers", "peft")
"""Whose versions are written down with a run, as far as they are installed."""

Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Said:
    """What a model says to the held-out rows.

    Attributes:
        answers: Labels, or a chat's answers.
        scores: How probable the model thinks each, 0 to 1 (a whole answer: the mean of a token); for a chat that
            doesn't tell, how like the wanted answer it is (ROUGE-L).
        certain: Whether scores are the model's own probabilities.
    """

    answers: list[str]
    scores: list[float]
    certain: bool = True

    @classmethod
    def of(cls, likely: Sequence[Mapping[str, float]], *, certain: bool = True) -> "Said":
        """The most probable label of each row."""
        best = [max(row, key=lambda label: row[label]) for row in likely]
        return cls(best, [float(row[label]) for row, label in zip(likely, best, strict=True)], certain)

    @classmethod
    def chat(cls, answers: Sequence[str], wanted: Sequence[str]) -> "Said":
        """A chat's answers, beside those that were wanted."""
        return cls(list(answers), [likeness(a, w).rouge_l for a, w in zip(answers, wanted, strict=True)], certain=False)


def read_rows(file: str) -> dict[str, list[Any]]:
    """The columns of a job's rows."""
    columns: dict[str, list[Any]] = pq.read_table(file).to_pydict()
    return columns


def labels_of(columns: Columns) -> tuple[str, ...]:
    """The labels of a classification, sorted.

    Raises:
        InvalidData: There are fewer than two.
    """
    found = tuple(sorted({str(label) for label in columns["label"]}))
    if len(found) < 2:
        raise InvalidData(
            f"A classifier can't learn from {len(found)} different labels.", "Give it rows with at least two."
        )
    return found


def numbers_of(task: str, held: Columns, said: Said) -> dict[str, float]:
    """Quality on the held-out rows, and by origin."""
    origins = sorted(set(held["origin"]))
    if task == "chat":
        near = [likeness(a, w) for a, w in zip(said.answers, held["label"], strict=True)]
        return {
            "exact_match": float(np.mean([each.exact_match for each in near])),
            "rouge1": float(np.mean([each.rouge1 for each in near])),
            "rouge_l": float(np.mean([each.rouge_l for each in near])),
            "rows": float(len(near)),
        }
    numbers = measure(held["label"], said.answers, said.scores if said.certain else None).numbers()
    right = np.asarray(held["label"], dtype=object) == np.asarray(said.answers, dtype=object)
    origin = np.asarray(held["origin"], dtype=object)
    return numbers | {f"accuracy_{name}": float(right[origin == name].mean()) for name in origins}


def write_answers(job: TrainingJob, said: Said) -> Path:
    """The held-out rows (the first of them, where no more were asked) with what the model says, beside the rows."""
    table = pq.read_table(job.holdout).slice(0, len(said.answers))
    for name, column in (("prediction", pa.array(said.answers)), ("score", pa.array(said.scores, pa.float64()))):
        table = table.append_column(name, column)
    path = predictions_path(job)
    pq.write_table(table, path)
    return path


def make_baseline(train: Columns, held: Columns, said: Sequence[str], seed: int, *, chat: bool = False) -> Baseline:
    """What the monitors compare the version's traffic with.

    The newest half of the held-out production rows, if that makes enough of them: traffic will look like the traffic
    of late, not like the data that the project began with.
    """
    real = [i for i, origin in enumerate(held["origin"]) if origin == "production"]
    rows: Sequence[int] = range(len(said))
    if len(real) >= RECENT_ROWS:
        newest = sorted(real, key=lambda i: held["time"][i], reverse=True) if "time" in held else real
        rows = newest[: max(RECENT_ROWS, len(real) // 2)]
    return Baseline.fit(
        fit_texts=train["text"],
        count_texts=[held["text"][i] for i in rows],
        predictions=None if chat else [said[i] for i in rows],
        correct=None if chat else [said[i] == held["label"][i] for i in rows],
        seed=seed,
    )


def log_rows(mlflow: Any, job: TrainingJob) -> None:
    """The rows as inputs of the run, by name and checksum."""
    for file, context in ((job.train, "train"), (job.holdout, "holdout")):
        frame = pq.read_table(file, columns=["text", "label", "group", "origin"]).to_pandas()
        source = mlflow.data.sources.LocalArtifactDatasetSource(file)
        digest = checksum(Path(file))[:36]  # as long as MLflow takes
        mlflow.log_input(mlflow.data.from_pandas(frame, source, "label", context, digest), context)


def log_work(
    mlflow: Any,
    job: TrainingJob,
    *,
    parameters: Mapping[str, Any],
    metrics: Mapping[str, float],
    baseline: Baseline,
) -> dict[str, float]:
    """Everything about a training run but its model; returns the metrics under the names that MLflow takes."""
    named = metric_names(metrics)
    mlflow.log_params({**parameters, "seed": job.seed, "task": job.task})
    log_rows(mlflow, job)
    mlflow.log_metrics(named)
    mlflow.log_artifact(str(predictions_path(job)), PREDICTIONS)
    artifact = predictions_path(job).with_name(FILE)
    artifact.write_bytes(baseline.to_bytes())
    mlflow.log_artifact(str(artifact), "baseline")
    mlflow.log_dict(environment(), "environment.json")
    return named


def result_of(
    mlflow: Any, job: TrainingJob, uri: str, metrics: Mapping[str, float], cost_usd: float = 0.0
) -> TrainingResult:
    """Say of the active run that it is done, which is the last thing that a trainer does; and what it left."""
    mlflow.set_tag(LOGGED_MODEL, uri)
    return TrainingResult(
        logged_model_uri=uri,
        mlflow_run_id=mlflow.active_run().info.run_id,
        metrics=metrics,
        predictions=str(predictions_path(job)),
        cost_usd=cost_usd,
    )


def environment() -> dict[str, Any]:
    """What the code ran on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "noria": noria.__version__,
        "packages": found,
    }
