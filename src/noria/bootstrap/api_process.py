"""What an API process is made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from noria.bootstrap.parts import meters, records, redactor_socket, upstream
from noria.bootstrap.project import clock, in_service, state
from noria.bootstrap.tracing import lineage
from noria.ports import Clock, Meters, StateStore
from noria.projectfile import parse_project
from noria.settings import Settings

if TYPE_CHECKING:
    from noria.adapters.tables.parquet import ParquetReader
    from noria.adapters.upstreams.both import ProjectUpstream
    from noria.domain.lineage import Link
    from noria.serving.log.recorder import Recorder
    from noria.serving.router import Router


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
    trace: "Callable[[str], Link]"
    spool_bytes: Callable[[], int]
    close: Callable[[], None]


def api(settings: Settings, slot: str) -> Api:
    """Compose an API process that alone writes the spool of that slot."""
    from noria.adapters.redactor import SocketReader
    from noria.adapters.spool.writer import SqliteSpool
    from noria.adapters.tables.parquet import ParquetReader
    from noria.serving.log.recorder import Recorder
    from noria.serving.log.redaction import Redactors
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
        trace=lambda name: lineage(settings, store).trace(name),
        spool_bytes=spool_bytes,
        meters=shared,
        close=close,
    )
