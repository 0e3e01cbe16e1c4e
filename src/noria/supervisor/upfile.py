"""Who runs a project: a lock that one `noria up` holds, and a file that says where it listens."""

import fcntl
import json
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from noria.adapters.processes import birth
from noria.domain.errors import AlreadyRunning, NoriaError

ORPHAN_PATIENCE_S = 15.0
"""How long processes of a supervisor that was killed may take to stop, in seconds."""


@dataclass(frozen=True, slots=True)
class Up:
    """What `noria up` says of itself.

    Attributes:
        pid: The supervisor's process id.
        url: Console and API.
        mlflow: MLflow's server, empty if it wasn't asked for.
        started_at: Seconds since the epoch.
        children: Name → process id.
        restarts: Name → how often it was started again.
        born: Name → when it was born, by which a process is told from a later one with the same id.
    """

    pid: int
    url: str
    mlflow: str = ""
    started_at: float = 0.0
    children: Mapping[str, int] = field(default_factory=dict)
    restarts: Mapping[str, int] = field(default_factory=dict)
    born: Mapping[str, str] = field(default_factory=dict)


class UpFile:
    """`up.lock` and `up.json` in a project's run folder."""

    def __init__(self, run_dir: Path) -> None:
        self._lock_path = run_dir / "up.lock"
        self._path = run_dir / "up.json"
        self._lock: IO[str] | None = None
        self._started_at = time.time()

    def hold(self) -> None:
        """Become the project's one supervisor.

        Raises:
            AlreadyRunning: Another one is.
            NoriaError: The folder can't be written.
        """
        try:
            self._lock_path.parent.mkdir(parents=True, exist_ok=True)
            lock = self._lock_path.open("a")
        except OSError as error:
            raise NoriaError(
                f"{self._lock_path.parent} can't be written: {error.strerror}.",
                "Noria keeps its files in .noria beside noria.yaml; make that folder writable.",
            ) from None
        if not _lock(lock, patience_s=0.5):
            lock.close()
            other = _read(self._path)
            at = f" at {other.url} (process {other.pid})" if other else ""
            raise AlreadyRunning(
                f"This project is up already{at}.", "Use that one, or stop it first with Ctrl-C or `kill`."
            )
        self._lock = lock

    def release(self) -> None:
        """Let go of the project."""
        if self._lock is not None:
            self._path.unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def write(self, url: str, mlflow: str, children: Mapping[str, int], restarts: Mapping[str, int]) -> None:
        """Say where the project is up and which processes it consists of; see `Up`."""
        born = {name: birth(pid) or "" for name, pid in children.items() if pid}
        up = Up(os.getpid(), url, mlflow, self._started_at, children, restarts, born)
        draft = self._path.with_suffix(".tmp")
        draft.write_text(json.dumps(asdict(up)))
        draft.replace(self._path)

    def end_orphans(self) -> None:
        """Stop what a supervisor that was killed left running; only the holder of the lock may."""
        before = _read(self._path)
        if before is None:
            return
        born = {pid: before.born.get(name) for name, pid in before.children.items()}
        orphans = [pid for pid, at in born.items() if pid and at and birth(pid) == at]
        for number, patience_s in ((signal.SIGTERM, ORPHAN_PATIENCE_S), (signal.SIGKILL, 5.0)):
            for pid in orphans:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = time.monotonic() + patience_s
            while orphans and time.monotonic() < deadline:
                orphans = [pid for pid in orphans if birth(pid) == born[pid]]
                time.sleep(0.05)
        self._path.unlink(missing_ok=True)


def running(run_dir: Path) -> Up | None:
    """Where the project of that run folder is up; None if it isn't."""
    try:
        lock = (run_dir / "up.lock").open("r")
    except OSError:
        return None
    with lock:
        try:
            # shared, so that two who ask don't take each other for a supervisor
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return _read(run_dir / "up.json")
    return None


def _lock(file: IO[str], patience_s: float) -> bool:
    """Take the lock; somebody who only asks whether it is taken holds it for a moment."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        else:
            return True


def _read(path: Path) -> Up | None:
    """The file's content; None if it isn't there or is broken."""
    try:
        return Up(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
