"""A candidate that people pause and let go on while processes die, and versions compared on callers and beside them."""

import pytest

from fakes.running import Load, Running, noria, noria_json

pytestmark = pytest.mark.slow


def test_a_paused_rollout_waits_survives_a_death_and_its_versions_are_compared(shop: Running) -> None:
    first = shop.endpoint()["champion"]["version"]
    with Load(shop, threads=2) as load:
        noria(shop.root, "retrain", "triage", "--reason", "something to roll out")
        shop.wait_until(lambda: _under_way(shop) in ("shadow", "canary"), 150)
        noria(shop.root, "rollout", "pause", "triage", "--by", "ada", "--reason", "wait")
        paused = noria_json(shop.root, "rollout", "show", "triage")
        worker = shop.kill("worker")
        shop.wait_until(lambda: shop.processes().get("worker") not in (0, None, worker), 60)
        shop.wait_until(lambda: shop.status()["rollouts"][0]["candidate"]["requests"] >= 40, 60)  # twice what is asked
        held = noria_json(shop.root, "rollout", "show", "triage")
        assert (held["stage"], held["weight"], held["paused"]) == (paused["stage"], paused["weight"], "ada: wait")
        noria(shop.root, "rollout", "resume", "triage", "--by", "ada", "--reason", "go")
        shop.wait_until(lambda: shop.endpoint()["champion"]["version"] != first, 120)

        second = shop.endpoint()["champion"]["version"]
        begun = noria(
            shop.root, "experiment", "start", "triage", first, "--metric", "errors", "--max-requests", "60",
            "--by", "ada", "--reason", "which fails less",
        ).stdout  # fmt: skip
        assert f"triage/{second} (50 %), triage/{first} (50 %)" in begun
        shop.wait_until(lambda: noria_json(shop.root, "experiment", "status", "triage")["state"] == "ended", 60)
    found = noria_json(shop.root, "experiment", "status", "triage")
    assert found["requests"] >= 60
    assert found["winner"] == ""
    assert all(row["requests"] > 0 for row in found["standings"])
    assert shop.endpoint()["variants"] == []
    assert load.refused == []
    made = noria_json(shop.root, "experiment", "run", "triage", second, first, "--rows", "80")
    assert [row["ref"] for row in made["versions"]] == [f"triage/{second}", f"triage/{first}"]
    assert all(0.5 < row["accuracy"][0] <= 1 for row in made["versions"])
    noria(shop.root, "rollback", "triage", "--reason", "as it was")
    shop.wait_until(lambda: shop.endpoint()["champion"]["version"] == first, 20)
    assert noria_json(shop.root, "audit", "verify")["verified"] is True


def _under_way(shop: Running) -> str:
    """The stage of the rollout that isn't over; empty for none."""
    rollouts = shop.status()["rollouts"]
    return str(rollouts[0]["stage"]) if rollouts and not rollouts[0]["finished"] else ""
