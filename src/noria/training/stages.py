"""The steps of a run: what each of them does, and what it leaves for the next ones."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from noria.domain.alert import Alert
from noria.domain.errors import Cancelled, InvalidData
from noria.domain.events import AlertRaised
from noria.domain.model import Flavor, ModelVersion
from noria.domain.run import Run, RunState, StepDone, TriggerKind
from noria.evaluation.fairness import assess, fairness_chart
from noria.evaluation.quality import measure
from noria.ports import Clock, ComputeEngine, JobSpec, ModelRegistry, RecordStore, StateStore, TrainingJob
from noria.settings import Settings, Task, Training
from noria.training import datasets
from noria.training.following import Following
from noria.training.grading import certain, grade_chat
from noria.training.sources import count_labels

TRAIN_JOB = "noria.adapters.trainers:train_job"
"""The function that a ComputeEngine runs to train."""
EVIDENCE = "evidence"
"""Artefact folder of what a card is written from: dataset.json, quality.json and fairness.json with its chart."""

PROGRESS = "progress.jsonl"
"""In a run's folder: what the trainer says of how far it is."""

Report = dict[str, Any]
"""What a step leaves: `summary` in words, `numbers`, and whatever later steps need; all of it JSON."""
WriteCard = Callable[[str, ModelVersion, Run, Mapping[str, Any]], None]
"""Writes the card: endpoint, version, run, and the evidence `data`, `metrics` (names → numbers), `fairness` (rows)."""


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What the steps work with.

    Attributes:
        state: Runs and alerts.
        records: The tables.
        registry: Models.
        compute: Where training happens.
        clock: Times.
        settings: The project in service.
        redact: Endpoint → what is taken out of a text of the project's own data, as it is out of records.
        write_card: Writes a version's card.
        sleep: Waits for some seconds.
        poll_s: Pause between two looks at the labels, in seconds.
    """

    state: StateStore
    records: RecordStore
    registry: ModelRegistry
    compute: ComputeEngine
    clock: Clock
    settings: Callable[[], Settings]
    redact: Callable[[str], Callable[[str], str]]
    write_card: WriteCard
    sleep: Callable[[float], None] = time.sleep
    poll_s: float = 1.0

    def work_dir(self, run_id: str) -> Path:
        """Where a run keeps its files."""
        return self.settings().work_dir / run_id

    def training(self, run: Run) -> Training:
        """How the run's endpoint is trained."""
        return datasets.training_of(run.endpoint, self.settings())

    def demand_running(self, run_id: str) -> Run:
        """The run, if it still goes on.

        Raises:
            Cancelled: It doesn't.
        """
        run = self.state.get(Run, run_id)
        assert run is not None, f"run {run_id} was there when it began"
        if run.state is not RunState.RUNNING:
            raise Cancelled(f"Run {run_id} {run.state.value} meanwhile: {run.error}")
        return run

    def progress(self, run_id: str, step: StepDone, **fields: Any) -> None:
        """Show in the run how far a step has come."""
        with self.state.note() as note:
            run = note.get(Run, run_id)
            if run is not None and run.state is RunState.RUNNING:
                note.put(replace(run.with_step(step), **fields))


Stage = Callable[[Workshop, Run, Mapping[str, Report]], Report]
"""One step: it gets the reports of the steps before it."""


def wait_for_labels(shop: Workshop, run: Run, _reports: Mapping[str, Report]) -> Report:
    """A run that an alarm set off waits for people to label what came since: without that there is nothing to learn.

    Raises:
        InvalidData: Too few labels came in time.
    """
    training = shop.training(run)
    if run.trigger.kind is not TriggerKind.ALERT:
        return {"summary": "not needed: no alarm set this run off"}
    since = _alarm_time(shop, run)
    seen = -1
    while True:
        fresh = count_labels(shop.records, run.endpoint, since)
        now = shop.clock.now()
        shop.demand_running(run.id)
        summary = f"{fresh} of {training.min_labels} labels since the alarm"
        if fresh >= training.min_labels:
            return {"summary": summary, "numbers": {"fresh_labels": float(fresh)}}
        if now - run.started_at >= training.label_wait:
            raise InvalidData(
                f"Only {fresh} of {training.min_labels} labels came within {training.label_wait} of the run's start.",
                "Send labels to /feedback, or lower training.min_labels, then run noria retrain.",
            )
        if fresh != seen:
            numbers = {"fresh_labels": float(fresh)}
            waiting = StepDone(
                name="labels", started_at=run.started_at, finished_at=now, summary=summary, numbers=numbers
            )
            shop.progress(run.id, waiting)
            seen = fresh
        shop.sleep(shop.poll_s)


