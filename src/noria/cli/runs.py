"""Runs of the training pipeline: `noria run list|show|logs|cancel`."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from noria.cli.shared import (
    AsJson,
    By,
    Reason,
    Root,
    actor,
    ago,
    console,
    opened,
    out,
    print_json,
    print_table,
    printable,
)
from noria.domain.errors import UnknownModel

if TYPE_CHECKING:
    from rich.console import RenderableType

    from noria.domain.run import Run
    from noria.ports import StateStore

run = typer.Typer(no_args_is_help=True, help="Runs of the training pipeline.")
Id = Annotated[str, typer.Argument(metavar="RUN", help="Its id, as noria run list shows it.")]
TAIL = 40
"""Lines of the log that are shown unless somebody asks for more."""


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    run.command(name="list")(list_)
    for command in (show, logs, cancel):
        run.command()(command)
    app.add_typer(run, name="run")


def list_(
    project: Root,
    endpoint: Annotated[str, typer.Option(metavar="NAME", help="Only this endpoint's.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="Runs to show at most.")] = 20,
    json: AsJson = False,
) -> None:
    """Show runs, the newest first."""
    from noria.domain.run import Run

    found = opened(project)[1].find(Run, endpoint=endpoint or None, limit=limit)
    if json:
        print_json(found)
        return
    rows = [(r.id, r.endpoint, r.trigger.kind.value, r.state.value, _where(r), r.version, _began(r)) for r in found]
    print_table(("run", "endpoint", "set off by", "state", "at", "version", "began"), rows, "There was no run yet.")


def show(
    run_id: Id,
    project: Root,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Look on until it is over.")] = False,
    json: AsJson = False,
) -> None:
    """Show a run: why, each step and what it left, how far it is, and how long it will take.

    With --follow the exit code is 1 if it fails.
    """
    state = opened(project)[1]
    found = _run(state, run_id)
    if json:
        print_json(found)
        return
    if follow and not found.finished_at:
        from rich.live import Live

        with Live(_view(found), console=console(), auto_refresh=False) as live:
            while not (found := _run(state, run_id)).finished_at:
                live.update(_view(found), refresh=True)
                time.sleep(0.5)
            live.update(_view(found), refresh=True)
    else:
        console().print(_view(found))
    if follow and not found.version:
        raise typer.Exit(1)


def logs(
    run_id: Id,
    project: Root,
    lines: Annotated[int, typer.Option("--lines", "-n", metavar="N", min=1, help="The last so many.")] = TAIL,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added, until it is over.")] = False,
) -> None:
    """Print what a run's training printed."""
    from noria.adapters.trainers.printing import LOG

    settings, state = opened(project)
    found, path = _run(state, run_id), settings.work_dir / run_id / LOG
    if not path.is_file() and not follow:
        out(f"Run {run_id} has printed nothing{' yet' if not found.finished_at else ''}.")
        return
    text = path.read_text(errors="replace") if path.is_file() else ""
    for line in text.splitlines()[-lines:]:
        out(printable(line))
    seen = len(text.encode())
    while follow and not _run(state, run_id).finished_at:
        time.sleep(0.5)
        if path.is_file():
            with path.open("rb") as file:
                file.seek(seen)
                fresh = file.read()
            whole = fresh[: fresh.rfind(b"\n") + 1]
            seen += len(whole)
            for line in whole.decode(errors="replace").splitlines():
                out(printable(line))


def cancel(run_id: Id, project: Root, reason: Reason, by: By = "") -> None:
    """Stop a run; it registers nothing.

    What it is doing ends within a second if `noria up` runs.
    """
    from noria import bootstrap
    from noria.training.cancelling import cancel as cancel_run

    cancel_run(opened(project)[1], bootstrap.clock(), run_id, actor(by), reason)
    out(f"Run {run_id} is cancelled.")


def _run(state: "StateStore", run_id: str) -> "Run":
    from noria.domain.run import Run

    found = state.get(Run, run_id)
    if found is None:
        raise UnknownModel(f"There is no run {run_id}.", "See noria run list.")
    return found


def _began(found: "Run") -> str:
    return ago((datetime.now(UTC) - found.started_at).total_seconds())


def _where(found: "Run") -> str:
    """Which step it is at, in a few words."""
    from noria.training.order import STEPS

    if found.finished_at is not None:
        return ""
    done = {step.name for step in found.steps}
    at = next((name for name in STEPS if name not in done), "")
    share = found.progress.share if found.progress is not None else None
    return at if share is None else f"{at} {share:.0%}"


def _view(found: "Run") -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    head = f"{found.id}  {found.state.value}{f', made {found.model}/{found.version}' if found.version else ''}"
    why = f"{found.trigger.kind.value}, asked by {found.trigger.actor}: {found.trigger.reason}"
    lines = [Text(head, "bold"), Text(printable(why), "dim"), *_steps(found)]
    if found.cost_usd:
        lines.append(Text(f"It cost {found.cost_usd:,.2f} US dollars elsewhere."))
    if found.error:
        lines.append(Text(printable(found.error), "red"))
    return Group(*lines)


def _steps(found: "Run") -> "Iterator[RenderableType]":
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    for step in found.steps:
        took = (step.finished_at - step.started_at).total_seconds()
        yield Text(f"  ✓ {step.name:<9} {took:7.1f} s  {printable(step.summary)}")
    if found.finished_at is not None:
        return
    yield Text(f"  … {_where(found)}")
    told = found.progress
    if told is not None:
        if told.share is not None:
            yield ProgressBar(total=1.0, completed=told.share, width=40)
        left = f", about {told.remaining_s:,.0f} s left" if told.remaining_s is not None else ""
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in told.numbers.items())
        yield Text(f"    {printable(told.message)}{left}  {numbers}".rstrip(), "dim")
