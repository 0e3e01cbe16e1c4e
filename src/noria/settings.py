"""The project file's schema (`noria.yaml`) and the one frozen settings object; nothing else reads the environment."""

import os
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$")]
"""Names that go into URLs, file names and table rows: lower case letters, digits, `-` and `_`."""

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(value: object) -> object:
    """Read `10s`, `5m`, `1h`, `1d` or a number of seconds."""
    if isinstance(value, str):
        for unit in ("ms", "s", "m", "h", "d"):
            number = value.removesuffix(unit)
            if number != value and number.replace(".", "", 1).isdigit():
                return timedelta(seconds=float(number) * _UNITS[unit])
        raise PydanticCustomError("duration", "write a duration such as 10s, 5m, 1h or 1d")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return timedelta(seconds=value)
    return value


Duration = Annotated[timedelta, BeforeValidator(_duration, json_schema_input_type=str | float), Field(gt=timedelta(0))]


class Strict(BaseModel):
    """A part of the project file: frozen, and a key that nobody knows is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Task(StrEnum):
    """What an endpoint does."""

    CLASSIFICATION = "classification"
    CHAT = "chat"


class Redaction(StrEnum):
    """What is taken out of text before it touches the disk."""

    EMAIL = "email"
    PHONE = "phone"
    CARD = "card"
    IBAN = "iban"
    CREDENTIAL = "credential"


class Server(Strict):
    """Where the API listens and how much it takes."""

    host: str = Field("127.0.0.1", description="Address to listen on. Without API keys only loopback is allowed.")
    port: int = Field(8480, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    max_body_bytes: int = Field(10_000_000, ge=1024, description="Longest request body that is accepted.")


class Mlflow(Strict):
    """Where MLflow keeps runs and models."""

    tracking_uri: str = Field("", description="MLflow tracking and registry URI; default is SQLite beside the project.")
    experiment: str = Field("", description="Experiment that runs are logged to; default is the project's name.")


class Webhook(Strict):
    """An address that is told of every alert with a JSON POST."""

    url: str = Field(description="http(s) address to POST alerts to.")


class Notify(Strict):
    """Who is told of alerts."""

    log: bool = Field(True, description="Write alerts to the worker's log.")
    console: bool = Field(False, description="Print alerts as a table on the terminal that runs noria up.")
    webhooks: tuple[Webhook, ...] = ()


class GgufModel(Strict):
    """A llama.cpp model file to register and serve."""

    gguf: str = Field(description="Path to the .gguf file, or python:PACKAGE/FILE for a file inside a package.")
    licence: str = Field(description="SPDX identifier of the weights' licence, for example Apache-2.0.")
    source: str = Field(description="Where the weights come from.")
    context: int = Field(2048, ge=256, description="Tokens of context.")
    threads: int = Field(1, ge=1, description="CPU threads for decoding.")
    slots: int = Field(4, ge=1, description="Requests that are decoded together.")


class Training(Strict):
    """How the endpoint's model is trained, and when again."""

    trainer: str = Field("classifier", description="Name of a trainer (entry point noria.trainers).")
    data: str = Field(description="CSV or Parquet file with the columns text, label and, optionally, group.")
    licence: str = Field(
        "LicenseRef-proprietary", min_length=1, description="SPDX identifier of the licence of what is trained."
    )
    parameters: Mapping[str, Any] = Field(default_factory=dict, description="Passed to the trainer.")
    holdout: float = Field(0.25, gt=0, lt=0.9, description="Share of the rows that nothing is learnt from.")
    on_alert: bool = Field(True, description="Start a run when a monitor of this endpoint alarms.")
    schedule: str | None = Field(None, description="Cron expression (UTC) that starts runs.")
    on_labels: int | None = Field(None, ge=1, description="Start a run after this many new labels.")
    min_labels: int = Field(
        200, ge=1, description="Fresh labels that a run waits for before it takes its snapshot of the records."
    )
    label_wait: Duration = Field(
        timedelta(hours=24), description="Longest time that a run waits for min_labels before it fails."
    )
    cooldown: Duration = Field(timedelta(hours=1), description="Shortest time between runs that nobody asked for.")
    seed: int = Field(0, description="Seed of every random choice.")

    @field_validator("schedule")
    @classmethod
    def _schedule_is_cron(cls, value: str | None) -> str | None:
        if value is not None:
            from croniter import croniter  # only projects with a schedule pay for it

            if not croniter.is_valid(value):
                raise PydanticCustomError("cron", "write a cron expression such as '0 3 * * *' (every day at 3 UTC)")
        return value


