"""Label records, those first that teach the most: `noria label next` and `noria label give`."""

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from noria.cli.shared import AsJson, By, Root, actor, known, opened, out, print_json, print_table, printable

label = typer.Typer(no_args_is_help=True, help="Label records, those first that teach the most.")


class Unsure(StrEnum):
    """How unsure an answer was."""

    MARGIN = "margin"
    ENTROPY = "entropy"


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    label.command("next")(next_)
    label.command("give")(give)
    app.add_typer(label, name="label")


def next_(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Endpoint whose records are asked for.")],
    project: Root,
    most: Annotated[int, typer.Option("--most", min=1, max=500, metavar="N", help="How many to show.")] = 10,
    among: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="N", help="How many of the newest records to look at.")
    ] = 5000,
    unsure: Annotated[
        Unsure, typer.Option(help="How unsure: by the two likeliest classes, or by all.")
    ] = Unsure.MARGIN,
    json: AsJson = False,
) -> None:
    """Show the records without a label that teach the most.

    Those come first where the model was least sure and where a candidate in the shadow said something else; what is
    like a record before it comes later.
    """
    from noria import bootstrap
    from noria.training.labelling import to_label

    settings, _ = opened(project)
    known(settings, endpoint)
    found = to_label(*bootstrap.unlabelled(settings, endpoint, among), most, unsure.value)
    if json:
        print_json([asdict(one) for one in found])
        return
    print_table(
        ("request", "text", "answer", "unsure", "candidate says"),
        [
            (
                one.request_id,
                printable(one.text),
                printable(one.answer),
                "" if one.uncertainty is None else f"{one.uncertainty:.2f}",
                printable(one.candidate or ""),
            )
            for one in found
        ],
        f"No record of {endpoint} waits for a label.",
    )


def give(
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="The answer's x-request-id.")],
    value: Annotated[str, typer.Argument(metavar="LABEL", help="What is right: a class, or the wanted answer.")],
    project: Root,
    endpoint: Annotated[
        str, typer.Option(metavar="ENDPOINT", help="Endpoint that answered; default is the project's own default.")
    ] = "",
    by: By = "",
    json: AsJson = False,
) -> None:
    """Say what is right for a record; it is written as feedback, like a label that comes by POST /feedback."""
    import asyncio

    from noria import bootstrap
    from noria.api.feedback import entry_of

    settings, _ = opened(project)
    said = {"request_id": request, "label": value, "source": actor(by)} | ({"endpoint": endpoint} if endpoint else {})
    entry = entry_of(said, settings.project)

    async def write() -> str:
        with bootstrap.recorder(settings, "import") as recorder:
            return (await recorder.feedback(**entry)).feedback_id

    feedback_id = asyncio.run(write())
    if json:
        print_json({"feedback_id": feedback_id})
    else:
        out(f"The label is in the log as {feedback_id}.")
