"""Look at monitors: `noria monitor list`, `noria monitor show`, `noria monitor explain`."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noria.cli.shared import AsJson, Root, console, known, opened, print_json, print_table, printable, when
from noria.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from rich.console import RenderableType

    from noria.domain.monitor import MonitorState
    from noria.monitoring.reports import Reporter

Which = Annotated[
    str, typer.Argument(metavar="NAME", help="ENDPOINT:MONITOR; MONITOR alone if one endpoint has one of that name.")
]
_NEWEST = 12


def add_to(group: typer.Typer) -> None:
    """Add this file's commands to `noria monitor`."""
    group.command("list")(monitor_list)
    group.command("show")(show)
    group.command("explain")(explain)


def monitor_list(
    project: Root,
    endpoint: Annotated[str, typer.Option(metavar="ENDPOINT", help="Only this endpoint's.")] = "",
    json: AsJson = False,
) -> None:
    """List monitors, those nearest to an alarm first."""
    from noria import bootstrap
    from noria.monitoring.words import odds

    settings, state = opened(project)
    if endpoint:
        known(settings, endpoint)
    reporter = bootstrap.reporter(settings, state)
    names = [endpoint] if endpoint else list(settings.project.endpoints)
    found = [monitor for name in names for monitor in reporter.monitors(name)]
    if json:
        print_json([_short(monitor) for monitor in found])
        return
    rows = [
        (
            f"{m.endpoint}:{m.monitor}",
            "ALARM" if m.alarms else f"{max(m.log_e, 0) / m.log_threshold:.0%}" if m.log_threshold else "",
            odds(m.log_e),
            odds(m.log_threshold),
            f"{m.rows:,}",
            f"{m.model_version}/{m.monitor_version}",
            m.folded_until,
        )
        for m in found
    ]
    columns = ("monitor", "of its line", "evidence to 1", "alarm at", "values", "version/monitor", "seen until")
    print_table(columns, rows, "No monitor has seen a window yet.")


def show(name: Which, project: Root, json: AsJson = False) -> None:
    """Show a monitor's numbers: its evidence, its effect sizes, its slices."""
    reporter, monitor = _asked(project, name)
    found = reporter.shown(monitor)
    if json:
        print_json(found)
        return
    for part in _shown(found):
        console().print(part)


def explain(name: Which, project: Root, json: AsJson = False) -> None:
    """Explain a monitor in words: what it watches and compares with, what would make it alarm, and what moved."""
    reporter, monitor = _asked(project, name)
    found = reporter.explanation(monitor)
    if json:
        print_json(found)
        return
    for part in _explained(found):
        console().print(part)


def _asked(project: Any, name: str) -> "tuple[Reporter, MonitorState]":
    """The monitor that is meant, and who knows about it.

    Raises:
        InvalidRequest: None is, or several are.
    """
    from noria import bootstrap

    settings, state = opened(project)
    reporter = bootstrap.reporter(settings, state)
    every = [monitor for endpoint in settings.project.endpoints for monitor in reporter.monitors(endpoint)]
    names = [f"{m.endpoint}:{m.monitor}" for m in every]
    meant = [m for m, full in zip(every, names, strict=True) if name in (full, m.monitor)]
    if len(meant) == 1:
        return reporter, meant[0]
    if meant:
        several = ", ".join(f"{m.endpoint}:{m.monitor}" for m in meant)
        raise InvalidRequest(f"{name} is a monitor of several endpoints.", f"Write one of {several}.")
    remedy = f"There are {', '.join(names)}." if names else "They come with the first window that closes."
    raise InvalidRequest(f"No monitor {name} has seen a window.", remedy)


def _short(monitor: "MonitorState") -> dict[str, Any]:
    """A monitor without the counts that its evidence is computed from."""
    from noria.monitoring.reports.facts import plain

    shown: dict[str, Any] = plain(monitor) | {"alarms": monitor.alarms}
    return {name: value for name, value in shown.items() if name not in ("counts", "log_capitals")}


