"""`noria status`: the loop at a glance, as JSON values and as something to look at."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from noria import bootstrap
from noria.api.status import loop_status
from noria.cli.shared import ago, printable, when
from noria.projectfile import load_project
from noria.supervisor import running

if TYPE_CHECKING:
    from noria.ports import StateStore
    from noria.settings import Settings

BAR = 20
"""Width of an evidence bar, in characters."""
SHOWN = 4
"""How many runs, rollouts and verdicts the view shows."""
_GRAVE = {"info": "cyan", "warning": "yellow", "critical": "red"}
_LOOK = {"champion": "green", "canary": "yellow", "variant": "yellow", "shadow": "cyan", "previous": "dim"}
Status = Mapping[str, Any]


def look(settings: "Settings", state: "StateStore") -> dict[str, Any]:
    """What `GET /api/status` answers, and beside it what only this machine knows.

    Returns:
        `loop_status` with two more keys: `up`, where the project runs (None if it doesn't), and `file_changed`, whether
        noria.yaml differs from the project in service (None if it can't be read). An endpoint with a budget has
        `budget`: `usd_per_day`, `usd_today`.
    """
    found = loop_status(state, settings.project, bootstrap.clock())
    spent = bootstrap.spending(settings)
    for shown in found["endpoints"]:
        known = settings.project.endpoints.get(shown["name"])
        if known is not None and (budget := known.limits.usd_per_day) is not None:
            shown["budget"] = {"usd_per_day": budget, "usd_today": spent(f"endpoint:{shown['name']}")}
    up = running(settings.run_dir)
    return {**found, "up": asdict(up) if up else None, "file_changed": _file_changed(settings)}


def _file_changed(settings: "Settings") -> bool | None:
    try:
        return load_project(settings.root).project != settings.project
    except Exception:  # a broken file is no reason to show nothing; `noria apply` says what is wrong with it
        return None


def view(status: Status) -> RenderableType:
    """The status for a terminal."""
    parts: list[RenderableType] = [_head(status)]
    parts += [_endpoint(endpoint) for endpoint in status["endpoints"]]
    parts += [section for section in (_alerts(status), _runs(status), _rollouts(status), _verdicts(status)) if section]
    return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts))


def _head(status: Status) -> Table:
    """The project, its processes and its log."""
    project, worker, up = status["project"], status["worker"], status["up"]
    grid = _grid()
    never = "" if project and project["applied_at"] else "not in service yet"
    grid.add_row(Text("project", "dim"), Text.assemble((project["name"] if project else "", "bold"), f"  {never}"))
    grid.add_row(
        Text("runs", "dim"),
        Text(f"{up['url']} (process {up['pid']})", "green")
        if up
        else Text("nothing runs; `noria up` starts it. This is how it was left.", "yellow"),
    )
    if up:
        grid.add_row(Text("processes", "dim"), Text(_processes(up)))
        alive = worker["alive"]
        grid.add_row(Text("worker", "dim"), Text(f"seen {ago(worker['age_seconds'])}", "green" if alive else "red"))
    grid.add_row(Text("log", "dim"), _log(status))
    for problem in worker["problems"]:
        grid.add_row(Text("problem", "red"), Text(printable(problem)))
    if status["file_changed"] is not False:
        said = "has changed since it was applied" if status["file_changed"] else "can't be read"
        grid.add_row(Text("file", "dim"), Text(f"noria.yaml {said}: `noria apply` shows how", "yellow"))
    grid.add_row(
        Text("audit", "dim"), Text(f"{status['audit']['events']} events so far; `noria audit verify` checks them")
    )
    return grid


def _processes(up: Status) -> str:
    """Every process of the project with its id, and how often it was started again."""
    again = up["restarts"]
    return ", ".join(
        f"{name} {pid or 'down'}" + (f" (restarts: {again[name]})" if again.get(name) else "")
        for name, pid in up["children"].items()
    )


def _log(status: Status) -> Text:
    """How much of the log is in the tables."""
    worker = status["worker"]
    written = sum(spool["written"] for spool in worker["spools"].values())
    return Text(f"{written} entries, {worker['unshipped']} still to be shipped, {worker['open_intents']} under way")


def _endpoint(endpoint: Status) -> Group:
    """Who answers with which weight, and the evidence against each monitor's baseline."""
    title = Text.assemble((endpoint["name"], "bold"), (f"  {endpoint['task']}", "dim"))
    grid = _grid()
    for role, target in _targets(endpoint):
        weight = f"{target['weight']:>3} %" if role in ("champion", "canary", "variant") else ""
        grid.add_row(Text(role, _LOOK[role]), Text(f"{target['model']}/{target['version']}"), Text(weight))
    if endpoint["champion"] is None:
        grid.add_row(Text("champion", "dim"), Text("none yet: on its way, or refused", "yellow"))
    if budget := endpoint.get("budget"):
        spent = f"${budget['usd_today']:.2f} of ${budget['usd_per_day']:g} today"
        grid.add_row(Text("budget", "dim"), Text(spent, "red" if budget["usd_today"] >= budget["usd_per_day"] else ""))
    monitors = _grid()
    for monitor in sorted(endpoint["monitors"], key=lambda m: str(m["monitor"])):
        monitors.add_row(Text(monitor["monitor"], "dim"), _bar(monitor), _evidence(monitor))
    return Group(title, Padding(grid, (0, 0, 0, 2)), Padding(monitors, (0, 0, 0, 2)))


def _targets(endpoint: Status) -> Iterator[tuple[str, Status]]:
    """Role and target of everything in the route, the champion first."""
    for role in ("champion", "canary"):
        if endpoint[role]:
            yield role, endpoint[role]
    for variant in endpoint["variants"]:
        yield "variant", variant
    for shadow in endpoint["shadows"]:
        yield "shadow", shadow
    if endpoint["previous"]:
        yield "previous", endpoint["previous"]


def _bar(monitor: Status) -> Text:
    """The evidence as a bar that is full at the alarm line, on a logarithmic scale."""
    share = 0.0 if monitor["log_e"] is None else monitor["log_e"] / monitor["log_threshold"]
    filled = round(BAR * min(max(share, 0.0), 1.0))
    colour = "red" if monitor["alarms"] else "yellow" if share >= 0.5 else "green"
    return Text.assemble(("█" * filled, colour), ("·" * (BAR - filled), "dim"), ("▏", "red"))


def _evidence(monitor: Status) -> Text:
    """The same in numbers: E against its threshold, and the rows behind it."""
    evidence, threshold = _power(monitor["log_e"]), _power(monitor["log_threshold"])
    alarm = (" ALARM", "bold red") if monitor["alarms"] else ("", "")
    return Text.assemble(f"E {evidence} of {threshold}", alarm, (f"  {monitor['rows']} records", "dim"))


def _power(log_e: float | None) -> str:
    """exp(log_e) in a few characters, however large."""
    if log_e is None:
        return "?"
    exponent = log_e / math.log(10)
    return f"{math.exp(log_e):.3g}" if -4 < exponent < 6 else f"10^{exponent:.0f}"


def _alerts(status: Status) -> RenderableType | None:
    rows = []
    for alert in status["alerts"]:
        looks = alert["acknowledged"]
        seen = f" ({looks['by']} looks after it)" if looks else " (silenced)" if alert["silenced"] else ""
        said = f"{alert['endpoint']}: {alert['summary']}{seen}"
        rows.append((alert["monitor"], _GRAVE[alert["severity"]], said, when(alert["raised_at"])))
    return _section("alerts", rows)


def _runs(status: Status) -> RenderableType | None:
    rows = []
    for run in status["runs"][:SHOWN]:
        last = run["steps"][-1]["name"] if run["steps"] else "beginning"
        made = f"made {run['model']}/{run['version']}" if run["version"] else f"last step {last}"
        said = f"{run['endpoint']}: {run['error'] or made} ({_short(run['trigger']['reason'])}, {run['seconds']:.0f} s)"
        rows.append((run["state"], _colour(run["state"]), said, when(run["started_at"])))
    return _section("runs", rows)


def _rollouts(status: Status) -> RenderableType | None:
    rows = []
    for rollout in status["rollouts"][:SHOWN]:
        why = rollout["history"][-1]["reason"] if rollout["history"] else ""
        weight = f" at {rollout['weight']} %" if rollout["stage"] == "canary" else ""
        said = f"{rollout['endpoint']}: {rollout['model']}/{rollout['version']}{weight}; {why}"
        rows.append((rollout["stage"], _colour(rollout["stage"]), said, when(rollout["changed_at"])))
    return _section("rollouts", rows)


def _verdicts(status: Status) -> RenderableType | None:
    rows = []
    for verdict in status["verdicts"][:SHOWN]:
        word = verdict["standing"]
        why = verdict["obstacle"] or f"{len(verdict['results'])} gates"
        if word == "overridden":
            why = f"by {verdict['override_by']}: {verdict['override_reason']}"
        if word == "approved":
            why = f"by {verdict['approval']['by']}: {verdict['approval']['reason']}"
        said = f"{verdict['endpoint']}: {verdict['model']}/{verdict['version']}; {why}"
        rows.append((word, _colour(word), said, when(verdict["decided_at"])))
    return _section("verdicts", rows)


def _section(title: str, rows: list[tuple[str, str, str, str]]) -> RenderableType | None:
    """A titled list of (state, its colour, what, when); nothing if it is empty."""
    if not rows:
        return None
    grid = _grid()
    for word, colour, said, moment in rows:
        grid.add_row(Text(word, colour), Text(printable(said)), Text(moment, "dim"))
    return Group(Text(title, "bold"), Padding(grid, (0, 0, 0, 2)))


def _short(reason: str) -> str:
    """The first clause of a reason."""
    clause = reason.partition(":")[0]
    return clause if len(clause) <= 70 else clause[:69] + "…"


def _colour(word: str) -> str:
    """The colour of a state."""
    good, bad = (
        {"succeeded", "promoted", "passed", "approved"},
        {"failed", "refused", "rolled_back", "expired", "unapproved"},
    )
    return "green" if word in good else "red" if word in bad else "yellow"


def _grid() -> Table:
    """Columns without lines; the first is as wide as the widest word that stands there."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(min_width=11, no_wrap=True)
    return grid
