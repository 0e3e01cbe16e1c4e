"""Reports on models: `noria report`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noria.cli.shared import AsJson, Root, known, moment_of, opened, out, print_json
from noria.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping


def add_to(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command()(report)


def report(
    project: Root,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one HTML file that needs nothing else.")
    ] = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the main pictures as one PNG.")] = None,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="From then on: 2026-01-31, 2026-01-31T12:00, or 2h or 7d ago.")
    ] = "7d",
    until: Annotated[str, typer.Option(metavar="TIME", help="Up to then, not included.", show_default="now")] = "",
    endpoint: Annotated[
        list[str] | None, typer.Option(metavar="ENDPOINT", help="Only this endpoint; again for more.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Report on models: traffic, quality, evidence of changes and alerts, window by window.

    Without a file it says how things are, in a sentence for each endpoint. It works while nothing runs, too.
    """
    from noria import bootstrap

    settings, state = opened(project)
    names = list(dict.fromkeys(endpoint or settings.project.endpoints))
    for name in names:
        known(settings, name)
    begin, end = moment_of(since), moment_of(until) if until else datetime.now(UTC)
    if begin >= end:
        raise InvalidRequest("The report's span ends before it begins.", "Write a --since that lies before --until.")
    found = bootstrap.reporter(settings, state).report(begin, end, names)
    if html is not None:
        from noria.monitoring.reports.page import page

        _write(html, page(found).encode())
    if png is not None:
        from noria.monitoring.reports.poster import poster

        _write(png, poster(found))
    if json:
        print_json(found)
    elif html is None and png is None:
        _say(found)
    else:
        out(f"The report is in {' and '.join(str(file) for file in (html, png) if file is not None)}.")


def _write(file: Path, content: bytes) -> None:
    """Write a file that is there only once it is whole."""
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_bytes(content)
        part.replace(file)
    except OSError as error:
        raise InvalidRequest(
            f"{file} can't be written: {error.strerror or error}.", "Name a file in a folder that may be written to."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _say(found: "Mapping[str, Any]") -> None:
    """How things are, in a few lines."""
    from noria.cli.shared import printable
    from noria.monitoring.reports.summary import account, tiles

    out(printable(found["headline"]))
    for endpoint in found["endpoints"]:
        said = ", ".join(
            f"{t['name']} {t['value']}" + (f" ({t['aside']})" if t["aside"] else "") for t in tiles(endpoint)
        )
        out(printable(f"{endpoint['name']}: {said}."))
        out(printable(f"  {account(endpoint)}"))
