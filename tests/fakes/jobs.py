"""Jobs for compute engines to run."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from noria.domain.errors import InvalidData


def echo(**arguments: Any) -> dict[str, Any]:
    print("a job may print what it likes")
    return arguments


def add(a: int, b: int) -> dict[str, int]:
    return {"sum": a + b}


def pid() -> dict[str, int]:
    return {"pid": os.getpid(), "nice": os.nice(0)}


def environment(variable: str) -> dict[str, str]:
    return {"value": os.environ.get(variable, "")}


def refuse() -> None:
    raise InvalidData("Column label is missing.", "Add it.")


def divide() -> float:
    return 1 / 0


def leave() -> None:
    raise SystemExit(3)


def not_json() -> dict[str, Any]:
    return {"value": {1j}}


def die(how: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), how)


def wait(file: str, seconds: float) -> dict[str, Any]:
    """Say that it began, then sleep."""
    Path(file).write_text(str(os.getpid()))
    time.sleep(seconds)
    return {}


def note(file: str, fail: bool = False) -> dict[str, Any]:
    """Leave a mark in a file that many processes write."""
    with Path(file).open("a") as marks:
        marks.write("x")
    if fail:
        raise InvalidData("Part is bad.", "Mend it.")
    return {}


def meet(folder: str, name: str, other: str) -> dict[str, int]:
    """Wait for another part to have begun, too."""
    Path(folder, name).touch()
    deadline = time.monotonic() + 30
    while not Path(folder, other).exists():
        if time.monotonic() > deadline:
            raise InvalidData(f"{other} never came.")
        time.sleep(0.01)
    return {"pid": os.getpid()}
