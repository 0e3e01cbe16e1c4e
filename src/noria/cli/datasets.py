"""What runs learnt from: `noria dataset show` and `noria dataset export`."""

import json as codec
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noria.cli.shared import AsJson, Root, known, opened, out, print_json
from noria.domain.errors import InvalidData

if TYPE_CHECKING:
    from noria.settings import Settings

dataset = typer.Typer(no_args_is_help=True, help="What runs learnt from, and what they held out.")
Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Endpoint that the run trained for.")]
RunId = Annotated[str, typer.Option("--run", metavar="RUN", help="Which run; default is the newest with a dataset.")]


class Split(StrEnum):
    """A side of a dataset."""

    TRAIN = "train"
    HOLDOUT = "holdout"


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    dataset.command("show")(show)
    dataset.command("export")(export)
    app.add_typer(dataset, name="dataset")


def show(
    endpoint: Endpoint,
    project: Root,
    run: RunId = "",
    limit: Annotated[int, typer.Option(min=1, metavar="TOKENS", help="Tokens above which a row is too long.")] = 16_385,
    json: AsJson = False,
) -> None:
    """Show what a run's dataset holds: labels, what was left out and why, and how long its rows are (estimated)."""
    from dataclasses import asdict

    from noria.training.datasets import SUMMARY
    from noria.training.datasets.export import examples, lengths

    settings, folder = _found(project, endpoint, run)
    found = codec.loads((folder / SUMMARY).read_text())
    found["lengths"] = {side.value: asdict(lengths(examples(folder, side.value), limit)) for side in Split}
    if json:
        print_json({"run": folder.name} | found)
        return
    out(f"Run {folder.name} of {endpoint} in {settings.project.project}")
    for name, value in found.items():
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) or "none" if isinstance(value, dict) else value
        out(f"  {name}: {shown}")


def export(
    endpoint: Endpoint,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write, as JSONL.")],
    project: Root,
    run: RunId = "",
    split: Annotated[Split, typer.Option(help="Which side.")] = Split.TRAIN,
    preference: Annotated[
        bool, typer.Option("--preference", help="Pairs of a wanted and a rejected answer instead of chats.")
    ] = False,
) -> None:
    """Write a run's rows as JSONL in the form that OpenAI's fine-tuning takes."""
    from noria.training.datasets.export import examples

    _, folder = _found(project, endpoint, run)
    count = 0
    with file.open("w", encoding="utf-8") as lines:
        for example in examples(folder, split.value, preference):
            lines.write(codec.dumps(example, ensure_ascii=False) + "\n")
            count += 1
    out(f"{count} {'row is' if count == 1 else 'rows are'} in {file}.")


def _found(project: Path, endpoint: str, run: str) -> tuple["Settings", Path]:
    """The project, and the folder of the run that was named, or of the newest that has a dataset."""
    from noria.domain.run import Run
    from noria.training.datasets import SUMMARY

    settings, state = opened(project)
    known(settings, endpoint)
    for each in state.find(Run, endpoint=endpoint):
        folder = settings.work_dir / each.id
        if run in ("", each.id) and (folder / SUMMARY).is_file():
            return settings, folder
    which = f"run {run}" if run else "run"
    raise InvalidData(f"No {which} of {endpoint} has a dataset.", "Start one with noria retrain, or name another.")
