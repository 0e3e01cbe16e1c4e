"""The account of who changed what and why: `noria audit show`, `noria audit verify`."""

from collections.abc import Iterator
from typing import Annotated

import typer

from noria.cli.shared import AsJson, Root, opened, out, print_json, print_table

audit = typer.Typer(no_args_is_help=True, help="The tamper-evident account of who changed what, and why.")


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    audit.command()(show)
    audit.command()(verify)
    app.add_typer(audit, name="audit")


def show(
    project: Root,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="Events to show at most.")] = 30,
    json: AsJson = False,
) -> None:
    """Show the newest events.

    The newest stands last.
    """
    from collections import deque

    events = deque(opened(project)[1].audit_trail(), maxlen=limit)
    if json:
        print_json(list(events))
        return
    print_table(
        ("no.", "at", "actor", "action", "subject", "reason"),
        [(e.sequence, e.at, e.actor, e.action, e.subject, e.reason) for e in events],
        "Nothing was changed yet.",
    )


def verify(project: Root, json: AsJson = False) -> None:
    """Check the chain of hashes.

    If anything was deleted, altered, inserted or reordered, the exit code is 1 and the place is named.
    """
    from noria.domain.audit import GENESIS, AuditEvent, broken_at

    last: list[AuditEvent] = []
    count = 0

    def counted() -> Iterator[AuditEvent]:
        nonlocal count
        for event in opened(project)[1].audit_trail():
            count += 1
            last[:] = [event]
            yield event

    found = broken_at(counted())
    head = last[0].hash if last else GENESIS
    if json:
        broken = {"sequence": found.sequence, "problem": found.problem} if found else None
        print_json({"verified": found is None, "events": count, "head": head, "broken": broken})
    elif found is None:
        out(f"{count} events, unbroken; the last one's hash is {head}")
    else:
        out(f"BROKEN at event {found.sequence}: {found.problem}")
    raise typer.Exit(0 if found is None else 1)
