"""One function for each part that several processes and commands are made of."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from noria.bootstrap.project import clock, state
from noria.domain.alert import Alert
from noria.domain.deployment import CommandLine
from noria.ports import AnchorStore, ComputeEngine, Meters, ModelRegistry, RecordStore, Signer, StateStore
from noria.settings import Engine, GgufModel, Policy, Project, Settings, Training, secret

if TYPE_CHECKING:
    from noria.adapters.hosts.both import ProjectHost
    from noria.adapters.upstreams.both import ProjectUpstream
    from noria.governance.anchors import Anchors
    from noria.governance.cards import Cards
    from noria.monitoring.alerts import Desk, Outbox
    from noria.release.manual import Manual
    from noria.serving.log.following import Follower
    from noria.serving.log.recorder import Recorder
    from noria.serving.log.records import Log
    from noria.training.adding import Additions
    from noria.training.first import FirstVersions


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
    from noria.adapters.tables.delta import DeltaStore

    return DeltaStore(settings.tables_dir)


def log(settings: Settings) -> "Log":
    """The log as people read it: the tables, and what is on its way to them."""
    from noria.adapters.spool.reader import looking, waiting
    from noria.serving.log.records import Log

    return Log(lambda: looking(settings.spool_dir), records(settings), lambda: waiting(settings.spool_dir))


def follower(settings: Settings) -> "Follower":
    """Sees what comes into the log from now on."""
    from noria.adapters.spool.reader import looking
    from noria.serving.log.following import Follower

    return Follower(lambda: looking(settings.spool_dir), records(settings))


def counting(settings: Settings) -> ComputeEngine:
    """What does the work of monitors: an engine of its own, so that no window waits for a training run.

    Raises:
        MissingExtra: The project asks for Spark, and PySpark or Java isn't installed.
    """
    compute = settings.project.compute
    if compute.engine is Engine.SPARK:
        from noria.adapters.spark import SparkCompute, check_installed

        check_installed()
        return SparkCompute(compute.spark.master, compute.spark.configuration)
    from noria.adapters.compute import LocalCompute

    return LocalCompute(processes=compute.processes)


def registry(settings: Settings) -> ModelRegistry:
    """Models and their versions."""
    from noria.adapters.registry.mlflow import MlflowRegistry

    return MlflowRegistry(settings.tracking_uri, settings.artifacts_dir, settings.experiment)


def host(settings: Settings, models: ModelRegistry, store: StateStore) -> "ProjectHost":
    """The model servers on this machine, with files from that registry, and the models elsewhere.

    The commands that it may run are those that a project file in service has named.
    """
    from noria.adapters.hosts.both import ProjectHost
    from noria.adapters.hosts.external import ExternalHost
    from noria.adapters.hosts.local import LocalHost
    from noria.adapters.registry.trust import trusts

    local = LocalHost(
        settings.run_dir,
        models.download,
        settings.run_dir / "worker.lock",
        trusts=lambda version, files: trusts(store, version, files),
        command=lambda checksum: store.get(CommandLine, checksum),
        folder=settings.root,
        secrets=settings.secrets,
        upstreams=lambda: settings.project.upstreams,
    )
    return ProjectHost(local, ExternalHost(settings.run_dir / "external", lambda: settings.project.upstreams))


def upstream(project: Callable[[], Project]) -> "ProjectUpstream":
    """What calls everything that the versions of the project in service are at."""
    from noria.adapters.upstreams.both import ProjectUpstream
    from noria.adapters.upstreams.credentials import UpstreamCredentials
    from noria.adapters.upstreams.own import HttpUpstream

    return ProjectUpstream(HttpUpstream(), lambda: project().upstreams, UpstreamCredentials(secret))


def outbox(settings: Settings, store: StateStore) -> "Outbox":
    """What people still have to be told of alerts."""
    from noria.adapters.notifiers import recipients
    from noria.domain.delivery import Notice
    from noria.monitoring import pictures
    from noria.monitoring.alerts import Outbox, what_next

    times, project = clock(), settings.project

    def notice(identity: str, alerts: Sequence[Alert]) -> Notice:
        then = {alert.id: what_next(store, project, alert) for alert in alerts}
        drawn = {alert.id: spec for alert in alerts if alert.fires and (spec := pictures.of_alert(alert)) is not None}
        return Notice(id=identity, alerts=tuple(alerts), next=then, pictures=drawn)

    return Outbox(store, times, recipients(settings, times), project.notify.group_wait, notice)


def desk(settings: Settings, store: StateStore) -> "Desk":
    """What a person may do about alerts."""
    from noria.monitoring.alerts import Desk

    return Desk(store, clock(), outbox(settings, store))


def manual(settings: Settings) -> "Manual":
    """What a person may decide: rollback, override."""
    from noria.release.manual import Manual

    store = state(settings)
    return Manual(store, clock(), host(settings, registry(settings), store).running)


@contextmanager
def recorder(settings: Settings, slot: str) -> "Iterator[Recorder]":
    """What writes into the log, redacted as the project in service says, for who is no API process.

    Raises:
        AlreadyRunning: Somebody else writes the spool of that slot.
    """
    from noria.adapters.redactor import SocketReader
    from noria.adapters.spool.writer import SqliteSpool
    from noria.serving.log.recorder import Recorder
    from noria.serving.log.redaction import Redactors

    spool, project = SqliteSpool(settings.spool_dir, slot), settings.project
    try:
        names = SocketReader(redactor_socket(settings))
        yield Recorder(spool, Redactors(lambda: project), clock(), lambda: project.log.max_payload_bytes, names)
    finally:
        spool.close()


def first_versions(settings: Settings, store: StateStore, models: ModelRegistry) -> "FirstVersions":
    """What gives endpoints the versions that the project names."""
    from noria.adapters.upstreams.credentials import UpstreamCredentials
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
    from noria.adapters.registry.hub import fetch
    from noria.adapters.registry.packages import prepare
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


def base_model(settings: Settings) -> Callable[[Training], str]:
    """What the language model that an endpoint's training starts from is at the moment: a file, or a name elsewhere."""
    from noria.adapters.registry.modelfiles import fingerprint
    from noria.domain.errors import NoriaError

    resolve = resolver(settings)

    def look(training: Training) -> str:
        base = training.base
        if base is None:
            return ""
        if isinstance(base, GgufModel):
            try:
                return fingerprint(resolve(base.gguf))
            except (NoriaError, OSError):  # it is being replaced, or was taken away: not another one yet
                return ""
        return f"{base.upstream}/{base.model}"

    return look


