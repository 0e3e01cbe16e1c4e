"""What is wrong, what was, and who looks after it: list, show, ack, silence, unsilence, silences."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noria.cli.shared import (
    AsJson,
    By,
    Reason,
    Root,
    actor,
    console,
    duration,
    opened,
    out,
    print_json,
    print_table,
    when,
)
from noria.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from noria.domain.alert import Alert, Silence
    from noria.domain.delivery import Delivery
    from noria.ports import StateStore

alerts = typer.Typer(no_args_is_help=True, help="What is wrong, what was, and who looks after it.")
Which = Annotated[str, typer.Argument(metavar="ID", help="Alert's id, or what only its id begins with.")]
_MOST = 100_000


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    for name, command in (
        ("list", list_alerts),
        ("show", show),
        ("ack", ack),
        ("silence", silence),
        ("unsilence", unsilence),
        ("silences", silences),
    ):
        alerts.command(name)(command)
    app.add_typer(alerts, name="alerts")


def list_alerts(
    project: Root,
    every: Annotated[bool, typer.Option("--all", help="Those that were resolved, too.")] = False,
    endpoint: Annotated[str, typer.Option(metavar="ENDPOINT", help="Only this endpoint's.")] = "",
    json: AsJson = False,
) -> None:
    """List alerts that fire or are pending, newest first."""
    from noria.domain.alert import AlertState, silenced

    state = opened(project)[1]
    found = state.find(_alert(), endpoint=endpoint or None, limit=_MOST)
    rows = [a for a in found if every or a.state is not AlertState.RESOLVED]
    quiet, now = _in_force(state), datetime.now(UTC)
    held = {a.id: s.id if (s := silenced(a, quiet, now)) else "" for a in rows}
    if json:
        print_json([{**_plain(a), "how_sure": a.how_sure, "silenced": held[a.id]} for a in rows])
        return
    print_table(
        ("state", "severity", "raised", "id", "summary"),
        [(_stand(a, held[a.id]), a.severity.value, a.raised_at, a.id, a.summary) for a in rows],
        "No alert is firing." if not every else "There was never an alert.",
    )


def show(
    alert: Which,
    project: Root,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw what moved into this .svg or .png file.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Show an alert: what changed, since when, how sure, what shows it, who was told and what happens next."""
    from noria import bootstrap
    from noria.domain.alert import silenced
    from noria.monitoring.alerts import what_next

    settings, state = opened(project)
    found = _as_of_now(state, bootstrap.desk(settings, state).find(alert))
    if picture is not None:
        _draw(found, picture)
    held = silenced(found, _in_force(state), datetime.now(UTC))
    told = _deliveries(state, found)
    then = what_next(state, settings.project, found)
    if json:
        more = {"how_sure": found.how_sure, "next": then, "silenced": held.id if held else "", "deliveries": told}
        print_json({**_plain(found), **more})
        return
    from noria.cli.alert_view import view

    for part in view(found, held, told, then):
        console().print(part)


def ack(alert: Which, project: Root, reason: Reason, by: By = "") -> None:
    """Say that you look after an alert: it is shown, and nobody is reminded of it while it fires."""
    from noria import bootstrap

    settings, state = opened(project)
    mine = bootstrap.desk(settings, state).acknowledge(alert, actor(by), reason)
    out(f"{actor(by)} looks after {mine.id} now.")


def silence(
    project: Root,
    lasts: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long, such as 30m, 2h or 1d.")],
    reason: Reason,
    endpoint: Annotated[
        str, typer.Option(metavar="PATTERN", help="Endpoints meant; * and ? stand for anything.")
    ] = "*",
    monitor: Annotated[str, typer.Option(metavar="PATTERN", help="Monitors or rules meant.")] = "*",
    severity: Annotated[str, typer.Option(metavar="PATTERN", help="Severities meant.")] = "*",
    by: By = "",
) -> None:
    """Send nobody any alerts that match, for a while; they fire, are shown and start runs all the same."""
    from noria import bootstrap
    from noria.monitoring.alerts import Matcher

    if (endpoint, monitor, severity) == ("*", "*", "*"):
        raise InvalidRequest("This would silence every alert.", "Say which: --endpoint, --monitor or --severity.")
    settings, state = opened(project)
    until = datetime.now(UTC) + duration(lasts, "--for")
    made = bootstrap.desk(settings, state).silence(Matcher(endpoint, monitor, severity), until, actor(by), reason)
    out(f"Silence {made.id} holds until {when(made.until)}. `noria alerts unsilence {made.id}` ends it.")


def unsilence(
    name: Annotated[str, typer.Argument(metavar="ID", help="Silence's id, see noria alerts silences.")],
    project: Root,
    reason: Reason,
    by: By = "",
) -> None:
    """End a silence; what still fires is sent."""
    from noria import bootstrap

    settings, state = opened(project)
    bootstrap.desk(settings, state).lift(name, actor(by), reason)
    out(f"Silence {name} is over.")


def silences(project: Root, json: AsJson = False) -> None:
    """List the silences in force, the one that ends first first."""
    found = sorted(_in_force(opened(project)[1]), key=lambda s: s.until)
    if json:
        print_json(found)
        return
    columns = ("id", "until", "endpoint", "monitor", "severity", "by", "reason")
    rows = [(s.id, s.until, s.endpoint, s.monitor, s.severity, s.by, s.reason) for s in found]
    print_table(columns, rows, "Nothing is silenced.")


def _alert() -> "type[Alert]":
    from noria.domain.alert import Alert

    return Alert


def _as_of_now(state: "StateStore", alert: "Alert") -> "Alert":
    """An alert with what its rule has seen until now."""
    from noria.domain.alert import RuleState

    rule = state.get(RuleState, f"{alert.endpoint}:{alert.rule}") if alert.rule else None
    return replace(alert, trail=rule.seen) if rule is not None and alert.trail else alert


def _in_force(state: "StateStore") -> "list[Silence]":
    from noria.domain.alert import Silence

    now = datetime.now(UTC)
    return [s for s in state.find(Silence, limit=_MOST) if s.holds(now)]


def _plain(noun: object) -> dict[str, Any]:
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(noun)
    return plain


def _stand(alert: "Alert", silence: str) -> str:
    """An alert's state, with who looks after it and what silences it."""
    seen = f", {alert.acknowledged.by} looks after it" if alert.acknowledged else ""
    quiet = f", silenced by {silence}" if silence else ""
    return f"{alert.state.value}{seen}{quiet}"


def _deliveries(state: "StateStore", alert: "Alert") -> "list[Delivery]":
    """What is known of who was told; those that are still open first."""
    from noria.domain.delivery import Delivery

    found = [d for d in state.find(Delivery, endpoint=alert.endpoint, limit=_MOST) if d.alert_id == alert.id]
    return sorted(found, key=lambda d: (not d.open, d.notifier))


def _draw(alert: "Alert", file: Path) -> None:
    """Draw the alert's picture.

    Raises:
        InvalidRequest: It has none, or the file's name doesn't say how.
    """
    from noria.monitoring import pictures

    spec = pictures.of_alert(alert)
    if spec is None:
        raise InvalidRequest(
            f"{alert.id} says of nothing how it moved, so there is no picture.", "Leave --picture out."
        )
    match file.suffix.lower():
        case ".svg":
            file.write_text(pictures.svg(spec), encoding="utf-8")
        case ".png":
            file.write_bytes(pictures.png(spec))
        case _:
            raise InvalidRequest(f"{file} is neither .svg nor .png.", "Name the file for one of them.")
