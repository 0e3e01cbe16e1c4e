"""Every seam of the house on one page.

A room above asks for one of these; `bootstrap.py` alone knows which adapter stands behind it. Each port has one
conformance suite in `tests/ports/` that every adapter passes, and so does its fake.
"""

from collections.abc import AsyncIterable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from noria.domain.alert import Alert
from noria.domain.audit import AuditEvent
from noria.domain.endpoint import Wire
from noria.domain.events import Event
from noria.domain.inference import Entry
from noria.domain.limits import Meter
from noria.domain.model import Alias, Flavor, ModelVersion

if TYPE_CHECKING:
    import pyarrow as pa

    from noria.settings import Upstream as UpstreamSettings

T = TypeVar("T")


class Clock(Protocol):
    """Where times come from."""

    def now(self) -> datetime:
        """The current time, timezone-aware UTC."""
        ...

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        ...


# --- the data plane -------------------------------------------------------------------------------------------------


class Chunks(AsyncIterable[bytes], Protocol):
    """A body as it comes, an asynchronous iterator: raises UpstreamFailed or UpstreamTimeout where it ends too soon."""

    async def __anext__(self) -> bytes:
        """The next bytes, as they came."""
        ...

    async def aclose(self) -> None:
        """Let go of the call: one that isn't over is cancelled at the model server."""
        ...


@dataclass(frozen=True, slots=True)
class UpstreamReply:
    """A model server's answer; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    chunks: Chunks


class Upstream(Protocol):
    """Calls model servers, over unix sockets and TCP alike."""

    async def post(
        self, url: str, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> UpstreamReply:
        """Send a request and return as soon as the status line is there.

        Args:
            url: `unix:/path/to.sock`, `http://host:port` (with `#MODEL` where it has a name of its own for the model),
                or `upstream:NAME/MODEL` for a model of one of the project's upstreams, which gets its path,
                credentials, headers and name for the model from the project file.
            path: Path on that server, as OpenAI and MLflow write it.
            body: Bytes to send, untouched but for the model's name at an upstream.
            headers: Headers to send.
            timeout_s: Until the last byte.

        Raises:
            UpstreamFailed: No connection, reset, or not HTTP.
            UpstreamTimeout: Took too long.
            NotReady: The upstream can't be asked as things are (NoCredentials, UnknownUpstream, ForbiddenAddress):
                nothing was sent, and asking again won't help.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class FrameReader(Protocol):
    """Reads tables that take more than an API process may load."""

    async def read(self, body: bytes) -> bytes:
        """A Parquet file as the JSON object `{"dataframe_split": {"columns": […], "data": [[…], …]}}`.

        Raises:
            InvalidRequest: It is no Parquet file.
            RequestTooLarge: It holds more than is read.
        """
        ...

    async def aclose(self) -> None:
        """End what reads them."""
        ...


class Credentials(Protocol):
    """What the project's upstreams know us by."""

    async def headers(self, upstream: "UpstreamSettings") -> Mapping[str, str]:
        """The headers that authorise a request to an upstream.

        Raises:
            NoCredentials: There are none; the sentence names the environment variable that isn't set.
            MissingExtra: They come from a package that isn't installed.
        """
        ...


class EntityReader(Protocol):
    """Reads texts for names, places and organisations: what no pattern finds."""

    async def find(self, texts: Sequence[str], kinds: frozenset[str]) -> Sequence[Sequence[tuple[int, int, str]]]:
        """Where they stand in each text: from, to, and which kind (`name`, `location`, `organisation`).

        Raises:
            RedactionUnavailable: It could not be done in time.
        """
        ...

    def find_now(self, texts: Sequence[str], kinds: frozenset[str]) -> Sequence[Sequence[tuple[int, int, str]]]:
        """The same for who has time to wait for it."""
        ...


class RecordSpool(Protocol):
    """The durable log on this machine that an API process appends to and the worker ships from."""

    @property
    def id(self) -> str:
        """Identity of the spool, which is also its application id in the tables' transaction logs."""
        ...

    async def append(self, entry: Entry) -> int:
        """Write an entry and return its sequence number once it is on disk.

        It can't be cut in two: a cancellation is raised once the entry is on disk, and not if it can't be written.

        Raises:
            LogUnavailable: It could not be written; nothing was.
        """
        ...

    def read(self, after: int, limit: int) -> Sequence[tuple[int, Entry]]:
        """Entries with a sequence number greater than `after`, in order, at most `limit`."""
        ...

    def trim(self, upto: int) -> None:
        """Forget entries up to and including that sequence number."""
        ...

    def close(self) -> None:
        """Write what waits, then close."""
        ...