def resolver(settings: Settings) -> Callable[[str], Path]:
    """`gguf:` of the project file → the file."""
    from noria.adapters.registry.modelfiles import resolve_gguf

    return lambda path: resolve_gguf(path, settings.root)


def redactor_socket(settings: Settings) -> Path:
    """Where the process listens that looks for names; it runs only if an endpoint asks for it."""
    return settings.run_dir / "redactor.sock"


def policies(settings: Settings) -> Callable[[str], "tuple[Policy, str]"]:
    """Endpoint → its policy, read anew each time, and the policy's hash."""
    from noria.governance.policy import load_policy

    return lambda endpoint: load_policy(settings.root / settings.project.endpoints[endpoint].policy)


def cards(settings: Settings, store: StateStore, models: ModelRegistry) -> "Cards":
    """What writes model cards."""
    from noria.governance.cards import Cards

    return Cards(store, models, clock(), settings.project, policies(settings))


def anchors(settings: Settings, store: StateStore) -> "Anchors":
    """What makes the account's daily roots.

    Raises:
        InvalidProject: The key that `audit.key` names is none.
    """
    from noria.adapters.anchors import Ed25519Signer, FolderAnchors
    from noria.governance.anchors import Anchors

    key = settings.project.audit.key
    return Anchors(store, FolderAnchors(settings.anchors_dir), Ed25519Signer(secret(key) if key else ""), clock())


def anchors_kept(settings: Settings, folder: Path | None = None) -> tuple[AnchorStore, Signer]:
    """The account's roots, there or where the project keeps them, and what checks their signatures."""
    from noria.adapters.anchors import Ed25519Signer, FolderAnchors

    return FolderAnchors(folder or settings.anchors_dir), Ed25519Signer()
