"""A project that asks for names to be taken out only once it runs: the real redactor comes, finds them, and goes."""

import importlib.util
from pathlib import Path

import pytest

from fakes.running import Running, new_project, noria

MISSING = importlib.util.find_spec("presidio_analyzer") is None
pytestmark = [pytest.mark.slow, pytest.mark.skipif(MISSING, reason="noria[pii] is not installed")]


def test_the_redactor_comes_and_goes_with_what_is_applied(tmp_path: Path) -> None:
    root = new_project(tmp_path / "shop")
    file, running = root / "noria.yaml", Running(root)
    before = file.read_text()
    running.start()
    try:
        assert "redactor" not in running.processes()
        file.write_text(before.replace("    group:", "    redact: [name]\n    group:"))
        noria(root, "apply", "--yes")
        running.wait_until(lambda: running.processes().get("redactor"))
        running.wait_until(lambda: running.get("/readyz")[0] == 503 or "[name]" in asked(running))
        running.wait_until(lambda: running.get("/readyz")[0] == 200)
        running.wait_until(lambda: "[name]" in asked(running))
        file.write_text(before)
        noria(root, "apply", "--yes")
        running.wait_until(lambda: "redactor" not in running.processes())
        running.wait_until(lambda: "Maria Garcia" in asked(running))
    finally:
        running.stop()


def asked(running: Running) -> str:
    """What the log says of one more question; what could not be answered is not in it."""
    status, _, headers = running.request("POST", "/predict", {"input": "I met Maria Garcia in Madrid."})
    if status != 200:
        return ""
    named = headers["x-request-id"]
    [row] = running.rows(f"SELECT request FROM inference WHERE databricks_request_id = '{named}'")
    return str(row["request"])
