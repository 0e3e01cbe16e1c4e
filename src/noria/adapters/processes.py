"""What can be said of a process that may not be our child: whether it is still the same one, and whether it answers."""

import gc
import http.client
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

WATCH_S = 0.5
"""Pause between two looks at whether the parent is still there, in seconds."""
_GARBAGE = 20_000
"""Objects made and not freed yet, after which the collector looks."""
_PROC = Path("/proc")
"""Linux; other systems are asked through `ps`."""


def answers(url: str, path: str = "/health", timeout_s: float = 2) -> bool:
    """Whether a model server, at `unix:/path/to.sock` or `http://host:port`, says that it is well."""
    connection: http.client.HTTPConnection
    if url.startswith("unix:"):
        connection = _UnixConnection(url.removeprefix("unix:"), timeout=timeout_s)
    else:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)  # a path may hold what no host's name may: blanks, colons
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def birth(pid: int) -> str | None:
    """When a process was born, as the system says it; None if it is dead. With the id it names a process for ever."""
    if _PROC.is_dir():
        try:
            fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else fields[19]
    answer = subprocess.run(["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, born = answer.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else born.strip()


def settle_memory() -> None:
    """Take what a process has loaded for what it keeps: the collector need not look at it again and again, and looks
    for garbage less often, since a request leaves next to none."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE, 20, 20)


def when_parent_is_gone(parent: int, act: Callable[[], None]) -> None:
    """Do something once this process's parent is gone.

    Args:
        parent: Process id of the parent, asked for when this process began.
        act: What to do, in a thread of its own.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        act()

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
