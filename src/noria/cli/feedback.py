"""Say what was right: `noria feedback import`."""

import csv
import json as codec
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from noria.cli.shared import AsJson, Root, opened, out, print_json
from noria.domain.errors import InvalidRequest, NoriaError

feedback = typer.Typer(no_args_is_help=True, help="Say what was right, and what people thought of answers.")
AT_ONCE = 1000
"""Entries that are on disk together before the next are read."""


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    feedback.command("import")(import_)
    app.add_typer(feedback, name="feedback")


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Entries of POST /feedback, as .csv or .jsonl.")],
    project: Root,
    json: AsJson = False,
) -> None:
    """Put the labels, scores and comments of a file into the log.

    Every line is checked before anything is written. A file that is imported again changes nothing. It works while
    `noria up` runs and while it doesn't: then they are shipped when it runs again.
    """
    import asyncio

    from noria import bootstrap
    from noria.api.feedback import entry_of

    settings, _ = opened(project)

    def entries() -> Iterator[Any]:
        return _entries(file, lambda item: entry_of(item, settings.project))

    async def write() -> int:
        count, left = 0, entries()
        with bootstrap.recorder(settings, "import") as recorder:
            while some := list(islice(left, AT_ONCE)):
                await asyncio.gather(*(recorder.feedback(**entry) for entry in some))
                count += len(some)
        return count

    for _ in entries():
        pass
    written = asyncio.run(write())
    if json:
        print_json({"entries": written})
    else:
        out(f"{written} {'entry is' if written == 1 else 'entries are'} in the log.")


def _entries(file: Path, check: Callable[[Any], Any]) -> Iterator[Any]:
    """The entries of a file, checked.

    Raises:
        InvalidRequest: The file can't be read, or a line is no entry; the sentence names it.
    """
    read = {".csv": _csv, ".jsonl": _lines}.get(file.suffix.lower())
    if read is None:
        raise InvalidRequest(f"{file.name} says no kind of file.", "End the name in .csv or .jsonl.")
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for number, item in read(lines):
                try:
                    yield check(item)
                except NoriaError as error:
                    raise InvalidRequest(f"Line {number} of {file.name}: {error.problem}", error.remedy) from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        raise InvalidRequest(f"{file} can't be read: {why}.", "Name a file that is there and may be read.") from error
    except (UnicodeError, csv.Error) as error:
        raise InvalidRequest(f"{file} can't be read: {error}.", "Name a file in UTF-8.") from error


def _lines(lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield number, codec.loads(line)
            except ValueError:
                yield number, None


def _csv(lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    """Rows under the names of the fields; an empty cell says nothing."""
    reader = csv.DictReader(lines)
    for row in reader:
        said: dict[str, Any] = {name: cell for name, cell in row.items() if cell not in ("", None)}
        if "score" in said:
            said["score"] = _number(said["score"])
        yield reader.line_num, said


def _number(cell: Any) -> Any:
    """A cell as a number, if it is one."""
    try:
        return float(cell)
    except (TypeError, ValueError):
        return cell
