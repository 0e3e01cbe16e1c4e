"""Measured programs: each runs in a process of its own and prints a line of JSON; rounds alternate between them."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOME = Path(__file__).parents[2]
CHILDREN = Path(__file__).parent / "children"
LONGEST_S = 900
QUIET = {"DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1", "PYTHONWARNINGS": "ignore"}
"""Peers that report their use don't."""

Measured = Mapping[str, Any]


@dataclass(frozen=True)
class Contender:
    """A program to be measured.

    Attributes:
        name: As in the figures.
        python: Makes its environment and says which Python runs it.
        child: Its file below `children/`.
        words: Its arguments.
    """

    name: str
    python: Callable[[], Path]
    child: str
    words: Sequence[str]

    def run(self) -> Measured:
        """Run it once.

        Raises:
            RuntimeError: It can't be installed or fails.
        """
        ours = self.python() == Path(sys.executable)
        program = ["-m", f"benchmarks.monitoring.children.{self.child}"] if ours else [f"{CHILDREN / self.child}.py"]
        return measured([str(self.python()), *program, *self.words], as_engine() if ours else {})


def measured(command: Sequence[str], more: Mapping[str, str]) -> Measured:
    """What a command printed last, as JSON.

    Raises:
        RuntimeError: It failed; the message is the last that it said.
    """
    environment = {**os.environ, **QUIET, **more}
    try:
        done = subprocess.run(
            command, cwd=HOME, env=environment, capture_output=True, text=True, timeout=LONGEST_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"took longer than {LONGEST_S} s") from error
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1][-300:])
    found: Measured = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def as_engine() -> dict[str, str]:
    """The environment in which the compute engine's children work (`adapters/compute`): all cores but one."""
    threads = str(max(1, (os.cpu_count() or 2) - 1))
    limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {"ARROW_DEFAULT_MEMORY_POOL": "system"} | dict.fromkeys(limits, threads)


def alternate(ours: Contender, peer: Contender, rounds: int) -> tuple[list[Measured], list[Measured], str]:
    """Both in turns; results of each, and why the peer has none (empty if it has)."""
    mine: list[Measured] = []
    theirs: list[Measured] = []
    for _ in range(rounds):
        mine.append(ours.run())
        try:
            theirs.append(peer.run())
        except RuntimeError as error:
            return mine, [], str(error)
    return mine, theirs, ""


def median(results: Sequence[Measured], name: str) -> float:
    """Over the rounds."""
    return statistics.median(result[name] for result in results)


def ratio(over: Sequence[Measured], under: Sequence[Measured], name: str) -> float | None:
    """The median over the rounds of one's figure by the other's; None without results."""
    if not over or not under:
        return None
    return statistics.median(a[name] / b[name] for a, b in zip(over, under, strict=True))
