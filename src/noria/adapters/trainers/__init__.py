"""Trainers, found by name (entry points `noria.trainers`), and the job that a ComputeEngine runs for them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from noria.adapters.plugins import load
from noria.adapters.registry.mlflow import MlflowRegistry
from noria.adapters.trainers.printing import logged
from noria.ports import Trainer, TrainingJob

GROUP = "noria.trainers"
"""Entry-point group; a plug-in's trainer comes in by the same door as our own."""


def train_job(*, trainer: str, artifacts_dir: str, **job: Any) -> dict[str, Any]:
    """Train, as a job by name: `noria.adapters.trainers:train_job`.

    Args:
        trainer: Name of the trainer.
        artifacts_dir: Where artefacts go if MLflow is a database that we open ourselves.
        job: The fields of a `ports.TrainingJob`.

    Returns:
        The fields of a `ports.TrainingResult`.
    """
    order = TrainingJob(**job)
    with logged(order.folder):
        found = load_trainer(trainer)
        MlflowRegistry(order.tracking_uri, Path(artifacts_dir), order.experiment).prepare()
        return asdict(found.train(order))


def load_trainer(name: str) -> Trainer:
    """The trainer of that name.

    Raises:
        InvalidProject: Nobody installed one, or several packages did.
        MissingExtra: It is installed without something that it needs.
    """
    trainer: Trainer = load(GROUP, name, "trainer", "as training.trainer", made=True)
    return trainer