class Meters(Protocol):
    """What was used of limits, counted by all API processes of a project together."""

    def change(self, names: Sequence[str], rule: Callable[[Sequence[Meter]], Sequence[Meter]]) -> None:
        """Let a rule say what becomes of some meters, while nobody else reads or changes them.

        Args:
            names: Which, no name twice; one that nobody used yet is `Meter()`.
            rule: Their values → their new values. What it raises is passed on, and nothing is changed. It is called
                while others wait, so it computes and does nothing else.
        """
        ...

    def read(self, name: str) -> Meter:
        """A meter as it is now."""
        ...

    def close(self) -> None:
        """Let go of what is shared; what was counted stays."""
        ...


@dataclass(frozen=True, slots=True)
class Poison:
    """Entries of a spool that can't be read back: numbers `first` to `last`, why, and the bytes that are left."""

    first: int
    last: int
    reason: str
    payload: bytes = b""


class SpoolReader(Protocol):
    """A spool as the worker sees it, in a process of its own."""

    @property
    def id(self) -> str:
        """Identity of the spool."""
        ...

    @property
    def sealed(self) -> bool:
        """Whether it was put aside as damaged: nothing will be appended, and its open intents live on in the
        spool that took its place."""
        ...

    def written(self) -> int:
        """The highest sequence number that was ever appended; 0 if none was."""
        ...

    def read(self, after: int, limit: int) -> Sequence[tuple[int, Entry | Poison]]:
        """What follows `after`, in order, at most `limit`; empty only at the end. A Poison has its last number.

        Raises:
            StorageCorrupted: Nothing of the file can be read.
        """
        ...

    def trim(self, upto: int) -> None:
        """Forget entries up to and including that number, as far as they can be dropped in whole groups."""
        ...

    def retire(self) -> None:
        """Take a sealed spool whose entries are all shipped out of sight; its file is kept."""
        ...


