"""Monitors: what they know of the traffic, and history computed again (`noria monitor run`)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from noria.cli import evidence
from noria.cli.shared import AsJson, Root, known, moment_of, opened, out, print_json, print_table

if TYPE_CHECKING:
    from noria.monitoring.backfill import Backfilled

monitor = typer.Typer(no_args_is_help=True, help="What monitors know of the traffic.")


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    evidence.add_to(monitor)
    monitor.command()(run)
    app.add_typer(monitor, name="monitor")


def run(
    project: Root,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="From then on: 2026-01-31, 2026-01-31T12:00, or 2h or 7d ago.")
    ],
    until: Annotated[str, typer.Option(metavar="TIME", help="Up to then.", show_default="now")] = "",
    endpoint: Annotated[
        list[str] | None, typer.Option(metavar="ENDPOINT", help="Only this endpoint's; again for more.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Compute windows of the past again, and the evidence that rests on them.

    Twice gives the same tables. It works while `noria up` runs and while it doesn't.
    """
    from noria import bootstrap

    settings, _ = opened(project)
    names = endpoint or list(settings.project.endpoints)
    for name in names:
        known(settings, name)
    begin, end = moment_of(since), moment_of(until) if until else datetime.now(UTC)
    found = []
    with bootstrap.backfill(settings) as backfill:
        for name in names:
            with _bar(name) as told:
                found.append(backfill.run(name, begin, end, told))
    if json:
        print_json([asdict(each) for each in found])
        return
    rows = [(f.endpoint, f.windows, f.longer, f.records, ", ".join(f.alarms) or "none") for f in found]
    print_table(("endpoint", "windows", "longer windows", "records", "alarms"), rows, "No endpoint was named.")
    out(_told(found))


@contextmanager
def _bar(endpoint: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal that moves along with the windows of an endpoint."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("windows of {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(endpoint, total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


def _told(found: "list[Backfilled]") -> str:
    windows = sum(each.windows + each.longer for each in found)
    return f"{windows} window{'' if windows == 1 else 's'} of {len(found)} endpoint{'' if len(found) == 1 else 's'}."
