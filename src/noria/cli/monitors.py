"""Monitors: what they know of the traffic."""

import typer

from noria.cli import evidence

monitor = typer.Typer(no_args_is_help=True, help="What monitors know of the traffic.")


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    evidence.add_to(monitor)
    app.add_typer(monitor, name="monitor")
