"""Everything about an adapter in one MLflow run: parameters, data, losses, answers, baseline, the model."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from noria.adapters.trainers.lora.options import Options
from noria.adapters.trainers.prompts import log_prompt
from noria.adapters.trainers.records import Columns, Said, log_work, make_baseline, numbers_of, result_of, write_answers
from noria.adapters.trainers.tracking import tracked
from noria.domain.prompt import ADAPTER, Prompt
from noria.evaluation.baseline import Baseline
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
        numbers: Metrics of the training.
        losses: Of each step.
        how: Device, number format, base.
    """

    train: Columns
    held: Columns
    said: Said
    numbers: Mapping[str, float]
    losses: Sequence[float]
    how: Mapping[str, str]


def log(job: TrainingJob, options: Options, prompt: Prompt, trained: Trained, adapter: Path | None) -> TrainingResult:
    """Put it all into one run, the model's URI last."""
    write_answers(job, trained.said)
    parameters = asdict(options) | dict(trained.how) | {"trainer": "lora"}
    parameters |= {f"{name}_version": version(name) for name in _PACKAGES}
    metrics = dict(trained.numbers) | (numbers_of(job.task, trained.held, trained.said) if prompt.labels else {})
    with tracked(job) as mlflow:
        baseline = _baseline(job, prompt, trained)
        logged = log_work(mlflow, job, parameters=parameters, metrics=metrics, baseline=baseline)
        _log_losses(mlflow, trained.losses)
        uri = log_prompt(mlflow, prompt, {ADAPTER: adapter} if adapter is not None else {})
        return result_of(mlflow, job, uri, logged)


def _baseline(job: TrainingJob, prompt: Prompt, trained: Trained) -> Baseline:
    """What the monitors compare the version's traffic with."""
    if prompt.labels:
        return make_baseline(trained.train, trained.held, trained.said.answers, job.seed)
    return Baseline.fit(fit_texts=trained.train["text"], count_texts=trained.held["text"], seed=job.seed)


def _log_losses(mlflow: Any, losses: Sequence[float]) -> None:
    """The loss by step, thinned out where there are very many."""
    every = max(1, len(losses) // _LOSSES)
    for step in range(every - 1, len(losses), every):
        mlflow.log_metric("train_loss", losses[step], step=step + 1)
