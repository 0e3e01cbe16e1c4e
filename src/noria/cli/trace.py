"""`noria trace`: from an answer to everything that made it, and back."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from noria.cli.shared import AsJson, Root, opened, out, print_json, printable, when

if TYPE_CHECKING:
    from noria.domain.lineage import Link


def add_to(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command()(trace)


def trace(
    name: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="A request's id, a version such as triage/3, or the id of a run, verdict or alert."
        ),
    ],
    project: Root,
    most: Annotated[
        int, typer.Option("--most", "-n", metavar="N", min=1, help="Records and answers to name of each kind.")
    ] = 5,
    json: AsJson = False,
) -> None:
    """Show where an answer comes from, or what a version or a run made.

    From the answer to version, run, dataset, records, trigger, alert, verdict and approver; it works when nothing
    runs, too.
    """
    from noria import bootstrap

    settings, state = opened(project)
    found = bootstrap.lineage(settings, state, most).trace(name)
    if json:
        print_json(found)
        return
    for line in drawn(found):
        out(line)


def drawn(link: "Link") -> Iterator[str]:
    """A lineage as the lines of a tree."""
    yield _sentence(link)
    yield from _branches(link, "")


def _branches(link: "Link", before: str) -> Iterator[str]:
    for number, each in enumerate(link.links, 1):
        last = number == len(link.links)
        yield f"{before}{'└─ ' if last else '├─ '}{_sentence(each)}"
        yield from _branches(each, before + ("   " if last else "│  "))


def _sentence(link: "Link") -> str:
    """A link on one line."""
    head = f"{link.kind.value} {link.id}".rstrip()
    at = f" at {when(link.at)}" if link.at is not None else ""
    says = f": {link.says}" if link.says else ""
    missing = f" [missing] {link.missing}" if link.missing else ""
    return printable(f"{head}{at}{says}{missing}")
