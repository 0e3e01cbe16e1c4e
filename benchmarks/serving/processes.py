"""Servers as processes: started, waited for, weighed, ended with all their children."""

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.serving.load import Target

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A process group that listens on a port of its own.

    Args:
        name: For messages, and of its log.
        command: Argument list; `{port}` stands for the port.
        logs: Folder for what it prints.
        environment: Variables on top of ours.
    """

    def __init__(
        self, name: str, command: Sequence[str], logs: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.port = free_port()
        self._log = logs / f"{name}.log"
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [word.replace("{port}", str(self.port)) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self.started = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait(self, target: Target | None = None, path: str = "/", timeout_s: float = 90) -> float:
        """Wait until it answers 200: to a target's request, else to GET path. Returns the seconds since its start.

        Raises:
            RuntimeError: It ended, or took too long; the message ends with its log.
        """
        while True:
            if self._answers(target, path):
                return time.perf_counter() - self.started
            if self.process.poll() is not None or time.perf_counter() - self.started > timeout_s:
                said = self._log.read_text(errors="replace").strip()[-600:]
                raise RuntimeError(f"{self.name} did not come up: {said}")
            time.sleep(0.005)

    def _answers(self, target: Target | None, path: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            if target is None:
                connection.request("GET", path)
            else:
                connection.request("POST", target.path, target.body, {"content-type": "application/json"})
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def rss_mb(self) -> float:
        """What the process holds in memory now, in megabytes of 1024² bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024

    def cpu_s(self) -> float:
        """CPU time that the process has used so far, user and system, in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S

    def stop(self) -> None:
        """Ask it to end, then end it."""
        for number, patience_s in ((signal.SIGTERM, 8), (signal.SIGKILL, 8)):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(patience_s)
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue
            if number == signal.SIGTERM:  # the leader has ended; its children end too
                try:
                    os.killpg(self.process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    return
