"""The account of who changed what and why: `noria audit show`, `verify`, `anchor`, `export`, `key`."""

from pathlib import Path
from typing import Annotated

import typer

from noria.cli.shared import AsJson, Root, err, opened, out, print_json, print_table

audit = typer.Typer(no_args_is_help=True, help="The tamper-evident account of who changed what, and why.")


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    for command in (show, verify, anchor, export, key):
        audit.command()(command)
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


def verify(
    project: Root,
    anchors: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", exists=True, file_okay=False, help="Roots kept elsewhere.", show_default="audit.anchors"
        ),
    ] = None,
    key: Annotated[str, typer.Option(metavar="KEY", help="Public key that every root must be signed with.")] = "",
    json: AsJson = False,
) -> None:
    """Check the chain of hashes, and the account against its daily roots.

    If anything was deleted, altered, inserted, reordered or computed anew, the exit code is 1 and the place is named.
    """
    from dataclasses import replace

    from noria import bootstrap
    from noria.governance.anchors import against
    from noria.governance.audit import verify as verify_account

    settings, state = opened(project)
    report = verify_account(state)
    store, signer = bootstrap.anchors_kept(settings, anchors)
    roots = store.kept()
    if report.verified and (broken := against(state, roots, signer, key)) is not None:
        report = replace(report, verified=False, broken=broken)
    if json:
        print_json(report.to_json() | {"roots": len(roots), "anchored": roots[-1].last if roots else 0})
    elif report.broken is None:
        out(f"{report.events} events, unbroken; the last one's hash is {report.head}")
        if roots:
            out(f"{len(roots)} roots hold the first {roots[-1].last} of them.")
        else:
            out("No day is over: no roots yet.")
    else:
        out(f"BROKEN at event {report.broken.sequence}: {report.broken.problem}")
    raise typer.Exit(0 if report.verified else 1)


def anchor(project: Root) -> None:
    """Make a root of what has none yet, without waiting for the day's end.

    The worker does it for every day that is over.
    """
    from noria import bootstrap

    settings, state = opened(project)
    made = bootstrap.anchors(settings, state).now()
    if made is None:
        out("Every event has its root already.")
        return
    signed = "signed" if made.signature else "not signed: audit.key names no key"
    out(f"Root {made.id} of events {made.first} to {made.last}: {made.root} ({signed}), in {settings.anchors_dir}")


def export(
    project: Root,
    to: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="File to write, one event a line.")],
) -> None:
    """Write the whole account as JSON lines, after checking it.

    Each line holds the hash of the line before, so that anybody can check it without Noria.
    """
    import json

    import msgspec

    from noria.governance.audit import verify as verify_account

    state = opened(project)[1]
    report = verify_account(state)
    with to.open("w", encoding="utf-8") as file:
        for event in state.audit_trail(limit=report.events):
            file.write(json.dumps(msgspec.to_builtins(event), ensure_ascii=False) + "\n")
    out(f"{report.events} events are in {to}; the last one's hash is {report.head}")
    if report.broken is not None:
        err(f"The account is BROKEN at event {report.broken.sequence}: {report.broken.problem}")
        raise typer.Exit(1)


def key() -> None:
    """Make a key that signs the account's roots.

    Keep the private one where audit.key says, and the public one with whoever checks.
    """
    from noria.adapters.anchors import new_key

    private, public = new_key()
    out(f"private: {private}")
    out(f"public:  {public}")
