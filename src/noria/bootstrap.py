"""The one composition root: here, and nowhere else, ports meet adapters.

Heavy libraries are imported by the functions that need them, so that a command which only reads the state starts fast
and an API process stays small.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noria.adapters.clock import SystemClock
from noria.adapters.sqlite import SqliteState, file_of, is_current
from noria.domain.deployment import CommandLine
from noria.domain.status import AppliedProject
from noria.ports import Clock, Meters, ModelHost, ModelRegistry, RecordStore, StateStore
from noria.projectfile import FILE_NAME, load_project, parse_project, read_text
from noria.settings import Policy, Project, Settings, secret

if TYPE_CHECKING:
    from noria.adapters.delta import DeltaStore
    from noria.adapters.hosts import ProjectHost
    from noria.adapters.parquet import ParquetReader
    from noria.adapters.spool_reader import SpoolFolder
    from noria.adapters.sql import SqlState
    from noria.adapters.telemetry import Telemetry
    from noria.adapters.upstreams import ProjectUpstream
    from noria.governance.cards import Cards
    from noria.governance.retention import Retention
    from noria.loop import Rooms
    from noria.monitoring.windows import Windows
    from noria.ports import ComputeEngine, EntityReader, Workflows
    from noria.release.fleet import Fleet
    from noria.release.manual import Manual
    from noria.serving.following import Follower
    from noria.serving.prices import PriceKeeper
    from noria.serving.recorder import Recorder
    from noria.serving.records import Log
    from noria.serving.redaction import Redactor
    from noria.serving.router import Router
    from noria.serving.shipping import Shipper
    from noria.training.adding import Additions
    from noria.training.first import FirstVersions

ACTOR = "noria"
APPLIED = "project"
"""Id of the one AppliedProject."""


def settings(root: Path) -> Settings:
    """What `noria.yaml` in that folder says now, whether it is in service or not."""
    return load_project(root)


def clock() -> Clock:
    """The system's clock."""
    return SystemClock()


def state(settings: Settings) -> "SqliteState | SqlState":
    """The control plane's memory, its schema brought up to date."""
    settings.home.mkdir(parents=True, exist_ok=True)
    file = file_of(settings.state_url)
    if file is None or not is_current(file):
        from noria.adapters.sql import migrate

        migrate(settings.state_url)
    if file is not None:
        return SqliteState(file, clock())
    from noria.adapters.sql import SqlState

    return SqlState(settings.state_url, clock())


def opened(root: Path) -> tuple[Settings, "SqliteState | SqlState"]:
    """The project in service and its state; the file is read only if nothing was applied yet.

    So a file that somebody is in the midst of editing keeps no process from starting.

    Raises:
        InvalidProject: There is no project, or nothing was applied yet and the file is wrong.
    """
    if not (root / FILE_NAME).exists():
        settings(root)  # raises
    bare = Settings.model_construct(root=root, project=Project.model_construct(project="", endpoints={}))
    store = state(bare)  # the folder is all it takes to find it
    applied = store.get(AppliedProject, APPLIED)
    return (settings(root) if applied is None else parse_project(applied.text, root)), store


def in_service(settings: Settings, store: StateStore) -> Settings:
    """The project as it was applied last; the file is applied if none was yet."""
    applied = store.get(AppliedProject, APPLIED)
    if applied is not None:
        return parse_project(applied.text, settings.root)
    text = read_text(settings.root, FILE_NAME)
    apply(store, settings, text, ACTOR, "first start")
    return settings


