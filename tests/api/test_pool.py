"""Several API processes count as one."""

import os

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from noria.api import pool as pool_module
from noria.api.pool import Pool


class Process:
    """What one process of a project counts."""

    def __init__(self, folder, slot: str) -> None:
        self.registry = CollectorRegistry()
        self.asked = Counter("asked", "Requests.", ("endpoint",), registry=self.registry)
        self.seconds = Histogram("seconds", "Durations.", registry=self.registry, buckets=(1, 2))
        self.under_way = Gauge("under_way", "Now.", registry=self.registry)
        self.pool = Pool(folder, slot)

    def shown(self) -> dict[str, float]:
        """Series → value, as whoever asks this process sees it."""
        lines = self.pool.render(self.registry).decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}


@pytest.fixture
def pair(tmp_path):
    return Process(tmp_path / "counts", "api-0"), Process(tmp_path / "counts", "api-1")


def test_whoever_is_asked_answers_for_all(pair):
    one, two = pair
    one.asked.labels("triage").inc(3)
    two.asked.labels("triage").inc(4)
    two.asked.labels("chat").inc()
    one.seconds.observe(0.5)
    two.seconds.observe(1.5)
    one.under_way.set(2)
    two.under_way.set(1)
    two.pool.write(two.registry)
    shown = one.shown()
    assert (shown['asked_total{endpoint="triage"}'], shown['asked_total{endpoint="chat"}']) == (7, 1)
    buckets = [shown[f'seconds_bucket{{le="{le}"}}'] for le in ("1.0", "2.0", "+Inf")]
    assert (buckets, shown["seconds_count"], shown["seconds_sum"]) == ([1, 2, 2], 2, 2)
    assert shown["under_way"] == 3
    assert two.shown() == shown


def test_a_killed_process_is_succeeded_and_no_sum_ever_falls(pair, tmp_path):
    one, two = pair
    one.asked.labels("triage").inc(5)
    two.asked.labels("triage").inc(10)
    two.pool.write(two.registry)
    two.asked.labels("triage").inc(7)  # lost with the process: nobody has seen them
    assert one.shown()['asked_total{endpoint="triage"}'] == 15
    successor = Process(tmp_path / "counts", "api-1")
    assert one.shown()['asked_total{endpoint="triage"}'] == 15
    successor.asked.labels("triage").inc()
    assert successor.shown()['asked_total{endpoint="triage"}'] == 16
    assert one.shown()['asked_total{endpoint="triage"}'] == 16


def test_what_a_dead_process_held_is_forgotten_and_what_it_counted_is_not(pair, monkeypatch):
    one, two = pair
    two.under_way.set(9)
    two.asked.labels("triage").inc()
    two.pool.write(two.registry)
    assert one.shown()["under_way"] == 9
    monkeypatch.setattr(pool_module, "STALE_S", -1)
    shown = one.shown()
    assert "under_way" not in shown
    assert shown['asked_total{endpoint="triage"}'] == 1


def test_a_page_that_cannot_be_read_or_written_keeps_nobody_from_looking(pair, tmp_path, caplog):
    one, _ = pair
    one.asked.labels("triage").inc()
    (tmp_path / "counts").mkdir(exist_ok=True)
    (tmp_path / "counts" / "api-1.counts").write_bytes(os.urandom(64))
    assert one.shown()['asked_total{endpoint="triage"}'] == 1
    blocked = Process(tmp_path / "file", "api-0")
    (tmp_path / "file").write_text("in the way")
    assert blocked.shown() == {}
    assert "can't be written" in caplog.text
