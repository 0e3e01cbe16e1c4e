"""A trainer that learns the label of each first word, and an engine that hands it every job."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from noria.domain.errors import Cancelled, InvalidData
from noria.evaluation.quality import measure
from noria.ports import TrainingJob, TrainingResult


class FakeTrainer:
    """Implements ports.Trainer on a FakeRegistry."""

    def __init__(self, registry):
        self._registry = registry
        self._done = {}
        self.jobs = []

    def train(self, job):
        if job.run_id in self._done:
            return self._done[job.run_id]
        self.jobs.append(job)
        train, held = pq.read_table(job.train).to_pydict(), pq.read_table(job.holdout)
        if len(set(train["label"])) < 2:
            raise InvalidData("A classifier can't learn from 1 different labels.", "Give it rows with at least two.")
        usual = Counter(train["label"]).most_common(1)[0][0]
        votes = {}
        for text, label in zip(train["text"], train["label"], strict=True):
            votes.setdefault(first(text), Counter())[label] += 1
        said = [votes.get(first(t), Counter([usual])).most_common(1)[0][0] for t in held["text"].to_pylist()]
        path = Path(job.holdout).with_name("predictions.parquet")
        scored = held.append_column("prediction", pa.array(said)).append_column("score", pa.array([0.5] * len(said)))
        pq.write_table(scored, path)
        learnt = json.dumps({word: count.most_common(1)[0][0] for word, count in sorted(votes.items())})
        run_id = f"mlflow-{job.run_id}"
        uri = self._registry.log_model(run_id, {"MLmodel": learnt.encode()}, {"baseline/baseline.npz": b"cells"})
        metrics = measure(held["label"].to_pylist(), said).numbers()
        self._registry.metrics[run_id] = dict(metrics)
        result = TrainingResult(logged_model_uri=uri, mlflow_run_id=run_id, metrics=metrics, predictions=str(path))
        return self._done.setdefault(job.run_id, result)


class TrainerCompute:
    """Implements ports.ComputeEngine for the one job `noria.adapters.trainers:train_job`."""

    def __init__(self, trainer):
        self._trainer = trainer
        self.jobs = []

    def run(self, job, wanted=None):
        if wanted is not None and not wanted():
            raise Cancelled("Nobody wants it any more.")
        assert job.function == "noria.adapters.trainers:train_job"
        self.jobs.append(job)
        fields = json.loads(json.dumps(dict(job.arguments)))
        fields.pop("trainer")
        fields.pop("artifacts_dir")
        return json.loads(json.dumps(asdict(self._trainer.train(TrainingJob(**fields)))))

    def close(self):
        """Nothing to stop."""


def first(text):
    return text.split(maxsplit=1)[0] if text.strip() else ""
