"""A worker that is killed inside and between steps: what was done stays done, what wasn't is done."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.chaos

WORKER = """
import os, sys, time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from noria.adapters.workflows import DbosWorkflows
from noria.domain.events import WindowClosed

folder, die_in, die_after, windows = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])

def note(line):
    with (folder / "log").open("a") as log:
        log.write(line + "\\n")
        log.flush()
        os.fsync(log.fileno())

def work(name):
    note(f"begin {name}")
    if name == die_in:
        os.kill(os.getpid(), 9)
    note(f"done {name}")
    return {"made": name}

def handler(event, step):
    window = f"w{event.start.hour}"
    for name in ("a", "b", "c"):
        result = step(name, work, f"{window}{name}")
        assert result == {"made": f"{window}{name}"}
        if f"{window}{name}" == die_after:
            os.kill(os.getpid(), 9)

engine = DbosWorkflows(f"sqlite:///{folder}/workflows.db", {WindowClosed: (handler,)}, poll_s=0.05)
at = datetime(2026, 3, 1, tzinfo=UTC)
for n in range(windows):
    engine.start(WindowClosed(endpoint="triage", start=at + timedelta(hours=n), end=at + timedelta(hours=n + 1)))
while engine.busy():
    time.sleep(0.05)
engine.close()
"""


def run(folder: Path, *, die_in: str = "-", die_after: str = "-", windows: int = 0) -> int:
    command = [sys.executable, "-c", WORKER, str(folder), die_in, die_after, str(windows)]
    return subprocess.run(command, timeout=60, check=False).returncode


def done(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


def test_a_worker_killed_inside_a_step_does_that_step_again_and_no_other(tmp_path: Path) -> None:
    assert run(tmp_path, die_in="w0b", windows=1) == -signal.SIGKILL
    assert run(tmp_path) == 0
    assert done(tmp_path) == [
        "begin w0a", "done w0a", "begin w0b",
        "begin w0b", "done w0b", "begin w0c", "done w0c",
    ]  # fmt: skip


def test_a_worker_killed_between_steps_repeats_nothing(tmp_path: Path) -> None:
    assert run(tmp_path, die_after="w0b", windows=1) == -signal.SIGKILL
    assert run(tmp_path) == 0
    assert done(tmp_path) == [f"{what} w0{name}" for name in "abc" for what in ("begin", "done")]


def test_a_worker_that_dies_again_and_again_still_finishes_every_window_in_order(tmp_path: Path) -> None:
    assert run(tmp_path, die_in="w0a", windows=3) == -signal.SIGKILL
    for place in ("w0c", "w1a", "w1c", "w2b"):
        assert run(tmp_path, die_in=place, windows=3) == -signal.SIGKILL  # the same events are told again
    assert run(tmp_path) == 0
    finished = [line.removeprefix("done ") for line in done(tmp_path) if line.startswith("done")]
    assert finished == [f"w{n}{name}" for n in range(3) for name in "abc"]


def test_a_worker_killed_at_any_moment_loses_no_step(tmp_path: Path) -> None:
    """Killed from outside at moments that nobody chose: a step may begin twice, but none is left out."""
    for moment in (0.9, 1.3, 1.7):
        process = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), "-", "-", "20"])
        time.sleep(moment)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
    assert run(tmp_path, windows=20) == 0
    finished = [line.removeprefix("done ") for line in done(tmp_path) if line.startswith("done")]
    assert sorted(set(finished)) == sorted(f"w{n}{name}" for n in range(20) for name in "abc")