def _alarm_time(shop: Workshop, run: Run) -> datetime:
    """When the alarm was raised: the evidence behind it is older, and reaches back into the time when all was well."""
    for alert in shop.state.find(Alert, endpoint=run.endpoint):
        if AlertRaised(endpoint=run.endpoint, alert_id=alert.id, at=alert.raised_at).id == run.trigger.cause:
            return alert.raised_at
    return run.started_at


def take_snapshot(shop: Workshop, run: Run, _reports: Mapping[str, Report]) -> Report:
    """Freeze the rows."""
    settings = shop.settings()
    folder, redact = shop.work_dir(run.id), shop.redact(run.endpoint)
    make = partial(datasets.snapshot, run.endpoint, settings, shop.records, folder, redact)
    summary = datasets.keep(run.endpoint, run.id, shop.records, folder, shop.clock.now(), make)
    numbers = summary.numbers()
    return {
        "summary": f"{numbers['train_rows']:.0f} rows to learn from, {numbers['holdout_rows']:.0f} held out, "
        f"{summary.production_rows} of them labelled records",
        "numbers": numbers,
        "dataset": asdict(summary),
    }


def validate(_shop: Workshop, _run: Run, reports: Mapping[str, Report]) -> Report:
    """See whether the rows will do."""
    summary = datasets.DatasetSummary(**reports["snapshot"]["dataset"])
    datasets.validate(summary)
    shares = ", ".join(f"{label} {rows}" for label, rows in summary.train_labels.items())
    return {"summary": f"sound; rows to learn from: {shares}"}


def train(shop: Workshop, run: Run, reports: Mapping[str, Report]) -> Report:
    """Have the model trained away from this process."""
    settings, training, dataset = shop.settings(), shop.training(run), reports["snapshot"]["dataset"]
    job = TrainingJob(
        endpoint=run.endpoint,
        model=run.model,
        run_id=run.id,
        tracking_uri=settings.tracking_uri,
        experiment=settings.experiment,
        train=dataset["train"],
        holdout=dataset["holdout"],
        parameters=dict(training.parameters),
        seed=training.seed,
        task=settings.project.endpoints[run.endpoint].task.value,
        base=_base(training, settings),
        folder=str(shop.work_dir(run.id)),
        progress=str(shop.work_dir(run.id) / PROGRESS),
    )
    where = {"trainer": training.trainer, "artifacts_dir": str(settings.artifacts_dir)}
    following = Following(shop.state, run.id, "train", Path(job.progress))
    try:
        result = shop.compute.run(JobSpec(TRAIN_JOB, where | asdict(job)), following.wanted)
    finally:
        following.over()
    numbers = {name: result["metrics"][name] for name in ("train_seconds",) if name in result["metrics"]}
    return {"summary": f"trained by {training.trainer}", "numbers": numbers, **result}


def _base(training: Training, settings: Settings) -> dict[str, Any]:
    """The language model that training starts from: a path is made one that any process finds, and of an upstream it
    is said where that is, without its key."""
    if training.base is None:
        return {}
    base = training.base.model_dump(mode="json")
    reflection = training.parameters.get("reflection")  # of the trainer prompt: another model, perhaps elsewhere
    if isinstance(reflection, Mapping) and reflection.get("upstream") in settings.project.upstreams:
        base["reflection_at"] = settings.project.upstreams[reflection["upstream"]].model_dump(mode="json")
    if "upstream" in base:
        return base | {"at": settings.project.upstreams[base["upstream"]].model_dump(mode="json")}
    if not base["gguf"].startswith("python:"):
        base["gguf"] = str((settings.root / Path(base["gguf"]).expanduser()).resolve())
    return base


