"""Processes are killed under load and in the midst of runs: nothing is lost, doubled, or left behind."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from fakes.dataplane import Account
from fakes.running import Load, Running, new_project, noria, noria_json
from noria.adapters.processes import birth

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

KILLED = ("api-0", "worker", "triage/1", "worker", "api-0", "worker")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(new_project(tmp_path_factory.mktemp("killed") / "shop")).start()
    yield running
    running.stop()


@pytest.mark.parametrize("step", ["validate", "register"])
def test_a_run_survives_the_worker_being_killed_and_makes_one_candidate(running: Running, step: str) -> None:
    versions = len(_versions(running))
    noria(running.root, "retrain", "triage", "--reason", f"killed after {step}")

    def run() -> dict[str, Any]:
        found = [r for r in running.status()["runs"] if r["trigger"]["reason"] == f"killed after {step}"]
        assert len(found) <= 1, "one request made two runs"
        return found[0] if found else {"state": "", "steps": []}

    running.wait_until(lambda: step in [done["name"] for done in run()["steps"]], 90)
    running.kill("worker")
    before = [done["name"] for done in run()["steps"]]
    running.wait_until(lambda: run()["state"] not in ("", "running"), 120)
    done = run()
    assert done["state"] == "succeeded", done["error"]
    names = [s["name"] for s in done["steps"]]
    assert names[: len(before)] == before
    assert len(names) == len(set(names))
    running.wait_until(lambda: _verdicts(running, done["version"]), 90)
    running.wait_until(lambda: _rollout(running, done["version"]), 60)
    assert len(_versions(running)) == versions + 1
    assert len(_verdicts(running, done["version"])) == 1
    told = Counter(
        event["action"] for event in noria_json(running.root, "audit", "show", "--subject", f"triage/{done['version']}")
    )
    assert told["candidate.registered"] == told["verdict.passed"] == told["rollout.started"] == 1
    print(f"\nkilled after {step}: steps {names}, candidate {done['version']}, 1 verdict, 1 rollout")


@pytest.mark.serving("noria up: API, worker, model server killed in turn")
def test_killing_api_worker_and_model_server_under_load_loses_and_doubles_no_record(running: Running, account) -> None:
    """A rollout is on its way meanwhile; the last kill comes right before the clean stop."""
    with Load(running) as load:
        for who in KILLED[:-1]:
            load.wait_for(60)
            running.kill(who)
        load.wait_for(60)
    processes = running.processes()
    running.kill(KILLED[-1])
    running.stop()

    rows = noria_json(
        running.root,
        "records",
        "query",
        "SELECT databricks_request_id AS id, outcome, spool, sequence FROM inference WHERE shadow_of IS NULL",
    )
    ids = Counter(row["id"] for row in rows)
    outcomes = Counter(row["outcome"] for row in rows)
    missing = set(load.answered) - ids.keys()
    doubled = [name for name, count in ids.items() if count > 1]
    print(
        f"\nkilled {', '.join(KILLED)}: {len(load.answered)} requests answered, "
        f"others {dict(Counter(map(str, load.refused)))}; {len(rows)} records {dict(outcomes)}; "
        f"missing {len(missing)}, duplicated {len(doubled)}"
    )
    account(Account(len(load.answered) + len(load.refused), len(rows), len(missing), len(doubled)))
    answered = {row["id"] for row in rows if row["outcome"] == "answered"}
    assert set(load.answered) <= answered
    assert len({(row["spool"], row["sequence"]) for row in rows}) == len(rows)
    assert noria_json(running.root, "records", "query", "SELECT * FROM dead_letter") == []
    spools = noria_json(running.root, "status")["worker"]["spools"].values()
    assert sum(s["unshipped"] + s["open_intents"] for s in spools) == 0
    assert noria_json(running.root, "audit", "verify")["verified"] is True
    assert [name for name, pid in processes.items() if birth(pid)] == []


def _versions(running: Running) -> list[str]:
    return [v["version"] for v in noria_json(running.root, "model", "list")]


def _verdicts(running: Running, version: str) -> list[dict[str, Any]]:
    return [v for v in running.status()["verdicts"] if v["version"] == version]


def _rollout(running: Running, version: str) -> bool:
    return any(r["version"] == version and r["stage"] != "starting" for r in running.status()["rollouts"])
