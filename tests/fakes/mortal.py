"""Workers that are born to be killed: `python -m fakes.mortal` imports all once and forks a worker for each order.

An order is a line of JSON (`root`, `point`); answers are lines, too: `{"pid": …}` when the worker is there and
`{"status": …}` when it has ended. A worker is the real one, with all that it starts; only what takes seconds in each
life is taken from the process that imported it already, and the compute children are forked before it has threads.

A point is a place at which the process is gone (SIGKILL) when it first comes there, see `arm`. Every worker writes down
which durable steps it begins and ends, so that work which is done again can be counted.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

LEDGER = "ledger.jsonl"
"""In the project's folder: what workers began and ended."""
SPARES = 2
"""Compute children that a worker may need."""
CALLS = {
    "fit": "noria.adapters.trainers.classifier:fit",
    "logging of the model": "noria.adapters.trainers.classifier:_log_model",
    "training job": "noria.adapters.trainers:train_job",
    "attaching of files": "noria.adapters.registry.mlflow:MlflowRegistry.attach",
    "logging of metrics": "noria.adapters.registry.mlflow:MlflowRegistry.log_metrics",
    "making of the version": "noria.adapters.registry.mlflow:MlflowRegistry._create",
    "start of the model server": "noria.adapters.hosts.local:LocalHost._popen",
    "note of the model server": "noria.adapters.hosts.local:LocalHost._noted",
    "trial": "noria.release.trial:Trial.classify",
    "setting of an alias": "noria.adapters.registry.mlflow:MlflowRegistry.set_alias",
    "hand-over of an event": "noria.adapters.workflows:DbosWorkflows.start",
}
"""What a point inside a step means: `before` or `after` stands in front of it."""


def arm(point: str, worker: int) -> None:
    """Have the worker killed at a point.

    Args:
        point: `before STEP`, `after STEP` (done, not written down), `written STEP` (by the durable engine), with the
            step as `Handler.method: name`; `in ACTION` and `committed ACTION` with an action of the audit trail;
            `before` or `after` one of `CALLS`.
        worker: Its process id; its compute children inherit the wrapped calls.
    """
    when, _, what = point.partition(" ")

    def die() -> None:
        os.kill(worker, signal.SIGKILL)
        time.sleep(60)  # the signal is on its way; a compute child sees its input end

    if when in ("in", "committed"):
        _arm_change(when == "in", what, die)
    elif what in CALLS:
        module, _, path = CALLS[what].partition(":")
        owner, _, name = path.rpartition(".")
        holder: Any = import_module(module)
        holder = getattr(holder, owner) if owner else holder
        setattr(holder, name, _around(getattr(holder, name), die, before=when == "before"))
    else:
        _arm_step(when, what, die)


def _around(real: Callable[..., Any], die: Callable[[], None], *, before: bool) -> Callable[..., Any]:
    @wraps(real)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        if before:
            die()
        result = real(*arguments, **named)
        if not before:
            die()
        return result

    return wrapped


def _arm_change(inside: bool, action: str, die: Callable[[], None]) -> None:
    from noria.adapters.state.sqlite import SqliteState
    from noria.adapters.state.writing import SqliteChange

    if inside:
        seal = SqliteChange.seal

        def sealed(self: SqliteChange, entry: Any) -> None:
            seal(self, entry)
            if entry.action == action:
                die()

        SqliteChange.seal = sealed
        return
    change = SqliteState.change

    @contextmanager
    def changed(self: SqliteState, actor: str, what: str, *arguments: Any, **named: Any) -> Iterator[SqliteChange]:
        with change(self, actor, what, *arguments, **named) as under_way:
            yield under_way
        if what == action:
            die()

    SqliteState.change = changed


def _arm_step(when: str, step: str, die: Callable[[], None]) -> None:
    from noria.adapters.workflows import _Steps

    method = "_durably" if when == "written" else "_outcome"
    real = getattr(_Steps, method)

    def wrapped(self: _Steps, name: str, *arguments: Any) -> Any:
        mine = f"{self._handler}: {name}" == step
        if mine and when == "before":
            die()
        outcome = real(self, name, *arguments)
        if mine and when != "before":
            die()
        return outcome

    setattr(_Steps, method, wrapped)


def keep_ledger(file: Path) -> None:
    """Write down every durable step that is begun and ended, and every fit."""
    from dbos import DBOS

    from noria.adapters.trainers import classifier
    from noria.adapters.workflows import _Steps

    ledger = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(**said: object) -> None:
        os.write(ledger, json.dumps(said).encode() + b"\n")

    outcome, fit = _Steps._outcome, classifier.fit

    def noted(self: _Steps, name: str, *arguments: Any) -> Any:
        step = {"event": DBOS.workflow_id, "step": f"{self._handler}: {name}"}
        note(what="begin", **step)
        result = outcome(self, name, *arguments)
        note(what="end", **step)
        return result

    def fitted(*arguments: Any) -> Any:
        note(what="fit")
        return fit(*arguments)

    _Steps._outcome, classifier.fit = noted, fitted


class Spare:
    """A compute child that was forked early, as `subprocess.Popen` shows it."""

    def __init__(self) -> None:
        orders, answers = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(orders[0], 0)
            os.dup2(answers[1], 1)
            for end in (*orders, *answers):
                os.close(end)
            for spare in _ready:  # their pipes are the worker's alone: a child must see that its own has ended
                spare.stdin.close()
                spare.stdout.close()
            self._work()
        os.close(orders[0])
        os.close(answers[1])
        self.stdin = os.fdopen(orders[1], "w")
        self.stdout = os.fdopen(answers[0])
        self._status: int | None = None

    def _work(self) -> None:
        from noria.adapters import compute

        sys.stdin = os.fdopen(0)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        compute.main()

    def poll(self) -> int | None:
        if self._status is None:
            with suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status

    def wait(self) -> int:
        while self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def communicate(self) -> None:
        self.stdin.close()
        self.stdout.close()


_ready: list[Spare] = []


def _worker(root: Path, point: str) -> int:
    """Be the worker of a project."""
    from noria import worker
    from noria.adapters import compute

    os.chdir(root)
    log = os.open(root / "worker.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    keep_ledger(root / LEDGER)
    if point:
        arm(point, os.getpid())
    _ready.extend(Spare() for _ in range(SPARES))
    real = subprocess.Popen

    def child(command: list[str], *arguments: Any, **named: Any) -> Any:
        ours = command[-1] == "noria.adapters.compute" and _ready
        return _ready.pop() if ours else real(command, *arguments, **named)

    compute.subprocess = type("subprocess", (), {"Popen": staticmethod(child), "PIPE": subprocess.PIPE})
    sys.argv = ["worker", "--project", str(root)]
    return worker.main()


def _import_everything() -> None:
    from noria.adapters.registry.client import load_mlflow

    for module in (
        "noria.worker", "noria.loop", "noria.adapters.workflows", "noria.adapters.compute",
        "noria.adapters.trainers.classifier", "noria.adapters.tables.delta", "noria.bootstrap.worker_process",
        "noria.bootstrap.quality_job", "noria.adapters.hosts.both", "noria.adapters.upstreams.both",
    ):  # fmt: skip
        import_module(module)
    load_mlflow("sklearn", "pyfunc", "data", "data.sources", "artifacts")


def main() -> None:
    """Fork a worker for each order, one at a time."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _import_everything()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = _worker(Path(order["root"]), order["point"])
            finally:
                os._exit(status)
        print(json.dumps({"pid": pid}), file=answers, flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps({"status": status}), file=answers, flush=True)


if __name__ == "__main__":
    main()
