"""A project with two API processes, really up: any of them may be killed, and all of it ends in order."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.running import Load, Running, new_project, noria

pytestmark = [pytest.mark.slow, pytest.mark.chaos]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Running]:
    running = Running(new_project(tmp_path / "shop", "server: {processes: 2, access_log: true}")).start()
    yield running
    running.stop()


def test_killing_any_process_loses_no_answered_request_and_the_rest_goes_on(pair: Running) -> None:
    with Load(pair, threads=3) as load:
        load.wait_for(100)
        for who in ("api-1", "api-0", "worker"):
            pair.kill(who)
            load.wait_for(100)
    assert {status for status, _ in load.refused} <= {0}  # only what was in the very process
    assert len(load.refused) <= 6
    assert "api-0" in noria(pair.root, "status").stdout

    pair.shipped()
    counts = "SELECT count(*) AS n, count(DISTINCT databricks_request_id) AS ids, count(DISTINCT spool) AS spools"
    [row] = pair.rows(f"{counts} FROM inference")
    ids = {r["databricks_request_id"] for r in pair.rows("SELECT databricks_request_id FROM inference")}
    assert set(load.answered) <= ids
    assert row["n"] == row["ids"]
    assert row["spools"] == 2
    lines = (pair.root / "up.log").read_text().splitlines()
    assert sum('"logger":"noria.access"' in line for line in lines) >= len(load.answered)


def test_a_process_that_is_asked_to_stop_drops_nothing_and_is_replaced(pair: Running) -> None:
    with Load(pair, threads=3) as load:
        load.wait_for(50)
        for who in ("api-0", "api-1"):
            before = pair.processes()[who]
            os.kill(before, signal.SIGTERM)
            pair.wait_until(lambda who=who, before=before: pair.processes()[who] not in (0, before))
            load.wait_for(50)
            time.sleep(2)  # the successor has to listen before the other one is asked to stop
    assert load.refused == []
    assert len(load.answered) >= 150