class MonitorName(StrEnum):
    """The monitors that an endpoint can have."""

    TEXT = "text"
    LENGTH = "length"
    PREDICTION = "prediction"
    QUALITY = "quality"


class Monitors(Strict):
    """What is watched, how often, and how rarely a false alarm may come: never more than alpha, for ever."""

    window: Duration = Field(timedelta(hours=1), description="Length of a tumbling window, whole seconds.")
    alpha: float = Field(0.05, gt=0, lt=1, description="Probability of ever raising a false alarm on this endpoint.")
    watch: tuple[MonitorName, ...] = Field(
        (MonitorName.TEXT, MonitorName.LENGTH, MonitorName.PREDICTION, MonitorName.QUALITY),
        description="Monitors that are on.",
    )
    baseline_records: int = Field(
        500, ge=50, description="For models without training data: the first records that become the baseline."
    )


class RolloutPlan(Strict):
    """How a candidate gets its traffic."""

    shadow_requests: int = Field(200, ge=0, description="Shadow answers to see before the first canary step.")
    steps: tuple[int, ...] = Field((10, 50), description="Per cent of the traffic at each canary step.")
    step_requests: int = Field(200, ge=1, description="Candidate's answers to see at each step.")
    alpha: float = Field(0.05, gt=0, lt=1, description="Probability of rolling back a candidate that is no worse.")

    @model_validator(mode="after")
    def _steps_rise(self) -> "RolloutPlan":
        if list(self.steps) != sorted(set(self.steps)) or not all(0 < s < 100 for s in self.steps):
            raise PydanticCustomError("steps", "write rising percentages between 1 and 99, for example [10, 50]")
        return self


class Endpoint(Strict):
    """One thing that answers requests."""

    task: Task = Field(description="classification or chat.")
    policy: str = Field(description="Path of the policy file that every version has to meet.")
    model: Name | None = Field(None, description="Registered model name; default is the endpoint's name.")
    training: Training | None = Field(None, description="For models that Noria trains.")
    gguf: GgufModel | None = Field(None, description="For models that Noria serves as they are.")
    group: str | None = Field(
        None, description="Key in a request's metadata that names its group, for fairness and by-group quality."
    )
    redact: tuple[Redaction, ...] = Field(tuple(Redaction), description="What is taken out before anything is written.")
    timeout: Duration = Field(timedelta(seconds=60), description="Longest time a request may take in all.")
    monitors: Monitors = Field(default_factory=Monitors)
    rollout: RolloutPlan = Field(default_factory=RolloutPlan)

    @model_validator(mode="after")
    def _one_source(self) -> "Endpoint":
        if (self.training is None) == (self.gguf is None):
            raise PydanticCustomError("source", "give exactly one of training or gguf")
        return self


class Project(Strict):
    """A project: the whole of `noria.yaml`."""

    project: Name = Field(description="The project's name.")
    default_endpoint: Name | None = Field(None, description="Endpoint that /predict and /invocations mean.")
    server: Server = Field(default_factory=Server)
    mlflow: Mlflow = Field(default_factory=Mlflow)
    notify: Notify = Field(default_factory=Notify)
    endpoints: Mapping[Name, Endpoint] = Field(min_length=1)

    @model_validator(mode="after")
    def _default_exists(self) -> "Project":
        if self.default_endpoint is not None and self.default_endpoint not in self.endpoints:
            raise PydanticCustomError("default_endpoint", "name one of the endpoints below")
        return self

    @property
    def default(self) -> str:
        """Name of the default endpoint: as said, else the first."""
        return self.default_endpoint or next(iter(self.endpoints))

    def model_name(self, endpoint: str) -> str:
        """Registered model behind an endpoint."""
        return self.endpoints[endpoint].model or endpoint


