"""Model servers outlive their worker, so that a new worker finds them warm; but not for ever."""

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path


class OrphanGuard:
    """Calls `on_orphan` once when nobody has held the project's lock for `after_s` seconds.

    Whether somebody does is found out by trying to take the lock, for a moment and shared, so the guards of several
    servers don't see each other. A worker that dies right after it started a server leaves one that no note names, and
    that nobody will ever adopt: it is an orphan, too, and at once if another has taken its place.
    """

    def __init__(
        self,
        lock: Path,
        on_orphan: Callable[[], None],
        *,
        note: Path | None = None,
        after_s: float = 60,
        every_s: float = 5,
    ) -> None:
        self._lock = lock
        self._note = note
        self._on_orphan = on_orphan
        self._after_s = after_s
        self._every_s = min(every_s, after_s / 2)

    def start(self) -> None:
        """Watch from a thread that ends with the process."""
        threading.Thread(target=self._watch, name="orphan-guard", daemon=True).start()

    def _watch(self) -> None:
        owned = time.monotonic()
        while time.monotonic() - owned < self._after_s:
            time.sleep(self._every_s)
            named = noted(self._note) if self._note is not None else os.getpid()
            if named not in (None, os.getpid()):
                break
            if named is not None and held(self._lock):
                owned = time.monotonic()
        self._on_orphan()


def held(lock: Path) -> bool:
    """Whether some process holds the lock file; one that isn't there is held by nobody."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def noted(note: Path) -> int | None:
    """Which process a note of the host says is the version's server; None if there is no note."""
    try:
        return int(json.loads(note.read_bytes())["pid"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