def _shown(found: Mapping[str, Any]) -> "Iterator[RenderableType]":
    from rich.text import Text

    from noria.monitoring.reports.page import effects
    from noria.monitoring.words import number, odds

    yield Text(f"{found['endpoint']}:{found['monitor']}", "bold red" if found["alarms"] else "bold")
    yield _facts(
        ("watches", f"{found['watches']} ({found['column'] or found['monitor']})"),
        ("evidence", f"{odds(found['log_e'])} to 1, alarm at {odds(found['log_threshold'])} to 1"),
        ("values", f"{found['rows']:,} since {when(found['since'])}, seen until {when(found['folded_until'])}"),
        ("version", f"{found['model_version']}, monitor version {found['monitor_version']}"),
        *((name.replace("_", " "), number(value)) for name, value in found["numbers"].items()),
    )
    if found["effects"]:
        yield Text("newest window against the baseline", "dim")
        yield _facts(*((name, number(value)) for name, value in effects(found["effects"])))
    if found["slices"]:
        table = _table("slice", "Jensen–Shannon", "PSI", "values")
        for part in found["slices"]:
            sizes = (number(part["js_distance"]), number(part["population_stability_index"]), number(part["rows_seen"]))
            table.add_row(Text(printable(f"{part['slice_key']} = {part['slice_value']}")), *sizes)
        yield table


def _explained(found: Mapping[str, Any]) -> "Iterator[RenderableType]":
    from rich.text import Text

    from noria.monitoring.words import odds

    yield Text(f"{found['endpoint']}:{found['monitor']}", "bold red" if found["alarms"] else "bold")
    yield Text(printable(f"It watches {found['watches']}, and compares with {found['baseline']}."))
    yield Text(printable(found["says"]), "bold")
    yield Text(printable(found["until_alarm"]))
    if found["trail"]:
        steps = "  ".join(odds(row["log_e"]) for row in found["trail"][-_NEWEST:])
        yield Text(f"Evidence after each of the newest windows, to 1: {steps}", "dim")
    if found["moved"]:
        table = _table("what moved", "before", "now", "for example")
        for cell in found["moved"]:
            examples = Text("\n".join(printable(each) for each in cell["examples"]))
            table.add_row(
                Text(printable(cell["name"])), f"{cell['share_before']:.1%}", f"{cell['share_now']:.1%}", examples
            )
        yield table
    yield from _apart(found["apart"])


def _apart(apart: Mapping[str, Any] | None) -> "Iterator[RenderableType]":
    """What a classifier goes by."""
    from rich.text import Text

    if apart is None or apart["found"] is None:
        return
    found = apart["found"]
    yield Text(
        f"A classifier that tries to tell the {found['rows_now']:,} texts and values since {when(apart['since'])} from "
        f"the {found['rows_before']:,} before is right in {found['auc']:.0%} of pairs ({found['low']:.0%} to "
        f"{found['high']:.0%}; 50% is chance). This explains and never alarms. It goes by:"
        if found["low"] > _CHANCE
        else f"A classifier can't tell the records since {when(apart['since'])} from those before: it is right in "
        f"{found['auc']:.0%} of pairs ({found['low']:.0%} to {found['high']:.0%}; 50% is chance)."
    )
    if found["low"] <= _CHANCE:
        return
    table = _table("in", "word, value or range", "before", "now")
    for sign in found["signs"]:
        shares = f"{sign['share_before']:.1%}", f"{sign['share_now']:.1%}"
        table.add_row(sign["column"], Text(printable(sign["name"])), *shares)
    yield table


_CHANCE = 0.5


def _facts(*rows: tuple[str, str]) -> Any:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for name, value in rows:
        grid.add_row(Text(name, "dim"), Text(printable(value)))
    return grid


def _table(*columns: str) -> Any:
    from rich.table import Table

    return Table(*columns, box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
