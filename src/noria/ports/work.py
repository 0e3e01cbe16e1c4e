"""The seams of the loop's work: jobs, trainers, durable workflows, and who is told of alerts."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any, Protocol, runtime_checkable

from noria.domain.alert import Alert, Severity
from noria.domain.delivery import Notice
from noria.domain.events import Event
from noria.ports.state import T


@dataclass(frozen=True, slots=True)
class JobSpec:
    """Work for a ComputeEngine: the name of a function and JSON arguments, never a closure."""

    function: str
    """`package.module:function`; it takes the arguments as keywords and returns JSON."""
    arguments: Mapping[str, Any] = field(default_factory=dict)


class ComputeEngine(Protocol):
    """Runs heavy work away from the loop's own process."""

    def run(self, job: JobSpec, wanted: Callable[[], bool] | None = None) -> Mapping[str, Any]:
        """Run a job and return its result.

        Args:
            job: What to run.
            wanted: Asked now and then, about twice a second; once it says no, the job is stopped where it is.

        Raises:
            Cancelled: It was stopped because nobody wanted it any more.
            NoriaError: The job's own, as it was raised there.
        """
        ...

    def map(self, job: JobSpec, parts: Sequence[Mapping[str, Any]]) -> Generator[Mapping[str, Any], None, None]:
        """Run a job once for each part, and give each result as soon as it is there: one a part, in any order.

        Nothing begins before the first result is asked for, and only as many results wait as parts are worked on at
        a time, so that memory doesn't grow with the parts. Who counts results knows how far it is.

        After an error, and when the generator is closed or dropped, no further part begins, and what is under way is
        stopped or its result is dropped. Other jobs run in between: a map holds the engine for a part at a time.

        Args:
            job: What to run.
            parts: Arguments of their own, JSON each; they come before those of the job.

        Raises:
            NoriaError: That of the first part that failed, as it was raised there.
        """
        ...

    def close(self) -> None:
        """Stop the engine and what it is running."""
        ...


class Trainer(Protocol):
    """Turns labelled rows into a model version's files. Runs inside a ComputeEngine."""

    def train(self, job: "TrainingJob") -> "TrainingResult":
        """Train, log the model with signature and input example to MLflow, and write the monitor baseline."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """What a trainer gets. All paths are Parquet files with the columns text, label, group, origin
    (`baseline` for the project's own data, `production` for labelled records).

    Attributes:
        endpoint: Endpoint that the model is for.
        model: Registered model name.
        run_id: Noria's run id, set as a tag on the MLflow run, so that a repeat finds its own half-done work.
        tracking_uri: MLflow's.
        experiment: MLflow experiment name.
        train: Rows to learn from.
        holdout: Rows that nothing is learnt from; the baseline's predictions are made on them.
        parameters: The trainer's own, from noria.yaml.
        seed: For every random choice.
        task: What the endpoint does, `classification` or `chat`.
        base: The language model to start from, as the project file names it (`gguf` and how it is served, or `upstream`
            and `model`); empty for a trainer that needs none.
        folder: The run's own folder, the same at every attempt: checkpoints, names of work that was begun elsewhere.
        progress: JSON-lines file that the trainer tells how far it is, and that people see; empty for none.
    """

    endpoint: str
    model: str
    run_id: str
    tracking_uri: str
    experiment: str
    train: str
    holdout: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    task: str = "classification"
    base: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""
    progress: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """What a trainer leaves: a logged model that isn't registered yet, with its monitor baseline (artefact folder
    `baseline` of the run) and its answers on the held-out rows.

    Attributes:
        logged_model_uri: What `ModelRegistry.register` takes.
        mlflow_run_id: The run that holds everything.
        metrics: As logged.
        predictions: Parquet file: the held-out rows with the columns prediction and score added.
        cost_usd: What it cost elsewhere, US dollars.
    """

    logged_model_uri: str
    mlflow_run_id: str
    metrics: Mapping[str, float]
    predictions: str
    cost_usd: float = 0.0


class Steps(Protocol):
    """A durable workflow as its handler sees it."""

    def __call__(self, name: str, function: Callable[..., T], *arguments: Any) -> T:
        """Do a named step once: after a crash a finished step's JSON result is returned without doing it again."""
        ...


class Workflows(Protocol):
    """Durable execution, at least once, of the loop's handlers."""

    def start(self, event: Event) -> None:
        """Begin the workflow of an event; an event that has one already is left alone."""
        ...

    def busy(self) -> bool:
        """Whether any workflow is under way."""
        ...

    def close(self) -> None:
        """Stop; what is under way resumes at its next step when the worker comes back."""
        ...


@runtime_checkable
class Notifier(Protocol):
    """Tells people."""

    name: str

    def notify(self, notice: Notice) -> None:
        """Deliver alerts that began to fire or were resolved.

        The same notice, by its id, may be delivered more than once, if a process died between delivering and noting it.

        Raises:
            NoriaError: It could not be delivered; it is tried again later.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """Somebody who is told of alerts.

    Attributes:
        notifier: Tells him; its name is his.
        severity: The least grave alerts that he is told of.
        endpoints: Patterns of the endpoints whose alerts he is told of; those of the installation he always is.
        repeat: After how long he is told again of what still fires; None for never.
        always: Whether he is told again also of what somebody acknowledged: a system that forgets what isn't repeated.
    """

    notifier: Notifier
    severity: Severity = Severity.INFO
    endpoints: tuple[str, ...] = ("*",)
    repeat: timedelta | None = None
    always: bool = False

    @property
    def name(self) -> str:
        """The notifier's."""
        return self.notifier.name

    def wants(self, alert: Alert) -> bool:
        """Whether he is told of an alert; nobody is told of his own deafness."""
        if alert.monitor == f"{NOTIFIER}{self.name}" or alert.severity.rank < self.severity.rank:
            return False
        return not alert.endpoint or any(fnmatchcase(alert.endpoint, pattern) for pattern in self.endpoints)


NOTIFIER = "notifier "
"""What the monitor of an alert about a recipient begins with; his name follows."""


Handlers = Mapping[type[Any], Iterable[Callable[[Any, Steps], None]]]
"""Event type → what it sets off."""