def evaluate(shop: Workshop, run: Run, reports: Mapping[str, Report]) -> Report:
    """Measure quality and fairness on the held-out rows, and keep both with the MLflow run."""
    rows = pq.read_table(reports["train"]["predictions"]).to_pydict()
    seed = shop.training(run).seed
    if shop.settings().project.endpoints[run.endpoint].task is Task.CHAT:
        quality, table = grade_chat(rows, seed)
        numbers, of = quality, "answers near the wanted ones"
        summary = (
            f"ROUGE-L {quality['rouge_l']:.3f}, exactly right {quality['exact_match']:.1%}, "
            f"near {quality['near']:.3f} ({quality['near_low']:.3f} to {quality['near_high']:.3f}) "
            f"on {len(rows['label'])} held-out rows"
        )
        said: Mapping[str, Any] = quality
    else:
        scores = rows["score"] if certain(rows["score"]) else None
        measured = measure(rows["label"], rows["prediction"], scores)
        table = assess(rows["label"], rows["prediction"], rows["group"], seed=seed)
        numbers, of, said = measured.numbers(), "accuracy", asdict(measured)
        low, high = measured.interval.low, measured.interval.high
        summary = f"accuracy {measured.accuracy:.3f} ({low:.3f} to {high:.3f}) on {measured.rows} held-out rows"
    metrics = numbers | table.numbers()
    logged = _unregistered(run, reports["train"]["mlflow_run_id"])
    files = {
        "dataset.json": reports["snapshot"]["dataset"],
        "quality.json": said,
        "fairness.json": {"rows": table.to_rows(), **table.numbers()},
        "fairness.vl.json": fairness_chart(table, f"{run.model}, run {run.id}: {of} by group"),
    }
    shop.registry.attach(logged, {k: json.dumps(v, indent=2).encode() for k, v in files.items()}, EVIDENCE)
    shop.registry.log_metrics(logged, metrics)
    gap = f"largest gap between groups {table.gap:.3f}" if len(table.judged) > 1 else "too few rows to compare groups"
    return {"summary": f"{summary}; {gap}", "numbers": metrics, "fairness": table.to_rows()}


def _unregistered(run: Run, mlflow_run_id: str) -> ModelVersion:
    """What will become a version: evidence is kept with its MLflow run before it has a number."""
    return ModelVersion(
        name=run.model,
        version="",
        flavor=Flavor.PYFUNC,
        uri="",
        run_id=mlflow_run_id,
        checksum="",
        source="",
        licence="",
        created_at=run.started_at,
    )


def register(shop: Workshop, run: Run, reports: Mapping[str, Report]) -> Report:
    """Make a version of what was trained."""
    training, dataset = shop.training(run), reports["snapshot"]["dataset"]
    tags = {
        "noria.run_id": run.id,
        "noria.endpoint": run.endpoint,
        "noria.trusted": "yes",  # our own trainer made it, just now
        "noria.licence": training.licence,
        "noria.source": f"trained by {training.trainer} on {training.data} "
        f"and {dataset['production_rows']} labelled records of {run.endpoint}",
    }
    version = shop.registry.register(reports["train"]["logged_model_uri"], run.model, tags)
    return {"summary": f"registered as {version.ref}", "version": version.version, "checksum": version.checksum}


def write_card(shop: Workshop, run: Run, reports: Mapping[str, Report]) -> Report:
    """Write the version's card from what the steps before found."""
    version = shop.registry.version(run.model, reports["register"]["version"])
    dataset = reports["snapshot"]["dataset"]
    evidence = {
        "data": reports["snapshot"]["numbers"] | {"data_sha256": dataset["data_sha256"]},
        "metrics": reports["evaluate"]["numbers"],
        "fairness": reports["evaluate"]["fairness"],
    }
    shop.write_card(run.endpoint, version, run, evidence)
    return {"summary": f"card of {version.ref} written"}
