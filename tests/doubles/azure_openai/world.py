"""What there is at the double: files, fine-tuning jobs, deployments, faults, and a ledger of all that was asked."""

import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from doubles.azure_openai.learning import BaseModel, Chat, Model, TunedModel, chat_tokens, read_chats


class Refusal(Exception):
    """An answer that isn't the one that was hoped for."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers


@dataclass
class File:
    """An uploaded file."""

    name: str
    purpose: str
    content: bytes
    id: str = field(default_factory=lambda: f"file-{uuid.uuid4().hex}")
    created_at: int = field(default_factory=lambda: int(time.time()))
    status: str = "processed"
    details: str | None = None

    def json(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "object": "file", "id": self.id, "bytes": len(self.content), "created_at": self.created_at,
            "filename": self.name, "purpose": self.purpose, "status": self.status, "status_details": self.details,
        }  # fmt: skip


@dataclass
class Job:
    """A fine-tuning job, which a thread works on."""

    request: Mapping[str, Any]
    train: list[Chat]
    checked: list[Chat]
    number: int
    id: str = field(default_factory=lambda: f"ftjob-{uuid.uuid4().hex}")
    created_at: int = field(default_factory=lambda: int(time.time()))
    status: str = "pending"
    finished_at: int | None = None
    tuned: str | None = None
    trained_tokens: int | None = None
    results: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    epochs: int = 3
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.status in ("succeeded", "failed", "cancelled")

    def tell(self, message: str, **data: Any) -> None:
        """Add an event."""
        self.events.append({
            "object": "fine_tuning.job.event", "id": f"ftevent-{uuid.uuid4().hex}", "created_at": int(time.time()),
            "level": "info", "message": message, "type": "metrics" if data else "message", "data": data,
        })  # fmt: skip

    def json(self) -> dict[str, Any]:
        """As the API shows it."""
        asked = self.request.get("hyperparameters") or {}
        return {
            "object": "fine_tuning.job", "id": self.id, "created_at": self.created_at, "model": self.request["model"],
            "status": self.status, "finished_at": self.finished_at, "fine_tuned_model": self.tuned,
            "organization_id": "org-double", "result_files": self.results, "seed": self.request.get("seed", 0),
            "training_file": self.request["training_file"], "validation_file": self.request.get("validation_file"),
            "hyperparameters": {"n_epochs": self.epochs, "batch_size": asked.get("batch_size", "auto"),
                                "learning_rate_multiplier": asked.get("learning_rate_multiplier", "auto")},
            "trained_tokens": self.trained_tokens, "error": self.error, "suffix": self.request.get("suffix"),
            "metadata": self.request.get("metadata"), "estimated_finish": None, "integrations": [],
        }  # fmt: skip


@dataclass
class Deployment:
    """A model that can be asked under a name, once it is there."""

    name: str
    body: dict[str, Any]
    state: str = "Creating"
    ready_at: float = 0.0


@dataclass
class Fault:
    """What goes wrong with requests whose `METHOD PATH` holds a text."""

    match: str
    kind: str
    times: int = 1
    seconds: float = 0.0


@dataclass
class World:
    """All of it, behind one lock."""

    epoch_s: float = 0.0
    operation_s: float = 0.05
    quota: int = 5
    bases: tuple[str, ...] = ("gpt-4o-mini-2024-07-18", "gpt-4.1-nano-2025-04-14")
    files: dict[str, File] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    ledger: list[dict[str, Any]] = field(default_factory=list)
    tokens: dict[str, float] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    released: threading.Event = field(default_factory=threading.Event)
    """Unset, operations of the management plane don't get on."""

    def __post_init__(self) -> None:
        self.released.set()
        for name in self.bases:
            self.models[name] = BaseModel()
        properties = {"model": {"format": "OpenAI", "name": self.bases[0], "version": "2024-07-18"}}
        self.deployments["base"] = Deployment("base", {"properties": properties, "sku": None}, "Succeeded")

    def upload(self, name: str, purpose: str, content: bytes) -> File:
        """Keep a file; one for fine-tuning is looked through."""
        made = File(name, purpose, content)
        if purpose == "fine-tune":
            try:
                read_chats(content)
            except ValueError as error:
                made.status, made.details = "error", str(error)
        self.files[made.id] = made
        return made

    def begin(self, request: Mapping[str, Any]) -> Job:
        """Begin a fine-tuning job."""
        if request.get("model") not in self.models:
            raise Refusal(400, "invalidPayload", f"The model {request.get('model')} can't be fine-tuned.")
        rows = [self._rows(request.get(which)) for which in ("training_file", "validation_file")]
        if not rows[0]:
            raise Refusal(400, "invalidPayload", "The training file isn't there.")
        job = Job(request, rows[0], rows[1], len(self.jobs) + 1)
        epochs = (request.get("hyperparameters") or {}).get("n_epochs", "auto")
        job.epochs = 3 if epochs == "auto" else int(epochs)
        self.jobs[job.id] = job
        threading.Thread(target=self._work, args=(job,), daemon=True).start()
        return job

    def _rows(self, file_id: str | None) -> list[Chat]:
        if not file_id:
            return []
        if file_id not in self.files or self.files[file_id].status != "processed":
            raise Refusal(400, "invalidPayload", f"The file {file_id} isn't there, or isn't fit for training.")
        return read_chats(self.files[file_id].content)

    def _work(self, job: Job) -> None:
        job.tell("Job enqueued. Waiting for jobs ahead to complete.")
        job.status = "running"
        job.tell("Job started.")
        asked = job.request.get("hyperparameters") or {}
        batch = 16 if (size := asked.get("batch_size", "auto")) == "auto" else int(size)
        model = TunedModel(int(job.request.get("seed") or job.number))
        lines = ["step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"]
        suffix = f".{job.request['suffix']}" if job.request.get("suffix") else ""
        name = f"{job.request['model']}.ft-{job.id[6:38]}{suffix}"
        for epoch in model.learn(job.train, job.checked, job.epochs, batch):
            if job.cancelled.wait(self.epoch_s):
                break
            steps = epoch.number * -(-len(job.train) // batch)
            numbers = {"step": steps, "train_loss": epoch.train_loss, "train_mean_token_accuracy": epoch.train_accuracy}
            if epoch.valid_loss is not None:
                numbers |= {"valid_loss": epoch.valid_loss, "valid_mean_token_accuracy": epoch.valid_accuracy}
            job.tell(f"Step {steps}: training loss={epoch.train_loss:.4f}", **numbers)
            job.checkpoints.append(_checkpoint(job, f"{name}:ckpt-step-{steps}", steps, numbers))
            lines.append(",".join(str(v) if v is not None else "" for v in (
                steps, epoch.train_loss, epoch.train_accuracy, epoch.valid_loss, epoch.valid_accuracy)))  # fmt: skip
            job.trained_tokens = epoch.number * sum(map(chat_tokens, job.train))
        with self.lock:
            if job.cancelled.is_set():
                return
            results = File("step_metrics.csv", "fine-tune-results", "\n".join(lines).encode())
            self.files[results.id] = results
            self.models[name] = model
            job.results, job.tuned, job.finished_at = [results.id], name, int(time.time())
            job.tell("The job has successfully completed.")
            job.status = "succeeded"

    def cancel(self, job_id: str) -> Job:
        """Stop a job."""
        job = self.job(job_id)
        with self.lock:
            if job.over:
                raise Refusal(400, "jobNotCancellable", f"Job {job_id} has already {job.status}.")
            job.cancelled.set()
            job.status, job.finished_at = "cancelled", int(time.time())
            job.tell("Fine-tuning job cancelled.")
        return job

    def job(self, job_id: str) -> Job:
        """The job of that id."""
        if job_id not in self.jobs:
            raise Refusal(404, "notFound", f"There is no fine-tuning job {job_id}.")
        return self.jobs[job_id]

    def asked(self, name: str) -> Model:
        """What answers under a deployment's name or, as at OpenAI, a model's own."""
        deployed = self.deployments.get(name)
        if deployed is not None and deployed.state == "Succeeded":
            name = deployed.body["properties"]["model"]["name"]
        if name not in self.models:
            raise Refusal(404, "DeploymentNotFound", f"The API deployment {name} does not exist.")
        return self.models[name]


def _checkpoint(job: Job, name: str, step: int, numbers: dict[str, Any]) -> dict[str, Any]:
    return {
        "object": "fine_tuning.job.checkpoint", "id": f"ftckpt-{uuid.uuid4().hex}", "created_at": int(time.time()),
        "fine_tuning_job_id": job.id, "fine_tuned_model_checkpoint": name, "step_number": step, "metrics": numbers,
    }  # fmt: skip
