"""What reports on models are made of, put together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from noria.bootstrap.parts import records, registry
from noria.bootstrap.project import clock
from noria.domain.errors import NoriaError
from noria.domain.monitor import MonitorState, Moved
from noria.ports import StateStore
from noria.settings import Settings

if TYPE_CHECKING:
    from noria.monitoring.reports import Reporter


def reporter(settings: Settings, store: StateStore) -> "Reporter":
    """What gathers reports on a project's endpoints, whether it runs or not."""
    from noria.monitoring.alerts import what_next
    from noria.monitoring.baselines import Baselines
    from noria.monitoring.monitors import Monitors
    from noria.monitoring.reports import Reporter

    tables = records(settings)
    monitors = Monitors(store, tables, Baselines(registry(settings)), settings.project)

    def moved(state: MonitorState) -> Sequence[Moved]:
        try:
            return monitors.moved(state)
        except NoriaError:  # without the registry there is no baseline to compare with; the rest can be said
            return ()

    return Reporter(
        state=store,
        records=tables,
        project=settings.project,
        clock=clock(),
        moved=moved,
        next=lambda alert: what_next(store, settings.project, alert),
    )
