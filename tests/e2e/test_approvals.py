"""A version that waits for people, in a project that is really up: told, kept from traffic, approved by another."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.running import Load, Running, new_project, noria, noria_json

pytestmark = pytest.mark.slow


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Running]:
    """One of its own: what its versions are approved by changes who answers."""
    running = Running(new_project(tmp_path / "shop")).start()
    yield running
    running.stop()


def test_a_version_waits_through_a_death_until_a_second_person_approves_it(shop: Running) -> None:
    first = shop.endpoint()["champion"]["version"]
    policy = shop.root / "policies" / "triage.yaml"
    before = policy.read_text()
    policy.write_text(before + "\napproval: {people: [ada, bob]}\n")
    try:
        noria(shop.root, "retrain", "triage", "--by", "bob", "--reason", "new words")
        shop.wait_until(lambda: _waiting(shop), 150)
    finally:
        policy.write_text(before)
    [waits] = _waiting(shop)
    assert (waits["passed"], waits["approval"]["whom"], waits["approval"]["requested_by"]) == (True, "ada", ["bob"])
    alert = f"triage:approval:{waits['id']}"
    shop.wait_until(lambda: alert in _firing(shop), 30)
    worker = shop.kill("worker")
    shop.wait_until(lambda: shop.processes().get("worker") not in (0, None, worker), 60)

    decide = ("verdict", "approve", waits["id"], "--reason", "the numbers hold", "--by")
    refused = noria(shop.root, *decide, "bob", check=False)
    assert refused.returncode == 1
    assert "wants a second person" in refused.stderr
    assert shop.status()["rollouts"] == []
    with Load(shop, threads=2) as load:
        noria(shop.root, *decide, "ada")
        shop.wait_until(lambda: shop.endpoint()["champion"]["version"] != first, 120)
    assert load.refused == []
    assert shop.endpoint()["champion"]["verdict_id"] == waits["id"]
    shop.wait_until(lambda: alert not in _firing(shop), 30)
    assert "ada approved it: the numbers hold" in noria(shop.root, "trace", f"triage/{waits['version']}").stdout
    assert noria_json(shop.root, "audit", "verify")["verified"] is True


def _waiting(shop: Running) -> list[dict[str, Any]]:
    return [v for v in shop.status()["verdicts"] if v["standing"] == "waiting"]


def _firing(shop: Running) -> list[str]:
    return [alert["id"] for alert in shop.status()["alerts"]]
