"""The account of who changed what and why: `noria audit show`, `noria audit verify`."""

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
    subject: Annotated[
        str, typer.Option(metavar="NAME", help="Only what concerns an endpoint, or a version such as triage/3.")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="Events to show at most.")] = 30,
    json: AsJson = False,
) -> None:
    """Show the newest events.

    The newest stands last.
    """
    from noria.governance.audit import history

    events = history(opened(project)[1], subject=subject, newest=limit)[::-1]
    if json:
        print_json(events)
        return
    print_table(
        ("no.", "at", "actor", "action", "subject", "reason"),
        [(e.sequence, e.at, e.actor, e.action, e.subject, e.reason) for e in events],
        f"Nothing is known of {subject}: name an endpoint, or a version such as triage/3."
        if subject
        else "Nothing was changed yet.",
    )


def verify(project: Root, json: AsJson = False) -> None:
    """Check the chain of hashes.

    If anything was deleted, altered, inserted or reordered, the exit code is 1 and the place is named.
    """
    from noria.governance.audit import verify as verify_account

    report = verify_account(opened(project)[1])
    if json:
        print_json(report.to_json())
    elif report.broken is None:
        out(f"{report.events} events, unbroken; the last one's hash is {report.head}")
    else:
        out(f"BROKEN at event {report.broken.sequence}: {report.broken.problem}")
    raise typer.Exit(0 if report.verified else 1)
