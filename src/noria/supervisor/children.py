"""A process that the supervisor starts, watches, restarts and stops."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from noria.settings import Settings

LONG_ENOUGH_S = 10.0
"""A process that lived this long, in seconds, had started well; its end begins a new count."""
LONGEST_PAUSE_S = 10.0
"""Longest pause before a restart, in seconds."""
HOPELESS = 5
"""So many ends by itself in a row, each soon after the start, are no accident."""


class Child:
    """One process and its restarts.

    Args:
        name: Name for people.
        command: Argument list.
        environment: Variables on top of the supervisor's own.
        log: File for what it prints; by default it prints where the supervisor does.
        whole_group: Whether it has children of its own that have to end with it.
        begins_deaf: Whether a request to stop waits until the process listens for it (it has to unblock SIGTERM),
            because it has work to finish even if it has only just begun.
        url: Where it listens, if it does.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        whole_group: bool = False,
        begins_deaf: bool = False,
        url: str = "",
    ) -> None:
        self.name = name
        self.command = command
        self.url = url
        self.pass_fds: tuple[int, ...] = ()
        self.restarts = 0
        self.failures = 0
        self._quick_ends = 0
        self._environment = dict(environment or {})
        self._log = log
        self._whole_group = whole_group
        self._begins_deaf = begins_deaf
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._start_at: float | None = None

    @property
    def pid(self) -> int:
        """Process id; 0 while it is down."""
        return self._process.pid if self._process else 0

    @property
    def down(self) -> bool:
        """Whether no such process runs."""
        return self._process is None or self._process.poll() is not None

    @property
    def due(self) -> bool:
        """Whether it is down and the pause before its restart is over."""
        return self._start_at is not None and time.monotonic() >= self._start_at

    @property
    def hopeless(self) -> bool:
        """Whether it ended by itself, soon after its start, too often in a row."""
        return self.failures >= HOPELESS

    def start(self) -> None:
        """Start the process in a session of its own, so that a Ctrl-C at the terminal reaches the supervisor alone.

        Raises:
            OSError: This machine has no room for it now; it is `due` again after a pause.
        """
        self.restarts += self._start_at is not None
        self._start_at = time.monotonic() + LONGEST_PAUSE_S  # if it can't be
        self._started = time.monotonic()
        output = self._log.open("ab") if self._log else None
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM} if self._begins_deaf else set())
        try:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                env={**os.environ, **self._environment},
                pass_fds=self.pass_fds,
                start_new_session=True,
            )
            self._start_at = None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if output:
                output.close()

    def ended(self) -> str | None:
        """How the process ended, in words, the first time that this is asked after its end; else None."""
        code = self._process.poll() if self._process else None
        if code is None:
            return None
        self._process = None
        quick = time.monotonic() - self._started < LONG_ENOUGH_S
        self._quick_ends = self._quick_ends + 1 if quick else 1
        self.failures = self.failures + 1 if quick and code >= 0 else int(code >= 0)
        pause = 0.0 if self._quick_ends == 1 else min(0.1 * 2.0**self._quick_ends, LONGEST_PAUSE_S)
        self._start_at = time.monotonic() + pause
        return _words(code)

    def stop(self, patience_s: float, hurry: threading.Event) -> bool:
        """Ask the process to stop and wait for it.

        Args:
            patience_s: How long to wait before it is killed, in seconds.
            hurry: Once set, it is killed at once.

        Returns:
            Whether it stopped by itself.
        """
        self.ask_to_stop()
        return self.wait_until_stopped(time.monotonic() + patience_s, hurry)

    def ask_to_stop(self) -> None:
        """Ask the process to stop; it isn't started again."""
        self._stopping, self._process, self._start_at = self._process, None, None
        if self._stopping is not None:
            self._send(self._stopping, signal.SIGTERM)

    def wait_until_stopped(self, deadline: float, hurry: threading.Event) -> bool:
        """Wait for a process that was asked; kill it at the deadline (of the monotonic clock), or in a hurry.

        Returns:
            Whether it stopped by itself.
        """
        process, self._stopping = self._stopping, None
        if process is None:
            return True
        while process.poll() is None and time.monotonic() < deadline and not hurry.is_set():
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        if process.poll() is not None:
            return True
        self._send(process, signal.SIGKILL)
        process.wait()
        return False

    def _send(self, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            if self._whole_group:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)


def noria_child(name: str, module: str, settings: Settings, *arguments: str) -> Child:
    """One of Noria's own processes: `python -m noria.MODULE --project DIR …`."""
    command = [sys.executable, "-m", f"noria.{module}", "--project", str(settings.root), *arguments]
    return Child(name, command, begins_deaf=module == "worker")


def mlflow_child(settings: Settings) -> Child:
    """MLflow's own server on a free loopback port, over the project's runs and models."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stores = ["--backend-store-uri", settings.tracking_uri, "--artifacts-destination", str(settings.artifacts_dir)]
    listen = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return Child(
        "mlflow",
        [sys.executable, "-m", "mlflow", "server", *stores, *listen],
        # its job runner would start a scheduler and more processes that nothing here uses
        environment={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        log=settings.run_dir / "mlflow.log",
        whole_group=True,
        url=f"http://127.0.0.1:{port}",
    )


def _words(code: int) -> str:
    """An exit code in words."""
    if code < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