def apply(store: StateStore, settings: Settings, text: str, actor: str, reason: str, changes: str = "") -> str:
    """Take a project's text into service; returns its hash."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    before = store.get(AppliedProject, APPLIED)
    evidence = {"hash": digest, "before": before.hash if before else "", "changes": changes.splitlines()}
    with store.change(actor, "project.applied", settings.project.project, reason=reason, evidence=evidence) as change:
        change.put(AppliedProject(text=text, hash=digest, applied_at=datetime.now(UTC), actor=actor))
    return digest


def keys_exist(settings: Settings) -> bool:
    """Whether an API key was ever made, so that nobody gets in without one."""
    from noria.governance.keys import any_ever

    return any_ever(state(settings))


def meters(settings: Settings) -> Meters:
    """What was used of limits, by all API processes together."""
    from noria.adapters.meters import SharedMeters

    return SharedMeters(settings.run_dir / "meters")


def spending(settings: Settings) -> Callable[[str], float]:
    """The name of a meter → what was spent on it today, US dollars."""
    from noria.serving.limits import DAY_US

    shared, today = meters(settings), clock().now_us() // DAY_US

    def spent(name: str) -> float:
        meter = shared.read(name)
        return meter.usd if meter.day == today else 0.0

    return spent


def records(settings: Settings) -> RecordStore:
    """The tables."""
    from noria.adapters.delta import DeltaStore

    return DeltaStore(settings.tables_dir)


def log(settings: Settings) -> "Log":
    """The log as people read it: the tables, and what is on its way to them."""
    from noria.adapters.delta import DeltaStore
    from noria.adapters.spool_reader import looking
    from noria.serving.records import Log

    return Log(lambda: looking(settings.spool_dir), DeltaStore(settings.tables_dir))


def follower(settings: Settings) -> "Follower":
    """Sees what comes into the log from now on."""
    from noria.adapters.delta import DeltaStore
    from noria.adapters.spool_reader import looking
    from noria.serving.following import Follower

    return Follower(lambda: looking(settings.spool_dir), DeltaStore(settings.tables_dir))


def registry(settings: Settings) -> ModelRegistry:
    """Models and their versions."""
    from noria.adapters.mlflow import MlflowRegistry

    return MlflowRegistry(settings.tracking_uri, settings.artifacts_dir, settings.experiment)


def host(settings: Settings, models: ModelRegistry, store: StateStore) -> "ProjectHost":
    """The model servers on this machine, with files from that registry, and the models elsewhere.

    The commands that it may run are those that a project file in service has named.
    """
    from noria.adapters.external import ExternalHost
    from noria.adapters.hosts import ProjectHost
    from noria.adapters.local import LocalHost
    from noria.adapters.trust import trusts

    local = LocalHost(
        settings.run_dir,
        models.download,
        settings.run_dir / "worker.lock",
        trusts=lambda version, files: trusts(store, version, files),
        command=lambda checksum: store.get(CommandLine, checksum),
        folder=settings.root,
    )
    return ProjectHost(local, ExternalHost(settings.run_dir / "external", lambda: settings.project.upstreams))


def upstream(project: Callable[[], Project]) -> "ProjectUpstream":
    """What calls everything that the versions of the project in service are at."""
    from noria.adapters.credentials import UpstreamCredentials
    from noria.adapters.upstream import HttpUpstream
    from noria.adapters.upstreams import ProjectUpstream

    return ProjectUpstream(HttpUpstream(), lambda: project().upstreams, UpstreamCredentials(secret))


def manual(settings: Settings) -> "Manual":
    """What a person may decide: rollback, override."""
    from noria.release.manual import Manual

    store = state(settings)
    return Manual(store, clock(), host(settings, registry(settings), store).running)


# --- an API process -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Api:
    """What an API process is made of."""

    router: "Router"
    upstream: "ProjectUpstream"
    frames: "ParquetReader"
    recorder: "Recorder"
    state: StateStore
    clock: Clock
    meters: Meters
    read_drift: Callable[[str], Sequence[Mapping[str, Any]]]
    spool_bytes: Callable[[], int]
    close: Callable[[], None]


def api(settings: Settings, slot: str) -> Api:
    """Compose an API process that alone writes the spool of that slot."""
    from noria.adapters.parquet import ParquetReader
    from noria.adapters.redactor import SocketReader
    from noria.adapters.spool import SqliteSpool
    from noria.serving.recorder import Recorder
    from noria.serving.redaction import Redactors
    from noria.serving.router import Router

    times, store = clock(), state(settings)
    project = in_service(settings, store).project
    router = Router(store, project, lambda text: parse_project(text, settings.root).project, times)
    spool = SqliteSpool(settings.spool_dir, slot)
    redactors = Redactors(lambda: router.project)
    names = SocketReader(redactor_socket(settings))
    recorder = Recorder(spool, redactors, times, lambda: router.project.log.max_payload_bytes, names)

    def read_drift(endpoint: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = records(settings).scan("drift_metrics", endpoint=endpoint).to_pylist()
        return sorted(rows, key=lambda row: row["window"]["start"])

    shared = meters(settings)

    def close() -> None:
        spool.close()
        shared.close()

    def spool_bytes() -> int:
        return sum(path.stat().st_size for path in settings.spool_dir.iterdir() if path.is_file())

    return Api(
        router=router,
        upstream=upstream(lambda: router.project),
        frames=ParquetReader(),
        recorder=recorder,
        state=store,
        clock=times,
        read_drift=read_drift,
        spool_bytes=spool_bytes,
        meters=shared,
        close=close,
    )


@contextmanager
def recorder(settings: Settings, slot: str) -> "Iterator[Recorder]":
    """What writes into the log, redacted as the project in service says, for who is no API process.

    Raises:
        AlreadyRunning: Somebody else writes the spool of that slot.
    """
    from noria.adapters.redactor import SocketReader
    from noria.adapters.spool import SqliteSpool
    from noria.serving.recorder import Recorder
    from noria.serving.redaction import Redactors

    spool, project = SqliteSpool(settings.spool_dir, slot), settings.project
    try:
        names = SocketReader(redactor_socket(settings))
        yield Recorder(spool, Redactors(lambda: project), clock(), lambda: project.log.max_payload_bytes, names)
    finally:
        spool.close()


# --- the worker -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loop:
    """What the worker turns: the rooms, composed for the project in service."""

    settings: Settings
    applied: str
    """Hash of the project's text that this was composed for."""
    state: StateStore
    clock: Clock
    records: "DeltaStore"
    registry: ModelRegistry
    host: "ProjectHost"
    spools: "SpoolFolder"
    shipper: "Shipper"
    windows: "Windows"
    retention: "Retention"
    rooms: "Rooms"
    fleet: "Fleet"
    first: "FirstVersions"
    workflows: "Workflows"
    prices: "PriceKeeper"
    telemetry: "Telemetry | None" = None
    """Who else is told of requests; None if nobody asked."""


