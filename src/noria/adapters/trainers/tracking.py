"""A training run in MLflow that can be repeated: the same job finds its finished run instead of training again."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import noria
from noria.adapters.registry.client import connect, load_mlflow
from noria.adapters.registry.mlflow import RUN
from noria.domain.errors import RegistryUnavailable
from noria.ports import TrainingJob, TrainingResult

LOGGED_MODEL = "noria.logged_model"
"""On a run: the URI of the model that it logged, set last."""
PREDICTIONS = "predictions"
"""Artefact folder with the answers on the held-out rows."""


def predictions_path(job: TrainingJob) -> Path:
    """Where the answers on the held-out rows are written: beside the rows."""
    return Path(job.holdout).with_name("predictions.parquet")


def finished(job: TrainingJob) -> TrainingResult | None:
    """What an earlier attempt at this job left, if it finished; an attempt that was cut off is closed as killed."""
    client = connect(job.tracking_uri)
    begun = client.search_runs([_experiment(client, job)], f"tags.`{RUN}` = '{job.run_id}'")
    for run in begun:
        if run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, "KILLED")
    done = next((run for run in begun if run.info.status == "FINISHED" and LOGGED_MODEL in run.data.tags), None)
    if done is None:
        return None
    path = predictions_path(job)
    if not path.exists():
        with TemporaryDirectory() as folder:
            kept = client.download_artifacts(done.info.run_id, f"{PREDICTIONS}/{path.name}", folder)
            shutil.copyfile(kept, path)
    return TrainingResult(
        logged_model_uri=done.data.tags[LOGGED_MODEL],
        mlflow_run_id=done.info.run_id,
        metrics=dict(done.data.metrics),
        predictions=str(path),
    )


@contextmanager
def tracked(job: TrainingJob) -> Iterator[Any]:
    """A new MLflow run for the job, active while the block runs; failed if the block raises."""
    mlflow = load_mlflow("sklearn", "pyfunc", "data", "data.sources")
    before = mlflow.environment_variables.MLFLOW_TRACKING_URI.get()  # which set_tracking_uri changes too
    mlflow.set_tracking_uri(job.tracking_uri)  # log_model knows no other way to be told
    try:
        tags = {RUN: job.run_id, "noria.endpoint": job.endpoint, "noria.code": noria.__version__}
        experiment = _experiment(connect(job.tracking_uri), job)
        with mlflow.start_run(experiment_id=experiment, run_name=f"{job.model} {job.run_id}", tags=tags):
            yield mlflow
    finally:
        mlflow.set_tracking_uri(before)


def _experiment(client: Any, job: TrainingJob) -> str:
    found = client.get_experiment_by_name(job.experiment)
    if found is None:
        raise RegistryUnavailable(
            f"MLflow has no experiment {job.experiment}.", "Make it, for example with MlflowRegistry.prepare()."
        )
    return str(found.experiment_id)
