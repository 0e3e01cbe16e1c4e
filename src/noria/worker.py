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
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from noria import bootstrap
from noria.adapters.logs import log_json
from noria.adapters.processes import when_parent_is_gone
from noria.adapters.spool.file import discover
from noria.adapters.spool.recovery import close_orphans
from noria.bootstrap import Loop
from noria.bootstrap.approving import tell_of_approvals
from noria.domain.errors import AlreadyRunning, NoriaError, NotDelivered, StorageCorrupted
from noria.domain.status import AppliedProject, Heartbeat, SpoolStatus
from noria.tables import SCHEMAS

log = logging.getLogger("noria.worker")

TURN_S = 0.1
"""Pause between two turns of a lane, in seconds."""

LATE_LABELS_S = 60.0
"""Between two looks for labels of windows that are closed, in seconds: what came meanwhile is measured together."""

A_TURN, EVERYTHING = 20_000, sys.maxsize
"""Entries of each spool that are shipped in one go while the wheel turns, and at the end."""

STOPS = (signal.SIGTERM, signal.SIGINT)
"""What asks the worker to stop."""

LOCK_PATIENCE_S = 1.0
"""Model servers look at the lock for a moment now and then, in seconds to wait for them."""

Duty = tuple[str, float, Callable[[], object]]


def _aside(task: Callable[[], None]) -> None:
    """Do something beside the lanes; what is under way when the process ends is done again by the next one."""
    threading.Thread(target=task, name="tell", daemon=True).start()


class Worker:
    """Turns the wheel in three lanes, so that starting a model server never holds the log up, nor anything a rollback.

    A duty that fails is reported in the heartbeat and tried again at its next turn; the others go on.
    """

    def __init__(self, loop: Loop, asked: threading.Event) -> None:
        self.loop = loop
        self.asked = asked
        """Set once somebody asks it to stop."""
        self.reload = False
        """Whether another project text is in service than the one that it works by."""
        self.spools: Mapping[str, SpoolStatus] = {}
        self.problems: dict[str, str] = {}
        self.log_lane: tuple[Duty, ...] = (
            ("ship the log", 1.0, self._ship),
            ("close windows", 0.5, self._close_windows),
            ("look for late labels", LATE_LABELS_S, self._look_for_late_labels),
            ("hand events to their workflows", 0.1, self._dispatch),
            ("look at schedules and labels", 1.0, self._look_at_triggers),
            ("look after approvals", 2.0, self._look_after_approvals),
            ("heartbeat", 1.0, self._heartbeat),
            ("see whether the project changed", 1.0, self._see_project),
            ("end what dead processes left open", 5.0, self._close_orphans),
            ("keep tables small", 300.0, self._maintain_tables),
            ("forget what is past its retention", 600.0, self._forget),
            ("make the account's daily root", 60.0, loop.anchors.due),
            ("export traces and metrics", 1.0, self._look_at_telemetry),
            ("tell people of alerts", 0.5, self._tell),
            ("remind people of alerts", 5.0, loop.telling.outbox.remind),
        )
        self.fleet_lane: tuple[Duty, ...] = (
            ("keep model servers up", 0.5, loop.fleet.reconcile),
            ("give every endpoint a first version", 1.0, lambda: loop.first.ensure(loop.settings.project)),
            ("know what models elsewhere cost", 1.0, loop.prices.ensure),
            ("guard the champion aliases", 5.0, self._guard_aliases),
        )
        self.guard_lane: tuple[Duty, ...] = (("move rollouts", 0.5, self._move_rollouts),)
        """What a turn of each lane consists of: name, how often at most (seconds), what to call. The guard has a lane
        of its own: a bad candidate is taken back as soon as its records are there, however long the rest takes."""

    @property
    def stopping(self) -> bool:
        """Whether this is the last turn."""
        return self.reload or self.asked.is_set()

    def run(self) -> None:
        """Turn until told to stop, or until another project is in service; then ship what is left."""
        lanes = {"fleet": self.fleet_lane, "guard": self.guard_lane}
        beside = [threading.Thread(target=self._turn, args=(lane,), name=name) for name, lane in lanes.items()]
        for thread in beside:
            thread.start()
        self._turn(self.log_lane)
        for thread in beside:
            thread.join()
        self.loop.fleet.close()
        self._attempt("end what dead processes left open", self._close_orphans)
        self._attempt("ship the log", lambda: self._ship(limit=EVERYTHING))
        self._attempt("heartbeat", self._heartbeat)

    def _turn(self, lane: tuple[Duty, ...]) -> None:
        last = dict.fromkeys((name for name, _, _ in lane), float("-inf"))
        while not self.stopping:
            for name, every, duty in lane:
                now = time.monotonic()
                if now - last[name] >= every and not self.stopping:
                    last[name] = now
                    self._attempt(name, duty)
            self.asked.wait(TURN_S)

    def _attempt(self, name: str, duty: Callable[[], object]) -> None:
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

    def _ship(self, limit: int = A_TURN) -> None:
        self.spools = self.loop.shipper.turn(limit)
        found = (*self.loop.shipper.problems, *self.loop.spools.problems)
        if found:
            self.loop.rooms.alerts.raise_system("", "spool", "; ".join(found))
            raise StorageCorrupted("; ".join(found))
        self.loop.rooms.alerts.resolve_system("", "spool", "every spool is shipped again")

    def _close_windows(self) -> None:
        watermark = self.loop.shipper.watermark()
        if watermark is not None:
            self.loop.windows.close_due(self.loop.settings.project, watermark)

    def _look_for_late_labels(self) -> None:
        watermark = self.loop.shipper.watermark()
        if watermark is not None:
            self.loop.late.look(self.loop.settings.project, watermark)

    def _dispatch(self) -> None:
        """Hand events over; one that was handed over before is left alone by the durable engine."""
        for event in self.loop.state.pending_events():
            self.loop.workflows.start(event)
            self.loop.state.mark_handled(event.id)

    def _move_rollouts(self) -> None:
        """Every endpoint has its turn, whatever goes wrong with another one."""
        problems: list[Exception] = []
        for endpoint in self.loop.settings.project.endpoints:
            for turn in (self.loop.rooms.rollouts.tick, self.loop.rooms.experiments.tick):
                try:
                    turn(endpoint)
                except Exception as error:
                    problems.append(error)
        if problems:
            raise problems[0]

    def _look_at_triggers(self) -> None:
        self.loop.rooms.triggers.due(self.loop.clock.now())

    def _look_after_approvals(self) -> None:
        tell_of_approvals(self.loop.approvals, self.loop.rooms.alerts)

    def _guard_aliases(self) -> None:
        for endpoint in self.loop.settings.project.endpoints:
            if self.loop.rooms.rollouts.foreign_alias(endpoint):
                summary = f"Somebody moved {endpoint}'s champion alias in the registry past the gates; it was set back."
                self.loop.rooms.alerts.raise_system(endpoint, "registry", summary)
            else:
                self.loop.rooms.alerts.resolve_system(endpoint, "registry", "the alias is where the route says")

    def _see_project(self) -> None:
        applied = self.loop.state.get(AppliedProject, bootstrap.APPLIED)
        if applied is not None and applied.hash != self.loop.applied:
            log.info("another project text is in service: beginning anew")
            self.reload = True

    def _close_orphans(self) -> None:
        for path in discover(self.loop.settings.spool_dir):
            close_orphans(path, self.loop.clock)

    def _maintain_tables(self) -> None:
        for table in SCHEMAS:
            self.loop.records.optimize(table)

    def _look_at_telemetry(self) -> None:
        if self.loop.telemetry is not None and (problems := self.loop.telemetry.problems):
            raise NotDelivered("; ".join(problems), "The log is complete without them; see telemetry in noria.yaml.")

    def _tell(self) -> None:
        if problems := self.loop.telling.turn(_aside):
            raise NotDelivered("; ".join(problems), "It is tried again; noria alerts show ID says of what.")

    def _forget(self) -> None:
        gone = self.loop.retention.enforce(self.loop.settings.project)
        for endpoint, rows in gone.items():
            log.info("%s records of %s were past their retention and are deleted", rows, endpoint)

    def _heartbeat(self) -> None:
        with self.loop.state.note() as note:
            note.put(
                Heartbeat(
                    at=self.loop.clock.now(),
                    pid=os.getpid(),
                    spools=self.spools,
                    hosts=self.loop.host.running(),
                    notifiers=self.loop.telling.outbox.status(),
                    telemetry=self.loop.telemetry.status() if self.loop.telemetry else {},
                    problems=tuple(f"{name}: {problem}" for name, problem in list(self.problems.items())),
                )
            )