class Settings(BaseModel):
    """Everything a process of Noria needs to know: the project and where its files lie."""

    model_config = ConfigDict(frozen=True)

    root: Path
    """Folder that holds noria.yaml, absolute."""
    project: Project

    @property
    def home(self) -> Path:
        """`.noria/` beside the project file."""
        return self.root / ".noria"

    @property
    def spool_dir(self) -> Path:
        return self.home / "spool"

    @property
    def tables_dir(self) -> Path:
        return self.home / "tables"

    @property
    def run_dir(self) -> Path:
        """Sockets, locks, pid files."""
        return self.home / "run"

    @property
    def work_dir(self) -> Path:
        """Dataset snapshots and what runs leave between their steps."""
        return self.home / "work"

    @property
    def state_url(self) -> str:
        """SQLAlchemy URL of the control plane's memory."""
        return os.environ.get("NORIA_STATE_URL", f"sqlite:///{self.home / 'state.db'}")

    @property
    def workflows_url(self) -> str:
        """SQLAlchemy URL of the durable workflows' database."""
        return os.environ.get("NORIA_WORKFLOWS_URL", f"sqlite:///{self.home / 'workflows.db'}")

    @property
    def tracking_uri(self) -> str:
        """MLflow tracking and registry URI."""
        return (
            self.project.mlflow.tracking_uri
            or os.environ.get("MLFLOW_TRACKING_URI", "")
            or f"sqlite:///{self.home / 'mlflow.db'}"
        )

    @property
    def webhook_secret(self) -> str:
        """Key that webhook deliveries are signed with; empty for none."""
        return os.environ.get("NORIA_WEBHOOK_SECRET", "")

    @property
    def artifacts_dir(self) -> Path:
        return self.home / "mlartifacts"

    @property
    def experiment(self) -> str:
        return self.project.mlflow.experiment or self.project.project


class PolicyRules(Strict):
    """What every version of an endpoint's model has to meet before it gets traffic."""

    min_accuracy: float | None = Field(
        None, ge=0, le=1, description="Floor for a version without a champion to compare."
    )
    margin: float = Field(0.03, gt=0, lt=1, description="How much worse than the champion still counts as no worse.")
    alpha: float = Field(
        0.05, gt=0, lt=1, description="Probability of passing a candidate that is worse by the margin."
    )
    max_group_gap: float | None = Field(
        None, ge=0, le=1, description="Largest difference in accuracy between two groups."
    )
    accept_smaller_gap: bool = Field(
        False,
        description="Let a version pass above max_group_gap if the champion's gap on the same rows is larger still: "
        "refusing it would keep the larger one in service.",
    )
    max_group_loss: float = Field(
        0.1, ge=0, le=1, description="How much accuracy any one group may lose against the champion."
    )
    min_group_rows: int = Field(50, ge=1, description="Smaller groups are reported, but not judged.")
    max_latency_p95_ms: float = Field(500, gt=0, description="On the host that will serve it.")
    licences: tuple[str, ...] = Field((), description="Allowed SPDX licences; empty allows any that is named.")


class Policy(Strict):
    """A policy file (`policies/*.yaml`): what the endpoint is for, and what its versions have to meet."""

    name: Name
    intended_use: str = Field(min_length=10)
    forbidden_use: tuple[str, ...] = Field(min_length=1)
    owner: str = Field(min_length=1, description="Person or team who answers for it.")
    review_by: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="Date by which somebody has to look again.")
    languages: tuple[str, ...] = ("en",)
    rules: PolicyRules = Field(default_factory=PolicyRules)
