"""`noria up` with everything real behind it: one per project, nothing left behind, and back after any kill."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.running import Running, new_project, noria, noria_json
from noria.adapters.processes import birth

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


def processes(root: Path) -> dict[str, int]:
    """Name → id of every process that belongs to the project: the children of `noria up`, and the model servers."""
    run = root / ".noria" / "run"
    children: dict[str, int] = json.loads((run / "up.json").read_text())["children"]
    servers = [json.loads(note.read_text()) for note in run.glob("*.json") if note.name != "up.json"]
    return children | {note["ref"]: note["pid"] for note in servers if "ref" in note}


IN_BACKGROUND = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")
"""How a script starts a job with `&`: Ctrl-C is ignored at first."""


def test_one_up_for_each_project_and_nothing_left_behind_after_it(tmp_path: Path) -> None:
    running = Running(new_project(tmp_path), begins_with=IN_BACKGROUND).start()
    try:
        before = processes(tmp_path)
        assert {"api-0", "worker", "triage/1"} <= set(before)
        second = noria(tmp_path, "up", "--port", "0", check=False)
        assert second.returncode == 1
        assert f"is up already at {running.url} (process {running.process.pid})" in second.stderr
        assert noria_json(tmp_path, "status")["up"]["url"] == running.url
    finally:
        running.stop()
    running_still = {name for name, pid in before.items() if birth(pid)}
    assert running_still == set()
    assert noria_json(tmp_path, "status")["up"] is None
    assert f"Noria is up: {running.url}" in running.log()


def test_after_a_kill_of_the_supervisor_the_next_up_takes_the_same_port(tmp_path: Path) -> None:
    running = Running(new_project(tmp_path)).start()
    port = running.url.rpartition(":")[2]
    first = processes(tmp_path)
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait()
    command = [sys.executable, "-m", "noria.cli", "--project", str(tmp_path), "up", "--port", port]
    with (tmp_path / "up.log").open("ab") as log:
        running.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        note = tmp_path / ".noria" / "run" / "up.json"
        running.wait_until(lambda: note.exists() and json.loads(note.read_text())["pid"] == running.process.pid)
        running.wait_until(lambda: running.get("/readyz")[0] == 200)
        assert running.post("/predict", {"input": "Where is my parcel?"})[0] == 200
        assert {name for name in ("api-0", "worker") if birth(first[name])} == set()
    finally:
        running.stop()
