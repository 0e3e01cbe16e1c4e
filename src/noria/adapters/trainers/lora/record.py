"""Everything about an adapter in one MLflow run: parameters, data, losses, answers, baseline, the model."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from noria.adapters.registry.client import metric_names
from noria.adapters.registry.modelfiles import checksum
from noria.adapters.trainers.lora.options import Options
from noria.adapters.trainers.prompts import log_prompt
from noria.adapters.trainers.records import make_baseline
from noria.adapters.trainers.tracking import LOGGED_MODEL, PREDICTIONS, predictions_path, tracked
from noria.domain.prompt import ADAPTER, Prompt
from noria.evaluation.baseline import FILE, Baseline
from noria.evaluation.quality import measure
from noria.ports import TrainingJob, TrainingResult

_PACKAGES = ("torch", "transformers", "peft", "gguf")
_LOSSES = 500
"""Most points of the loss that are logged."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of the training.

    Attributes:
        train: Columns of the rows that were learnt from.
        held: Columns of the held-out rows.
        said: The answers to the held-out rows, or to the first of them.
        scores: How probable each was.
        numbers: Metrics of the training.
        losses: Of each step.
        how: Device, number format, base.
    """

    train: Mapping[str, list[Any]]
    held: Mapping[str, list[Any]]
    said: list[str]
    scores: list[float]
    numbers: Mapping[str, float]
    losses: Sequence[float]
    how: Mapping[str, str]


def log(job: TrainingJob, options: Options, prompt: Prompt, trained: Trained, adapter: Path | None) -> TrainingResult:
    """Put it all into one run, the model's URI last."""
    rows = len(trained.said)
    predictions = pq.read_table(job.holdout).slice(0, rows)
    for name, column in (("prediction", trained.said), ("score", trained.scores)):
        predictions = predictions.append_column(name, pa.array(column))
    path = predictions_path(job)
    pq.write_table(predictions, path)
    metrics = metric_names(dict(trained.numbers) | (_quality(trained) if prompt.labels else {}))
    baseline = path.with_name(FILE)
    baseline.write_bytes(_baseline(job, prompt, trained).to_bytes())
    with tracked(job) as mlflow:
        mlflow.log_params(asdict(options) | dict(trained.how) | {"trainer": "lora", "seed": job.seed})
        mlflow.log_params({f"{name}_version": version(name) for name in _PACKAGES})
        _log_data(mlflow, job)
        _log_losses(mlflow, trained.losses)
        mlflow.log_metrics(metrics)
        mlflow.log_artifact(str(path), PREDICTIONS)
        mlflow.log_artifact(str(baseline), "baseline")
        uri = log_prompt(mlflow, prompt, {ADAPTER: adapter} if adapter is not None else {})
        run_id = mlflow.active_run().info.run_id
        mlflow.set_tag(LOGGED_MODEL, uri)
    return TrainingResult(logged_model_uri=uri, mlflow_run_id=run_id, metrics=metrics, predictions=str(path))


def _quality(trained: Trained) -> dict[str, float]:
    """Quality on all held-out rows, and accuracy by origin."""
    held = trained.held
    right = np.asarray(held["label"], dtype=object) == np.asarray(trained.said, dtype=object)
    origin = np.asarray(held["origin"], dtype=object)
    numbers = dict(measure(held["label"], trained.said, trained.scores).numbers())
    return numbers | {f"accuracy_{name}": float(right[origin == name].mean()) for name in sorted(set(held["origin"]))}


def _baseline(job: TrainingJob, prompt: Prompt, trained: Trained) -> Baseline:
    """What the monitors compare the version's traffic with."""
    if prompt.labels:
        return make_baseline(trained.train, trained.held, trained.said, job.seed)
    return Baseline.fit(fit_texts=trained.train["text"], count_texts=trained.held["text"], seed=job.seed)


def _log_data(mlflow: Any, job: TrainingJob) -> None:
    for file, context in ((job.train, "train"), (job.holdout, "holdout")):
        frame = pq.read_table(file, columns=["text", "label", "group", "origin"]).to_pandas()
        source = mlflow.data.sources.LocalArtifactDatasetSource(file)
        digest = checksum(Path(file))[:36]  # as long as MLflow takes
        mlflow.log_input(mlflow.data.from_pandas(frame, source, "label", context, digest), context)


def _log_losses(mlflow: Any, losses: Sequence[float]) -> None:
    """The loss by step, thinned out where there are very many."""
    every = max(1, len(losses) // _LOSSES)
    for step in range(every - 1, len(losses), every):
        mlflow.log_metric("train_loss", losses[step], step=step + 1)
