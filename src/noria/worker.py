"""The loop's process, one per project: ships the log, closes windows, runs the durable workflows, keeps hosts up.

`python -m noria.worker --project DIR`. Killing it loses nothing: the API goes on, the model servers go on, and the next
worker adopts both where this one stopped.
"""

import argparse
import fcntl
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from noria import bootstrap
from noria.bootstrap import Loop
from noria.domain.errors import AlreadyRunning, NoriaError
from noria.domain.status import Heartbeat, SpoolStatus

log = logging.getLogger("noria.worker")

TURN_S = 0.25
"""Pause between two turns, in seconds."""


class Worker:
    """Turns the wheel: every turn does each duty once; a duty that fails is reported and the others go on."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.stopping = threading.Event()
        self.spools: Mapping[str, SpoolStatus] = {}
        self.problems: dict[str, str] = {}
        self.duties: tuple[tuple[str, float, Callable[[], None]], ...] = (
            ("ship the log", 0.25, self._ship),
            ("close windows", 0.25, loop.close_windows),
            ("hand events to their workflows", 0.25, loop.dispatch),
            ("move rollouts", 0.5, loop.tick_rollouts),
            ("look at schedules and labels", 1.0, loop.look_at_triggers),
            ("keep model servers up", 0.5, loop.keep_hosts_up),
            ("give every endpoint a first version", 2.0, loop.ensure_first_versions),
            ("guard the champion aliases", 5.0, loop.guard_aliases),
            ("keep tables small", 300.0, loop.maintain_tables),
            ("heartbeat", 1.0, self._heartbeat),
        )
        """What a turn consists of: its name, how often at most (seconds), what to call."""
        self._last = dict.fromkeys((name for name, _, _ in self.duties), float("-inf"))

    def run(self) -> None:
        """Turn until told to stop, then ship what is left and stop the model servers."""
        while not self.stopping.is_set():
            self.turn()
            self.stopping.wait(TURN_S)
        self._attempt("ship the log", self._ship)
        self._attempt("heartbeat", self._heartbeat)

    def turn(self) -> None:
        """Do every duty that is due."""
        for name, every, duty in self.duties:
            now = self.loop.clock.now_us() / 1e6
            if now - self._last[name] >= every:
                self._last[name] = now
                self._attempt(name, duty)

    def _attempt(self, name: str, duty: Callable[[], None]) -> None:
        try:
            duty()
        except NoriaError as error:
            self._report(name, str(error), exc_info=False)
        except Exception as error:  # the wheel must not stop because one duty failed
            self._report(name, f"{type(error).__name__}: {error}", exc_info=True)
        else:
            self.problems.pop(name, None)

    def _report(self, name: str, problem: str, *, exc_info: bool) -> None:
        if self.problems.get(name) != problem:
            log.error("could not %s: %s", name, problem, exc_info=exc_info)
        self.problems[name] = problem

    def _ship(self) -> None:
        self.spools = self.loop.ship()

    def _heartbeat(self) -> None:
        with self.loop.state.note() as note:
            note.put(
                Heartbeat(
                    at=self.loop.clock.now(),
                    pid=os.getpid(),
                    spools=self.spools,
                    hosts=self.loop.host.running(),
                    problems=tuple(f"{name}: {problem}" for name, problem in self.problems.items()),
                )
            )


def hold_lock(path: Path) -> IO[str]:
    """Become the project's one worker for as long as the returned file stays open.

    Raises:
        AlreadyRunning: Another process is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        raise AlreadyRunning(
            f"A worker of this project runs already (process {file.read().strip() or 'unknown'}).",
            "There is one worker per project; stop that one first.",
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def main() -> int:
    """Run the worker until SIGTERM or SIGINT, or until the supervisor that started it is gone."""
    parser = argparse.ArgumentParser(prog="python -m noria.worker", description=__doc__)
    parser.add_argument("--project", type=Path, required=True, help="folder that holds noria.yaml")
    root = parser.parse_args().project.resolve()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s worker %(levelname)s %(message)s", stream=sys.stderr)
    settings = bootstrap.settings(root)
    try:
        with hold_lock(settings.run_dir / "worker.lock"), bootstrap.loop(settings) as loop:
            worker = Worker(loop)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: worker.stopping.set())
            _stop_with_parent(worker)
            worker.run()
            loop.host.stop_all()
    except NoriaError as error:
        log.error("%s", error)
        return 1
    return 0


def _stop_with_parent(worker: Worker) -> None:
    parent = os.getppid()

    def watch() -> None:
        while not worker.stopping.wait(1.0):
            if os.getppid() != parent:
                worker.stopping.set()

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