@contextmanager
def loop(settings: Settings) -> Iterator[Loop]:
    """Compose the worker; closes the durable engine and what it is running in the end."""
    from noria.adapters.compute import LocalCompute
    from noria.adapters.delta import DeltaStore
    from noria.adapters.mlflow import MlflowRegistry
    from noria.adapters.prices import list_price
    from noria.adapters.spool_reader import SpoolFolder
    from noria.adapters.telemetry import telemetry
    from noria.adapters.workflows import DbosWorkflows
    from noria.governance.retention import Retention
    from noria.loop import handlers
    from noria.monitoring.windows import Windows
    from noria.release.fleet import Fleet
    from noria.serving.prices import PriceKeeper
    from noria.serving.shipping import Shipper

    times, store = clock(), state(settings)
    settings = in_service(settings, store)
    applied = store.get(AppliedProject, APPLIED)
    tables = DeltaStore(settings.tables_dir)
    models = MlflowRegistry(settings.tracking_uri, settings.artifacts_dir, settings.experiment)
    servers, spools, compute = host(settings, models, store), SpoolFolder(settings.spool_dir), LocalCompute()
    rooms = _rooms(settings, store, times, tables, models, servers, compute)
    workflows = DbosWorkflows(settings.workflows_url, handlers(rooms))
    told = telemetry(settings, models.prepare)
    try:
        yield Loop(
            settings=settings,
            applied=applied.hash if applied else "",
            state=store,
            clock=times,
            records=tables,
            registry=models,
            host=servers,
            spools=spools,
            shipper=Shipper(spools.readers, tables, times, told=told.shipped if told else None),
            windows=Windows(store, tables),
            retention=Retention(store, tables, times),
            rooms=rooms,
            fleet=Fleet(store, models, servers, times),
            first=first_versions(settings, store, models),
            workflows=workflows,
            prices=PriceKeeper(store, times, settings.project, list_price),
            telemetry=told,
        )
    finally:
        workflows.close()  # first: a job that dies with its engine would be put down as a failed step
        compute.close()
        spools.close()
        if told is not None:
            told.close()


def first_versions(settings: Settings, store: StateStore, models: ModelRegistry) -> "FirstVersions":
    """What gives endpoints the versions that the project names."""
    from noria.adapters.credentials import UpstreamCredentials
    from noria.training.first import FirstVersions

    known_by, upstreams = UpstreamCredentials(secret), settings.project.upstreams
    return FirstVersions(
        store,
        models,
        clock(),
        resolver(settings),
        cards(settings, store, models).write,
        lambda name: known_by.demand(upstreams[name]),
    )