def hold_lock(path: Path) -> IO[str]:
    """Become the project's one worker for as long as the returned file stays open.

    Raises:
        AlreadyRunning: Another process is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while not _locked(file):
        if time.monotonic() > deadline:
            file.seek(0)
            raise AlreadyRunning(
                f"A worker of this project runs already (process {file.read().strip() or 'unknown'}).",
                "There is one worker per project; stop that one first.",
            )
        time.sleep(0.05)
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def main() -> int:
    """Run the worker until SIGTERM or SIGINT, or until the supervisor that started it is gone."""
    parser = argparse.ArgumentParser(prog="python -m noria.worker", description=__doc__)
    parser.add_argument("--project", type=Path, required=True, help="folder that holds noria.yaml")
    root = parser.parse_args().project.resolve()
    log_json()
    asked = _listen_for_stops()
    when_parent_is_gone(os.getppid(), asked.set)
    try:
        settings, _ = bootstrap.opened(root)
        with hold_lock(settings.run_dir / "worker.lock"), bootstrap.loop(settings) as loop:
            worker = Worker(loop, asked)
            worker.run()
            if not worker.reload:
                loop.host.stop_all()
    except NoriaError as error:
        log.error("%s", error)
        return 1
    if worker.reload:  # the same process begins anew; its model servers go on
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        if asked.is_set():  # meanwhile: it is heard once the process listens again
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        os.execv(sys.executable, [sys.executable, "-m", "noria.worker", *sys.argv[1:]])  # noqa: S606 (our own argv)
    return 0


def _listen_for_stops() -> threading.Event:
    """An event that is set once somebody asks to stop; who asked while this process began is heard, too."""
    asked = threading.Event()
    for number in STOPS:
        signal.signal(number, lambda *_: asked.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    return asked


if __name__ == "__main__":
    sys.exit(main())