class RecordView(Protocol):
    """The tables at one version each: as they were when each was first looked at."""

    def last_version(self, table: str, app_id: str) -> int:
        """The highest version that had been written for `app_id`; 0 if none."""
        ...

    def scan(
        self,
        table: str,
        *,
        columns: Sequence[str] | None = None,
        endpoint: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> "pa.Table":
        """Rows of a table, as in `RecordStore.scan`."""
        ...

    def query(self, sql: str, also: "Mapping[str, Iterable[pa.Table]] | None" = None) -> "pa.Table":
        """Run a read-only SQL query in which the tables have their own names.

        Feedback shows one row for each id: repeats left out, the newest of what was said.

        Args:
            sql: The query.
            also: Rows of tables that aren't in them yet; the query sees both as one.

        Raises:
            InvalidRequest: It can't be run, or would change something.
        """
        ...

    def stream(
        self, sql: str, also: "Mapping[str, Iterable[pa.Table]] | None" = None
    ) -> "Generator[pa.Table, None, None]":
        """The same piece by piece in bounded memory; the first piece is there even if nothing was found."""
        ...


class RecordStore(Protocol):
    """The tables: inference, feedback, profile_metrics, drift_metrics, dead_letter."""

    def append(self, table: str, rows: "pa.Table", app_id: str, version: int) -> bool:
        """Append rows exactly once for this `(app_id, version)`; False if that version was written before."""
        ...

    def last_version(self, table: str, app_id: str) -> int:
        """The highest version written for `app_id`; 0 if none."""
        ...

    def scan(
        self,
        table: str,
        *,
        columns: Sequence[str] | None = None,
        endpoint: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        snapshot: int | None = None,
    ) -> "pa.Table":
        """Rows of a table, filtered by endpoint and by its time column (`since` included, `until` excluded).

        An absent table is an empty one with the right columns. `snapshot` reads an older table version.
        """
        ...

    def query(self, sql: str) -> "pa.Table":
        """Run a read-only SQL query in which the tables have their own names."""
        ...

    def view(self) -> RecordView:
        """The tables as they are now, for several looks at the same rows."""
        ...

    def expire(self, table: str, endpoint: str, before: datetime) -> int:
        """Delete an endpoint's rows whose time is earlier, and return how many they were.

        Who reads an older snapshot still sees them until its files are tidied away.
        """
        ...

    def snapshot(self, table: str) -> int:
        """The table's current version, for reproducible reads; -1 if it does not exist."""
        ...


# --- state, models, work --------------------------------------------------------------------------------------------


class Change(Protocol):
    """A transaction on the state: everything in it happens, together with its audit event, or nothing does."""

    def get(self, kind: type[T], id: str) -> T | None:
        """Read within the transaction."""
        ...

    def put(self, noun: object) -> None:
        """Insert or replace a noun: any dataclass of the domain that `adapters/sql.py` keeps."""
        ...

    def emit(self, event: Event) -> None:
        """Tell the loop; an event whose id is known already is not told again."""
        ...


class StateStore(Protocol):
    """The control plane's memory: routes, runs, verdicts, rollouts, alerts, monitors, events, audit."""

    def get(self, kind: type[T], id: str) -> T | None:
        """A noun by kind and id (a Route's id is its endpoint)."""
        ...

    def find(self, kind: type[T], *, endpoint: str | None = None, limit: int = 1000) -> list[T]:
        """Nouns of a kind, most recently changed first."""
        ...

    def change(
        self,
        actor: str,
        action: str,
        subject: str,
        *,
        reason: str = "",
        evidence: Mapping[str, object] | None = None,
    ) -> AbstractContextManager[Change]:
        """Begin a change of state; its AuditEvent is written in the same transaction."""
        ...

    def note(self) -> AbstractContextManager[Change]:
        """Begin a transaction of bookkeeping: cursors, evidence counted so far, heartbeats. Not audited."""
        ...

    def revision(self) -> int:
        """A number that grows with every change: cheap enough to poll."""
        ...

    def pending_events(self, limit: int = 100) -> list[Event]:
        """Events that have not been handed to the loop, oldest first."""
        ...

    def mark_handled(self, event_id: str) -> None:
        """The loop's durable engine has the event now."""
        ...

    def audit_trail(self, *, after: int = 0, limit: int | None = None) -> Iterator[AuditEvent]:
        """Audit events in order."""
        ...


class ModelRegistry(Protocol):
    """Models and their versions (MLflow)."""

    def version(self, name: str, version_or_alias: str) -> ModelVersion:
        """One version, by number or by alias.

        Raises:
            UnknownModel: There is none.
        """
        ...

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, newest first; empty if there is no such model."""
        ...

    def aliases(self, name: str) -> Mapping[str, str]:
        """Alias → version; empty if there is no such model."""
        ...

    def set_alias(self, name: str, alias: Alias, version: str | None) -> None:
        """Point an alias at a version, or remove it."""
        ...

    def register(self, logged_model_uri: str, name: str, tags: Mapping[str, str]) -> ModelVersion:
        """Make a version of what a run logged; the same run is registered once however often this is called."""
        ...

    def register_file(
        self, name: str, path: Path, *, flavor: Flavor, source: str, licence: str, tags: Mapping[str, str]
    ) -> ModelVersion:
        """Upload a model file, or the folder of an MLflow model, as a version; the same checksum is registered once."""
        ...

    def download(self, version: ModelVersion, artifact: str = "") -> Path:
        """A local path of the version's model files, or of an artefact of its run (`baseline`, `card`)."""
        ...

    def attach(self, version: ModelVersion, files: Mapping[str, bytes], folder: str) -> None:
        """Add artefacts (a card, a plot) to the version's run, under that folder."""
        ...

    def log_metrics(self, version: ModelVersion, metrics: Mapping[str, float]) -> None:
        """Add metrics to the version's run."""
        ...


class ModelHost(Protocol):
    """Brings model versions up somewhere and says where they listen."""

    def start(self, version: ModelVersion) -> str:
        """Bring a version up, wait until it answers, and return its URL; one that runs already is adopted."""
        ...

    def running(self) -> Mapping[str, str]:
        """`model/version` → URL of everything that answers now."""
        ...

    def stop(self, ref: str) -> None:
        """Let a version finish what it is doing, then end it."""
        ...

    def stop_all(self) -> None:
        """End everything that this host runs, each after it finished what it is doing."""
        ...

    def wire(self, version: ModelVersion) -> Wire:
        """The protocol that this host serves the version with."""
        ...


@dataclass(frozen=True, slots=True)
class JobSpec:
    """Work for a ComputeEngine: the name of a function and JSON arguments, never a closure."""

    function: str
    """`package.module:function`; it takes the arguments as keywords and returns JSON."""
    arguments: Mapping[str, Any] = field(default_factory=dict)


class ComputeEngine(Protocol):
    """Runs heavy work away from the loop's own process."""

    def run(self, job: JobSpec) -> Mapping[str, Any]:
        """Run a job and return its result.

        Raises:
            NoriaError: The job's own, as it was raised there.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """What a trainer leaves: a logged model that isn't registered yet, with its monitor baseline (artefact folder
    `baseline` of the run) and its answers on the held-out rows.

    Attributes:
        logged_model_uri: What `ModelRegistry.register` takes.
        mlflow_run_id: The run that holds everything.
        metrics: As logged.
        predictions: Parquet file: the held-out rows with the columns prediction and score added.
    """

    logged_model_uri: str
    mlflow_run_id: str
    metrics: Mapping[str, float]
    predictions: str


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

    def notify(self, alert: Alert) -> None:
        """Deliver an alert that began to fire or was resolved.

        Raises:
            NoriaError: It could not be delivered; the worker tries again later.
        """
        ...


Handlers = Mapping[type[Any], Iterable[Callable[[Any, Steps], None]]]
"""Event type → what it sets off."""
