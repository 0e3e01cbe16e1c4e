"""Processes are killed under load: every answered request is in the table once, and nothing is left behind."""

import time
from pathlib import Path

import pytest

from fakes.running import Load, Running, new_project, noria_json

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

TEXTS = [
    "Where is my parcel?",
    "Thank you, that was quick!",
    "This is the third time it broke.",
    "What are your hours?",
]


def test_killing_api_worker_and_model_server_under_load_loses_and_doubles_no_record(tmp_path: Path) -> None:
    running = Running(new_project(tmp_path)).start()
    try:
        with Load(running, TEXTS) as load:
            for who in ("api-0", "worker", "modelserver", "worker", "api-0"):
                seen = len(load.answered)
                running.wait_until(lambda seen=seen: len(load.answered) > seen + 50)
                running.kill(who)
            running.wait_until(lambda: running.get("/readyz")[0] == 200)
            seen = len(load.answered)
            running.wait_until(lambda: len(load.answered) > seen + 50)
    finally:
        running.stop()

    rows = noria_json(tmp_path, "records", "query", "SELECT databricks_request_id AS id, outcome FROM inference")
    ids = [row["id"] for row in rows]
    missing = set(load.answered) - set(ids)
    print(f"requests {len(load.answered) + len(load.refused)}, answered {len(load.answered)}, records {len(ids)}, "
          f"missing {len(missing)}, duplicated {len(ids) - len(set(ids))}")  # fmt: skip
    assert len(load.answered) > 300
    assert missing == set()
    assert len(ids) == len(set(ids))
    answered_rows = {row["id"] for row in rows if row["outcome"] == "answered"}
    assert set(load.answered) <= answered_rows
    spools = noria_json(tmp_path, "status")["worker"]["spools"].values()
    assert sum(s["unshipped"] + s["open_intents"] for s in spools) == 0
    assert noria_json(tmp_path, "audit", "verify")["verified"] is True


@pytest.mark.parametrize("step", ["validate", "train", "register", "card"])
def test_a_run_survives_the_worker_being_killed_and_registers_one_candidate(tmp_path: Path, step: str) -> None:
    running = Running(new_project(tmp_path)).start()
    try:
        noria_json_runs = lambda: [r for r in running.status()["runs"] if r["trigger"]["kind"] == "person"]  # noqa: E731
        running.post("/predict", {"input": TEXTS[0]})
        _retrain(tmp_path)

        def reached() -> bool:
            runs = noria_json_runs()
            return bool(runs) and step in [s["name"] for s in runs[0]["steps"]]

        running.wait_until(reached, 90)
        running.kill("worker")
        running.wait_until(lambda: noria_json_runs()[0]["state"] != "running", 120)
        run = noria_json_runs()[0]
        assert run["state"] == "succeeded", run["error"]
        assert len(noria_json_runs()) == 1
        running.wait_until(lambda: any(v["version"] == run["version"] for v in running.status()["verdicts"]), 60)
        time.sleep(1)
        verdicts = [v for v in running.status()["verdicts"] if v["version"] == run["version"]]
        assert len(verdicts) == 1
    finally:
        running.stop()
    versions = noria_json(tmp_path, "model", "list")
    assert sorted(v["version"] for v in versions if v["name"] == "triage") == ["1", "2"]


def _retrain(root: Path) -> None:
    from fakes.running import noria

    noria(root, "retrain", "triage", "--reason", "a test")
