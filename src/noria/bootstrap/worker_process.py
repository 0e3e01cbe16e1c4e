"""What the worker is made of."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from noria.bootstrap.judging import judges
from noria.bootstrap.parts import (
    anchors,
    base_model,
    cards,
    counting,
    first_versions,
    host,
    outbox,
    redactor_socket,
)
from noria.bootstrap.project import APPLIED, clock, in_service, state
from noria.bootstrap.releasing import release
from noria.domain.status import AppliedProject
from noria.ports import Clock, ModelHost, ModelRegistry, RecordStore, StateStore
from noria.settings import AlertRule, Project, Settings, Task

if TYPE_CHECKING:
    from noria.adapters.hosts.both import ProjectHost
    from noria.adapters.spool.reader import SpoolFolder
    from noria.adapters.tables.delta import DeltaStore
    from noria.adapters.telemetry.exports import Telemetry
    from noria.governance.anchors import Anchors
    from noria.governance.retention import Retention
    from noria.loop import Rooms
    from noria.monitoring.alerts import Telling
    from noria.monitoring.late import LateLabels
    from noria.monitoring.windows import Windows
    from noria.ports import ComputeEngine, EntityReader, Workflows
    from noria.release.approvals import Approvals
    from noria.release.fleet import Fleet
    from noria.serving.log.redaction import Redactor
    from noria.serving.log.shipping import Shipper
    from noria.serving.prices import PriceKeeper
    from noria.training.first import FirstVersions


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
    late: "LateLabels"
    retention: "Retention"
    anchors: "Anchors"
    rooms: "Rooms"
    telling: "Telling"
    approvals: "Approvals"
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
    from noria.adapters.prices import list_price
    from noria.adapters.registry.mlflow import MlflowRegistry
    from noria.adapters.spool.reader import SpoolFolder
    from noria.adapters.tables.delta import DeltaStore
    from noria.adapters.telemetry.exports import telemetry
    from noria.adapters.workflows import DbosWorkflows
    from noria.governance.retention import Retention
    from noria.loop import handlers
    from noria.monitoring.alerts import Telling
    from noria.monitoring.late import LateLabels
    from noria.monitoring.windows import Windows
    from noria.release.approvals import Approvals
    from noria.release.fleet import Fleet
    from noria.serving.log.shipping import Shipper
    from noria.serving.prices import PriceKeeper

    times, store = clock(), state(settings)
    settings = in_service(settings, store)
    applied = store.get(AppliedProject, APPLIED)
    tables = DeltaStore(settings.tables_dir)
    models = MlflowRegistry(settings.tracking_uri, settings.artifacts_dir, settings.experiment)
    servers, spools, compute = host(settings, models, store), SpoolFolder(settings.spool_dir), LocalCompute()
    scorers, counts = LocalCompute(), counting(settings)
    windows = Windows(store, tables, times)
    rooms = _rooms(settings, store, times, tables, models, servers, compute, scorers, counts, windows)
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
            shipper=Shipper(
                spools.readers, tables, times, told=told.shipped if told else None, arriving=windows.arriving
            ),
            windows=windows,
            late=LateLabels(store, tables),
            retention=Retention(store, tables, times),
            anchors=anchors(settings, store),
            rooms=rooms,
            telling=Telling(rooms.alerts.outbox, rooms.alerts),
            approvals=Approvals(store, times),
            fleet=Fleet(store, models, servers, times),
            first=first_versions(settings, store, models),
            workflows=workflows,
            prices=PriceKeeper(store, times, settings.project, list_price),
            telemetry=told,
        )
    finally:
        workflows.close()  # first: a job that dies with its engine would be put down as a failed step
        compute.close()
        scorers.close()
        counts.close()
        spools.close()
        if told is not None:
            told.close()


def _rooms(
    settings: Settings,
    store: StateStore,
    times: Clock,
    tables: RecordStore,
    models: ModelRegistry,
    servers: ModelHost,
    compute: "ComputeEngine",
    scorers: "ComputeEngine",
    counts: "ComputeEngine",
    windows: "Windows",
) -> "Rooms":
    from noria.adapters.redactor import SocketReader
    from noria.adapters.scorers import scorers as measuring
    from noria.bootstrap.quality_job import FUNCTION
    from noria.loop import Rooms
    from noria.monitoring.alerts import Alerts, Causes, Rules, Showing
    from noria.monitoring.baselines import Baselines
    from noria.monitoring.measuring import Quality
    from noria.monitoring.monitors import Monitors
    from noria.release.experiments import Experiments
    from noria.release.rollouts import Rollouts
    from noria.serving.log.redaction import Redactors
    from noria.training.pipeline import Pipeline
    from noria.training.triggers import Triggers

    project, redactors = settings.project, Redactors(lambda: settings.project)
    names = SocketReader(redactor_socket(settings))
    written = cards(settings, store, models)
    monitors = Monitors(store, tables, Baselines(models), project, counts, measuring)
    owed = outbox(settings, store)
    showing = Showing(tables, lambda name: task_of(project, name))
    causes = Causes(store, times, monitors.moved, showing, lambda name: rules_of(project, name))

    def redact(endpoint: str) -> Callable[[str], str]:
        return _redact(redactors[endpoint], names)

    pipeline = Pipeline(
        state=store,
        records=tables,
        registry=models,
        compute=compute,
        clock=times,
        settings=lambda: settings,
        redact=redact,
        write_card=written.write,
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
        quality=Quality(store, tables, compute, project, FUNCTION, str(settings.tables_dir)),
        judges=judges(project, store, tables, times, scorers, redact, windows.arriving),
        rules=Rules(store, times, tables, lambda: project, causes, owed),
        alerts=Alerts(store, times, causes, owed),
        triggers=Triggers(store, tables, times, lambda: project, base_model(settings)),
        pipeline=pipeline,
        release=release(settings, store, times, models, servers, pipeline),
        rollouts=rollouts,
        experiments=Experiments(
            state=store,
            registry=models,
            host=servers,
            store=tables,
            clock=times,
            endpoint=lambda name: project.endpoints[name],
        ),
        cards=written,
    )


def task_of(project: Project, endpoint: str) -> Task:
    """What an endpoint does; of one that the project has no more nothing is known."""
    known = project.endpoints.get(endpoint)
    return known.task if known is not None else Task.CHAT


def rules_of(project: Project, endpoint: str) -> Mapping[str, AlertRule]:
    """An endpoint's rules; none for one that the project doesn't have."""
    known = project.endpoints.get(endpoint)
    return known.alerts if known is not None else {}


def _redact(redactor: "Redactor", names: "EntityReader") -> Callable[[str], str]:
    """What takes out of a text what the records of an endpoint don't hold either."""
    from noria.serving.log.entities import marked

    def redact(text: str) -> str:
        clean = redactor.text(text)[0]
        return marked(clean, names.find_now([clean], redactor.asks)[0])[0] if redactor.asks else clean

    return redact
