"""What computes history again, for the command line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from noria.bootstrap.parts import counting, records, registry
from noria.bootstrap.project import clock, state
from noria.settings import Settings

if TYPE_CHECKING:
    from noria.monitoring.backfill import Backfill


@contextmanager
def backfill(settings: Settings) -> "Iterator[Backfill]":
    """Compose it; its engine is closed in the end.

    Raises:
        MissingExtra: The project asks for Spark, and PySpark or Java isn't installed.
    """
    from noria.adapters.scorers import scorers
    from noria.monitoring.backfill import Backfill
    from noria.monitoring.baselines import Baselines
    from noria.monitoring.monitors import Monitors

    engine = counting(settings)
    try:
        models = Baselines(registry(settings))
        monitors = Monitors(state(settings), records(settings), models, settings.project, engine, scorers)
        yield Backfill(monitors, clock())
    finally:
        engine.close()
