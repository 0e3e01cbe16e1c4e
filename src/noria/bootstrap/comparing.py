"""What compares versions beside the traffic, for the command line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from noria.bootstrap.judging import prices
from noria.bootstrap.parts import host, registry, upstream
from noria.bootstrap.project import clock, state
from noria.domain.errors import InvalidData
from noria.domain.run import Run, RunState
from noria.settings import Settings

if TYPE_CHECKING:
    from noria.release.offline import Offline


@contextmanager
def offline(settings: Settings, endpoint: str, say: Callable[[str], None]) -> "Iterator[Offline]":
    """Compose it."""
    from noria.release.offline import Offline

    store, models, times = state(settings), registry(settings), clock()
    price = prices(settings.project, store, times)
    yield Offline(
        state=store,
        registry=models,
        host=host(settings, models, store),
        upstream=lambda: upstream(lambda: settings.project),
        clock=times,
        price=lambda address: price(address, endpoint),
        say=say,
    )


def labelled_rows(settings: Settings, endpoint: str, file: Path | None) -> tuple[list[str], list[str], str]:
    """Texts, labels, and where they are from: a file, else what the endpoint's newest run held out.

    Raises:
        InvalidData: There are none.
    """
    from noria.training.datasets import read_holdout
    from noria.training.sources import read_file

    if file is not None:
        rows = read_file(file, lambda text: text)
        return [row.text for row in rows], [row.label for row in rows], file.name
    runs = state(settings).find(Run, endpoint=endpoint)
    newest = next((run for run in runs if run.state is RunState.SUCCEEDED), None)
    held = read_holdout(settings.work_dir / newest.id) if newest is not None else None
    if newest is None or held is None:
        raise InvalidData(f"No run of {endpoint} has held rows out.", "Name a labelled file with --data FILE.")
    return list(held.texts), list(held.labels), f"what run {newest.id} held out"