def additions(settings: Settings, store: StateStore) -> "Additions":
    """What adds versions by hand."""
    from noria.adapters.hub import fetch
    from noria.adapters.packages import prepare
    from noria.training.adding import Additions

    models = registry(settings)
    return Additions(
        state=store,
        registry=models,
        clock=clock(),
        project=settings.project,
        first=first_versions(settings, store, models),
        prepare=prepare,
        fetch=fetch,
        write_card=cards(settings, store, models).write,
    )


def resolver(settings: Settings) -> Callable[[str], Path]:
    """`gguf:` of the project file → the file."""
    from noria.adapters.modelfiles import resolve_gguf

    return lambda path: resolve_gguf(path, settings.root)


def _rooms(
    settings: Settings,
    store: StateStore,
    times: Clock,
    tables: RecordStore,
    models: ModelRegistry,
    servers: ModelHost,
    compute: "ComputeEngine",
) -> "Rooms":
    from noria.adapters.notify import notifiers
    from noria.adapters.redactor import SocketReader
    from noria.loop import Notifications, Rooms
    from noria.monitoring.alerts import Alerts
    from noria.monitoring.baselines import Baselines
    from noria.monitoring.monitors import Monitors
    from noria.release.case import Rows
    from noria.release.gates import Release
    from noria.release.rollouts import Rollouts
    from noria.release.trial import Trial
    from noria.serving.redaction import Redactors
    from noria.training.pipeline import Pipeline
    from noria.training.triggers import Triggers

    project, redactors = settings.project, Redactors(lambda: settings.project)
    names = SocketReader(redactor_socket(settings))
    written = cards(settings, store, models)
    monitors = Monitors(store, tables, Baselines(models), project)
    pipeline = Pipeline(
        state=store,
        records=tables,
        registry=models,
        compute=compute,
        clock=times,
        settings=lambda: settings,
        redact=lambda endpoint: _redact(redactors[endpoint], names),
        write_card=written.write,
    )

    def holdout(endpoint: str, run_id: str) -> Rows | None:
        held = pipeline.holdout(endpoint, run_id)
        if held is None:
            return None
        return Rows(texts=held.texts, labels=held.labels, groups=held.groups, origins=held.origins)

    release = Release(
        state=store,
        registry=models,
        host=servers,
        trial=Trial(lambda: upstream(lambda: project)),
        clock=times,
        policy=policies(settings),
        task=lambda endpoint: project.endpoints[endpoint].task,
        holdout=holdout,
    )
    rollouts = Rollouts(
        state=store,
        registry=models,
        host=servers,
        store=tables,
        clock=times,
        endpoint=lambda name: project.endpoints[name],
    )
    return Rooms(
        monitors=monitors,
        alerts=Alerts(store, times, monitors.moved),
        notifications=Notifications(store, notifiers(settings)),
        triggers=Triggers(store, tables, times, lambda: project),
        pipeline=pipeline,
        release=release,
        rollouts=rollouts,
        cards=written,
    )


def redactor_socket(settings: Settings) -> Path:
    """Where the process listens that looks for names; it runs only if an endpoint asks for it."""
    return settings.run_dir / "redactor.sock"


def _redact(redactor: "Redactor", names: "EntityReader") -> Callable[[str], str]:
    """What takes out of a text what the records of an endpoint don't hold either."""
    from noria.serving.entities import marked

    def redact(text: str) -> str:
        clean = redactor.text(text)[0]
        return marked(clean, names.find_now([clean], redactor.asks)[0])[0] if redactor.asks else clean

    return redact


def policies(settings: Settings) -> Callable[[str], "tuple[Policy, str]"]:
    """Endpoint → its policy, read anew each time, and the policy's hash."""
    from noria.governance.policy import load_policy

    return lambda endpoint: load_policy(settings.root / settings.project.endpoints[endpoint].policy)


def cards(settings: Settings, store: StateStore, models: ModelRegistry) -> "Cards":
    """What writes model cards."""
    from noria.governance.cards import Cards

    return Cards(store, models, clock(), settings.project, policies(settings))
