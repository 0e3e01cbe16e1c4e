"""What every command uses: the project it is about, who is acting, and how things are printed."""

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noria.domain.errors import InvalidProject, InvalidRequest, UnknownEndpoint

if TYPE_CHECKING:
    from rich.console import Console

    from noria.ports import StateStore
    from noria.settings import Endpoint, Settings

FILE_NAME = "noria.yaml"


def _root_of(context: typer.Context, given: Path) -> Path:
    """The project's folder: as said here, as said before the command, or the nearest folder above with a noria.yaml."""
    said = given if given != Path() else context.find_root().params.get("project")
    if said is not None:
        if not (said / FILE_NAME).is_file():
            raise InvalidProject(f"There is no {FILE_NAME} in {said}.", f"Write one with `noria init {said}`.")
        return said.resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FILE_NAME).is_file():
            return folder
    raise InvalidProject(
        f"There is no {FILE_NAME} in {here} or in any folder above it.",
        "Change to a project's folder, say --project DIR, or write a new project with `noria init`.",
    )


_HELP = "Folder that holds noria.yaml; default is the nearest one above."
Global = Annotated[Path | None, typer.Option("--project", metavar="DIR", help=_HELP)]
"""`noria --project DIR COMMAND`."""
Root = Annotated[
    Path,
    typer.Option("--project", metavar="DIR", help=_HELP, show_default=False, default_factory=Path, callback=_root_of),
]
"""`noria COMMAND --project DIR`; what a command gets is the project's folder."""
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why, for the audit trail.")]
By = Annotated[
    str, typer.Option(metavar="NAME", help="Who is acting, for the audit trail.", show_default="your user name")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


def opened(root: Path) -> tuple["Settings", "StateStore"]:
    """The project in service (the file, if nothing was applied yet) and its state.

    A file that somebody is in the midst of editing keeps nobody from looking, nor from a rollback.

    Raises:
        InvalidProject: Nothing was applied yet, and the file is wrong.
    """
    from noria import bootstrap

    return bootstrap.opened(root)


def known(settings: "Settings", endpoint: str) -> "Endpoint":
    """The endpoint of that name.

    Raises:
        UnknownEndpoint: The project has none.
    """
    found = settings.project.endpoints.get(endpoint)
    if found is None:
        raise UnknownEndpoint(
            f"This project has no endpoint {endpoint}.", f"Its endpoints: {', '.join(settings.project.endpoints)}."
        )
    return found


def actor(by: str) -> str:
    """Who is acting."""
    import getpass

    if by:
        return by
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in some containers
        return "unknown"


def duration(text: str, option: str) -> timedelta:
    """`30d` as a duration.

    Raises:
        InvalidRequest: It isn't one.
    """
    from pydantic import TypeAdapter, ValidationError

    from noria.settings import Duration

    try:
        read: timedelta = TypeAdapter(Duration).validate_python(text)
    except ValidationError:
        raise InvalidRequest(f"{text[:32]!r} is no duration.", f"Write for example {option} 12h or 30d.") from None
    return read


def moment_of(said: str) -> datetime:
    """A time as a person writes it, on this machine's clock where no zone is said.

    Raises:
        InvalidRequest: It is none.
    """
    from pydantic import TypeAdapter, ValidationError

    from noria.settings import Duration

    try:
        return datetime.fromisoformat(said).astimezone(UTC)
    except ValueError:
        pass
    try:
        return datetime.now(UTC) - TypeAdapter(Duration).validate_python(said)
    except (ValidationError, OverflowError):
        raise InvalidRequest(f"{said!r} is no time.", "Write 2026-01-31, 2026-01-31T12:00, or 2h or 7d ago.") from None


def out(line: str = "") -> None:
    """Print a line, at once: somebody may be waiting for it."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def err(line: str) -> None:
    """Print a line for the person, not for the program that reads our output."""
    sys.stderr.write(line + "\n")


def print_json(value: object) -> None:
    """Print a value as JSON; nouns of the domain under their fields' names, times as ISO 8601."""
    import msgspec

    out(json.dumps(msgspec.to_builtins(value, enc_hook=str), indent=2, ensure_ascii=False))


def console() -> "Console":
    """The terminal."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Print rows under their columns, or a sentence if there are none."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(shown(cell), overflow="ellipsis") for cell in row))
    terminal = console()
    if terminal.is_terminal or not table.row_count:
        terminal.print(table if table.row_count else empty)
        return
    terminal.width = 10_000  # a file or a pipe has no edge to cut at, and no use for blanks up to it
    with terminal.capture() as captured:
        terminal.print(table)
    for line in captured.get().removesuffix("\n").split("\n"):
        out(line.rstrip())


def shown(value: Any) -> str:
    """A cell of a table."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return when(value)
    if isinstance(value, Mapping):
        return " ".join(f"{key}={shown(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(shown(inner) for inner in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return printable(value.decode(errors="replace") if isinstance(value, bytes) else str(value))


def printable(text: str) -> str:
    """The text on one line, without the control characters with which a caller could steer our reader's terminal."""
    return "".join(" " if c in "\r\n\t" else "�" if unicodedata.category(c) == "Cc" else c for c in text)


def when(moment: datetime | str) -> str:
    """A time on this machine's clock, to the second."""
    moment = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def ago(seconds: float | None) -> str:
    """How long ago, in one unit."""
    if seconds is None:
        return "never"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"
