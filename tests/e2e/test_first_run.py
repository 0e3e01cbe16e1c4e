"""What a new user does on the first day, on a project that is really up: ask, look, change, retrain, take back."""

import socket
import subprocess
import sys
import time
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from fakes.running import TEXTS, Load, Running, noria, noria_json
from noria import bootstrap
from noria.adapters.registry.client import connect

pytestmark = pytest.mark.slow


def test_requests_are_answered_and_with_their_feedback_on_record(shop: Running) -> None:
    status, said, headers = shop.post("/predict", {"input": TEXTS[0], "metadata": {"channel": "app"}})
    assert status == 200
    assert said in ("negative", "neutral", "positive")
    status, answer, several = shop.post("/invocations", {"inputs": list(TEXTS[:3])})
    assert status == 200
    assert len(answer["predictions"]) == 3
    label = {"request_id": headers["x-request-id"], "label": "negative"}
    assert shop.post("/feedback", label)[0] == 200
    assert shop.post("/feedback", label)[0] == 200  # again changes nothing
    shop.shipped()

    one, three = headers["x-request-id"], several["x-request-id"]
    rows = shop.rows(f"SELECT * FROM inference WHERE databricks_request_id IN ('{one}', '{three}')")
    assert {(row["endpoint"], row["model_version"], row["outcome"], row["status_code"]) for row in rows} == {
        ("triage", headers["x-noria-version"].rpartition("/")[2], "answered", 200)
    }
    assert len(rows) == 2
    labels = shop.rows(f"SELECT DISTINCT feedback_id, label FROM feedback WHERE request_id = '{one}'")
    assert [row["label"] for row in labels] == ["negative"]


def test_the_command_line_shows_the_loop(shop: Running) -> None:
    status = noria_json(shop.root, "status")
    assert status["up"]["url"] == shop.url
    assert status["worker"]["alive"]
    assert status["file_changed"] is False
    champion = status["endpoints"][0]["champion"]
    assert champion["weight"] == 100
    assert "triage" in noria(shop.root, "status").stdout
    assert noria_json(shop.root, "audit", "verify")["verified"] is True
    assert [a for a in noria_json(shop.root, "alerts", "list") if a["endpoint"] == "triage"] == []
    versions = noria_json(shop.root, "model", "list")
    assert "champion" in next(v for v in versions if v["version"] == champion["version"])["aliases"]
    verdict = noria_json(shop.root, "verdict", "show", champion["verdict_id"])
    assert verdict["passed"]
    assert {"policy", "quality", "groups", "latency", "licence", "card"} <= {r["gate"] for r in verdict["results"]}
    card = noria(shop.root, "card", "show", "triage", "--raw").stdout
    for word in ("model-index", "Decide about a customer", "accuracy", "delivery"):
        assert word in card


def test_the_mlflow_run_of_a_version_holds_its_evidence(shop: Running) -> None:
    settings = bootstrap.settings(shop.root)
    version = bootstrap.registry(settings).version("triage", "champion")
    client = connect(settings.tracking_uri)
    run = client.get_run(version.run_id)
    assert 0.5 < run.data.metrics["accuracy"] <= 1
    assert {name for name in run.data.metrics if name.startswith("group_")}, run.data.metrics
    found = {
        artifact.path
        for folder in ("", "card", "evidence")
        for artifact in client.list_artifacts(version.run_id, folder or None)
    }
    print(f"\nartefacts {sorted(found)}, metrics {sorted(run.data.metrics)}")
    assert {"card/README.md", "evidence/fairness.json", "evidence/quality.json", "baseline"} <= found
    assert {path.rpartition(".")[2] for path in found if path.startswith("evidence/fairness.")} > {"json"}
    files = bootstrap.registry(settings).download(version)
    model = (files / "MLmodel").read_text()
    assert "signature:" in model
    assert "saved_input_example_info:" in model


def test_a_second_up_a_second_worker_and_a_taken_port_are_refused_with_what_to_do(shop: Running) -> None:
    second = noria(shop.root, "up", "--port", "0", check=False)
    assert second.returncode == 1
    assert f"is up already at {shop.url}" in second.stderr
    command = [sys.executable, "-m", "noria.worker", "--project", str(shop.root)]
    worker = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert worker.returncode == 1
    assert f"runs already (process {shop.processes()['worker']})" in worker.stderr
    assert "Traceback" not in second.stderr + worker.stderr
    assert shop.status()["worker"]["alive"]


def test_a_taken_port_is_named(shop: Running, project: Any) -> None:
    port = shop.url.rpartition(":")[2]
    taken = noria(project, "up", "--port", port, check=False)
    assert taken.returncode == 1
    assert f"Port {port} on 127.0.0.1 is taken" in taken.stderr
    assert "--port 0" in taken.stderr
    assert "Traceback" not in taken.stderr
    with socket.create_connection(("127.0.0.1", int(port))):
        """Whoever has it is still there."""


def test_a_champion_alias_that_somebody_moves_is_put_back_and_told(shop: Running) -> None:
    champion = shop.endpoint()["champion"]["version"]
    uri = bootstrap.settings(shop.root).tracking_uri
    script = (
        "import mlflow, sys\n"
        "client = mlflow.MlflowClient(sys.argv[1], sys.argv[1])\n"
        "client.delete_registered_model_alias('triage', 'champion')\n"
    )
    subprocess.run([sys.executable, "-c", script, uri], check=True, capture_output=True, timeout=120)
    shop.wait_until(lambda: any(a["monitor"] == "registry" for a in shop.status()["alerts"]), 30)
    shop.wait_until(lambda: bootstrap.registry(bootstrap.settings(shop.root)).aliases("triage").get("champion"), 30)
    assert bootstrap.registry(bootstrap.settings(shop.root)).aliases("triage")["champion"] == champion
    told = noria_json(shop.root, "audit", "show", "--limit", "100")
    reverted = next(event for event in told if event["action"] == "alias.reverted")
    assert reverted["evidence"] == {"endpoint": "triage", "found": "", "restored": champion}
    assert shop.endpoint()["champion"]["version"] == champion
    assert noria_json(shop.root, "audit", "verify")["verified"] is True


