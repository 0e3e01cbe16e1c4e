"""Checkpoints of a run: whole or not there at all, of this very job, and no more of them than are needed."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NAME = re.compile(r"step-(\d{8})")
_STATE = "state.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with what a run needs to go on after `step` finished steps."""

    step: int
    path: Path
    state: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """A folder of checkpoints.

    Attributes:
        folder: Where they are; survives kills.
        job: Digest of all that decides what is computed: checkpoints of another job aren't taken up.
        keep: How many to keep.
    """

    folder: Path
    job: str
    keep: int = 2

    def save(self, step: int, state: dict[str, Any], write: Callable[[Path], None]) -> Checkpoint:
        """Keep what `write` puts into a folder; the folder gets its name only when all of it is on disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        final, half = self.folder / f"step-{step:08d}", self.folder / f".step-{step:08d}.half"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir()
        write(half)
        said = state | {"step": step, "job": self.job}
        (half / _STATE).write_text(json.dumps(said), encoding="utf-8")
        for file in [p for p in half.rglob("*") if p.is_file()]:
            _sync(file)
        shutil.rmtree(final, ignore_errors=True)
        half.rename(final)
        _sync(self.folder)
        for old in self._all()[self.keep :]:
            shutil.rmtree(old.path, ignore_errors=True)
        return Checkpoint(step, final, said)

    def latest(self) -> Checkpoint | None:
        """The newest one of this job; None if it has to begin at the beginning."""
        return next(iter(self._all()), None)

    def clear(self) -> None:
        """Take them all away: the run is over."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _all(self) -> list[Checkpoint]:
        """This job's, newest first."""
        found = []
        for path in self.folder.glob("step-*") if self.folder.is_dir() else ():
            with contextlib.suppress(OSError, ValueError):
                state = json.loads((path / _STATE).read_text(encoding="utf-8"))
                named = _NAME.fullmatch(path.name)
                if named and state["job"] == self.job and int(named[1]) == state["step"]:
                    found.append(Checkpoint(state["step"], path, state))
        return sorted(found, key=lambda c: c.step, reverse=True)


def _sync(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
