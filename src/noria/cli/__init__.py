"""The command line: `noria`. Each group of commands is a file; heavy imports wait until a command needs them."""

import os
import sys

import typer

from noria.cli import (
    alerts,
    audit,
    datasets,
    experiments,
    feedback,
    keys,
    labels,
    loop,
    models,
    monitors,
    records,
    report,
    rollouts,
    runs,
    start,
    trace,
    verdicts,
)
from noria.cli.shared import Global, err
from noria.domain.errors import NoriaError

app = typer.Typer(
    name="noria",
    help="Close the LLM loop: register, serve, record, monitor, retrain, gate, roll out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: drawing boxes would double the time that it takes
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def noria(project: Global = None) -> None:
    """Close the LLM loop: register, serve, record, monitor, retrain, gate, roll out."""


start.add_to(app)
loop.add_to(app)
runs.add_to(app)
rollouts.add_to(app)
experiments.add_to(app)
monitors.add_to(app)
report.add_to(app)
alerts.add_to(app)
records.add_to(app)
feedback.add_to(app)
labels.add_to(app)
datasets.add_to(app)
models.add_to(app)
verdicts.add_to(app)
keys.add_to(app)
audit.add_to(app)
trace.add_to(app)


def main() -> None:
    """Run a command; a failure that a person can act on is two lines and exit code 1, not a traceback.

    With NORIA_DEBUG set, the traceback comes too.
    """
    try:
        app()
    except NoriaError as error:
        if os.environ.get("NORIA_DEBUG"):
            raise
        err(f"error: {error.problem}")
        if error.remedy:
            err(error.remedy)
        sys.exit(1)
    except BrokenPipeError:  # `noria records tail | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if os.environ.get("NORIA_DEBUG"):
            raise
        err(f"error: {error.filename or 'The system'}: {error.strerror or error}.")
        sys.exit(1)