def test_a_changed_file_is_taken_over_while_requests_go_on(shop: Running) -> None:
    file = shop.root / "noria.yaml"
    was = file.read_text()
    long = {"input": TEXTS[0] + " " * 20_000}
    assert shop.post("/predict", long)[0] == 200
    file.write_text(was.replace("window: 1s", "window: 3s") + "\nserver: {max_body_bytes: 10000}\n")
    with Load(shop, threads=2) as load:
        load.wait_for(30)
        done = noria(shop.root, "apply", "--yes", "--reason", "slower windows")
        assert '~ endpoints.triage.monitors.window: "1s" → "3s"' in done.stdout
        assert "+ server.max_body_bytes: 10000" in done.stdout
        shop.wait_until(lambda: shop.post("/predict", long)[0] == 413, 30)  # the API
        shop.wait_until(lambda: timedelta(seconds=3) in _windows(shop), 60)  # the worker
        load.wait_for(30)
    assert load.refused == []
    event = noria_json(shop.root, "audit", "show", "--limit", "100")
    event = [e for e in event if e["action"] == "project.applied"][-1]
    assert event["reason"] == "slower windows"
    assert '~ endpoints.triage.monitors.window: "1s" → "3s"' in event["evidence"]["changes"]
    assert "is in service as it is" in noria(shop.root, "apply", "--yes").stdout
    print(f"\napplied while {len(load.answered)} requests were answered and {len(load.refused)} were not")


def _windows(shop: Running) -> set[timedelta]:
    """How long the windows are that were profiled so far."""
    profiles = bootstrap.records(bootstrap.settings(shop.root)).scan("profile_metrics", columns=["window"])
    return {row["window"]["end"] - row["window"]["start"] for row in profiles.to_pylist()}


def test_a_broken_file_keeps_nobody_from_coming_back(shop: Running) -> None:
    file = shop.root / "noria.yaml"
    was = file.read_text()
    file.write_text("project: [\n")
    try:
        killed = {who: shop.kill(who) for who in ("api-0", "worker")}
        shop.wait_until(lambda: all(shop.processes().get(who) not in (0, pid) for who, pid in killed.items()))
        shop.wait_until(lambda: shop.get("/readyz")[0] == 200)
        shop.shipped()
        assert noria(shop.root, "apply", "--yes", check=False).returncode == 1
    finally:
        file.write_text(was)


def test_a_retrained_version_is_judged_promoted_under_load_and_taken_back_at_once(shop: Running) -> None:
    first = shop.endpoint()["champion"]["version"]
    with Load(shop, threads=2) as load:
        begun = time.monotonic()
        noria(shop.root, "retrain", "triage", "--reason", "the first day")
        shop.wait_until(lambda: shop.endpoint()["champion"]["version"] != first, 150)
        promoted_s = time.monotonic() - begun
        endpoint = shop.endpoint()
        second = endpoint["champion"]["version"]
        assert endpoint["previous"]["version"] == first
        load.wait_for(20)

        begun = time.monotonic()
        said = noria(shop.root, "rollback", "triage", "--reason", "second thoughts").stdout
        command_s = time.monotonic() - begun
        assert f"triage/{first} answers all of triage now" in said
        shop.wait_until(lambda: load.versions[-6:] == [f"triage/{first}"] * 6, 20)
        back_s = time.monotonic() - begun
        load.wait_for(20)
    assert load.refused == []
    assert set(load.versions[-20:]) == {f"triage/{first}"}
    verdict = noria_json(shop.root, "verdict", "show", "triage")
    assert (verdict["version"], verdict["passed"], verdict["champion"]) == (second, True, f"triage/{first}")
    rollout = next(r for r in shop.status()["rollouts"] if r["version"] == second)
    stages = [change["stage"] for change in rollout["history"]]
    assert stages == ["shadow", "canary", "promoted"]
    told = noria_json(shop.root, "audit", "show", "--subject", f"triage/{second}", "--limit", "100")
    actions = [event["action"] for event in told]
    assert [a for a in actions if a in ROLLED_OUT] == list(ROLLED_OUT)
    assert told[-1]["reason"] == "second thoughts"
    assert noria_json(shop.root, "audit", "verify")["verified"] is True
    shop.shipped()
    rows = shop.rows("SELECT databricks_request_id AS id, route, model_version FROM inference WHERE shadow_of IS NULL")
    assert set(load.answered) <= {row["id"] for row in rows}
    shadows = shop.rows("SELECT count(*) AS n FROM inference WHERE route = 'shadow'")[0]["n"]
    assert shadows >= 20
    shop.wait_until(lambda: bootstrap.registry(bootstrap.settings(shop.root)).aliases("triage")["champion"] == first)
    print(
        f"\n{len(load.answered)} requests answered, {len(load.refused)} failed; by version {Counter(load.versions)}; "
        f"retrain to promoted {promoted_s:.1f} s; rollback command {command_s:.1f} s, traffic back {back_s:.1f} s"
    )


ROLLED_OUT = (
    "candidate.registered",
    "verdict.passed",
    "rollout.started",
    "rollout.stepped",
    "version.promoted",
    "version.rolled_back",
)


def test_everything_about_the_loop_is_json(shop: Running) -> None:
    for command in ("status", "alerts list --all", "model list", "audit show", "records tail", "verdict show triage"):
        assert noria_json(shop.root, *command.split()), command
