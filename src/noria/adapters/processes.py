"""What can be said of a process that may not be our child: whether it is still the same one, and whether it answers."""

import http.client
import socket
import subprocess
from pathlib import Path

_PROC = Path("/proc")
"""Linux; other systems are asked through `ps`."""


def answers(url: str, timeout_s: float = 2) -> bool:
    """Whether a model server says that it is well."""
    connection = _UnixConnection(url.removeprefix("unix:"), timeout=timeout_s)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket; `host` is its path."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


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
