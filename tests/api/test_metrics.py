"""What Prometheus reads, parsed back with Prometheus' own parser."""

import itertools
import logging
import platform
import threading
from importlib.metadata import version

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fakes.entries import intent, outcome
from fakes.state import FakeState
from fakes.story import THRESHOLD, StoppedClock, tell
from noria.api.counts import SECONDS
from noria.api.metrics import Metrics
from noria.domain.status import Heartbeat, OutletStatus


class DeadState(FakeState):
    """A state that can't be read."""

    def find(self, *args, **kwargs):
        raise ConnectionError("the database is gone")

    get = find


def values(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Sample name and its label values in alphabetical order of the labels → value."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {(s.name, *(s.labels[k] for k in sorted(s.labels))): s.value for f in families for s in f.samples}


def told() -> Metrics:
    state = FakeState(StoppedClock())
    tell(state)
    return Metrics(state, StoppedClock())


def test_a_finished_request_is_counted_with_its_version_route_and_outcome() -> None:
    metrics = told()
    metrics.started("triage")
    metrics.started("triage")
    metrics.finished(intent(1), outcome(1, duration_us=12_000))

    seen = values(metrics)
    assert seen["noria_requests_in_flight", "triage"] == 1
    assert seen["noria_requests_total", "triage", "triage", "answered", "champion", "200", "1"] == 1
    assert seen["noria_request_duration_seconds_sum", "triage", "triage", "champion", "1"] == pytest.approx(0.012)
    assert seen["noria_request_duration_seconds_bucket", "triage", "0.01", "triage", "champion", "1"] == 0
    assert seen["noria_request_duration_seconds_bucket", "triage", "0.025", "triage", "champion", "1"] == 1
    assert not any(name[0].startswith("noria_time_to_first_token_seconds_count") for name in seen)


def test_a_stream_leaves_its_time_to_first_token_and_its_tokens() -> None:
    metrics = told()
    metrics.started("assistant")
    stream = {"duration_us": 1_900_000, "ttft_us": 200_000, "input_tokens": 31, "output_tokens": 64}
    metrics.finished(intent(1, endpoint="assistant", model="assistant"), outcome(1, **stream))

    seen = values(metrics)
    assert seen["noria_time_to_first_token_seconds_count", "assistant", "assistant", "champion", "1"] == 1
    assert seen["noria_tokens_total", "input", "assistant", "assistant", "champion", "1"] == 31
    assert seen["noria_tokens_total", "output", "assistant", "assistant", "champion", "1"] == 64


def test_what_tokens_cost_what_memory_answered_and_what_was_tried_are_counted_for_who_answered() -> None:
    metrics = told()
    for n in range(3):
        metrics.started("triage")
        metrics.finished(intent(n), outcome(n, model="spare", version="7", tries=2, cost_usd=0.25, cache_hit=n == 0))

    seen = values(metrics)
    assert seen["noria_cost_usd_total", "triage", "spare", "champion", "7"] == 0.75
    assert seen["noria_cache_hits_total", "triage", "spare", "champion", "7"] == 1
    assert seen["noria_tries_total", "triage", "spare", "champion", "7"] == 6


def test_reasons_and_fallbacks_are_counted_apart() -> None:
    metrics = told()
    metrics.started("triage")
    hops = ("circuit_open", "fallback_from_triage")
    metrics.finished(intent(1), outcome(1, model="spare", version="7", errors=hops))

    seen = values(metrics)
    assert seen["noria_errors_total", "circuit_open", "triage"] == 1
    assert seen["noria_fallbacks_total", "triage", "spare"] == 1


def test_what_happens_beside_the_requests_is_counted() -> None:
    metrics = told()
    metrics.shadow_dropped("triage")
    metrics.turned_away("expired")
    metrics.log_refused("outcome")
    seen = values(metrics)
    assert seen["noria_shadow_dropped_total", "triage"] == 1
    assert seen["noria_unauthenticated_total", "expired"] == 1
    assert seen["noria_log_refused_total", "outcome"] == 1


def test_what_stands_as_it_is_is_asked_at_the_scrape() -> None:
    metrics = Metrics(FakeState(StoppedClock()), StoppedClock(), spool_bytes=lambda: 4096)
    metrics.counts.streams = lambda: 3
    metrics.counts.breakers = lambda: {"triage/1": "open", "a/b/2": "closed"}
    seen = values(metrics)
    assert seen["noria_streams_in_flight",] == 3
    assert seen["noria_breaker_state", "triage", "open", "1"] == 1
    assert seen["noria_breaker_state", "a/b", "closed", "2"] == 1
    assert seen["noria_spool_bytes",] == 4096
    assert seen["noria_build_info", platform.python_version(), version("noria")] == 1


def test_a_size_that_cannot_be_read_leaves_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    def gone() -> int:
        raise FileNotFoundError("spool")

    seen = values(Metrics(FakeState(StoppedClock()), StoppedClock(), spool_bytes=gone))
    assert ("noria_spool_bytes",) not in seen
    assert seen["noria_state_up",] == 1
    assert "spool" in caplog.text


def test_what_became_of_exports_is_shown() -> None:
    state = FakeState(StoppedClock())
    clock = StoppedClock()
    with state.note() as note:
        note.put(Heartbeat(at=clock.now(), pid=1, telemetry={"otlp": OutletStatus(sent=7, dropped=2, waiting=1)}))
    seen = values(Metrics(state, clock))
    shown = [seen[f"noria_export_{what}", "otlp"] for what in ("sent_total", "dropped_total", "waiting")]
    assert shown == [7, 2, 1]


@given(st.lists(st.integers(0, 200_000_000), max_size=50))
def test_buckets_hold_what_is_no_longer_than_their_bound(durations: list[int]) -> None:
    metrics = told()
    for n, us in enumerate(durations):
        metrics.started("triage")
        metrics.finished(intent(n), outcome(n, duration_us=us))
    seen = values(metrics)
    for bound in SECONDS if durations else ():
        expected = sum(us <= bound * 1e6 for us in durations)
        name = "noria_request_duration_seconds_bucket"
        assert seen[name, "triage", str(bound), "triage", "champion", "1"] == expected


def test_a_scrape_while_requests_end_is_answered() -> None:
    metrics = told()
    stop = threading.Event()

    def ask() -> None:
        for n in itertools.count():
            if stop.is_set():
                return
            metrics.started(f"e{n % 200}")
            metrics.finished(intent(n, endpoint=f"e{n % 200}"), outcome(n, errors=(f"c{n % 300}",)))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for _ in range(5):
            assert b"noria_requests_total" in metrics.render()
    finally:
        stop.set()
        thread.join()


def test_the_state_is_read_at_the_scrape() -> None:
    seen = values(told())

    assert seen["noria_state_up",] == 1
    assert seen["noria_records_unshipped", "api-1"] == 12
    assert seen["noria_records_open", "api-1"] == 3
    assert seen["noria_worker_heartbeat_age_seconds",] == pytest.approx(1.2)
    assert seen["noria_monitor_log_e", "triage", "text", "1"] == 9.42
    assert seen["noria_monitor_log_threshold", "triage", "text", "1"] == pytest.approx(THRESHOLD)
    assert (seen["noria_alerts_firing", "triage"], seen["noria_alerts_firing", "assistant"]) == (1, 0)
    assert seen["noria_route_weight", "triage", "triage", "canary", "3"] == 50
    assert seen["noria_route_weight", "assistant", "assistant", "champion", "1"] == 100


def test_a_state_that_is_gone_leaves_the_request_metrics(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics(DeadState(StoppedClock()), StoppedClock())
    metrics.started("triage")

    with caplog.at_level(logging.WARNING):
        seen = values(metrics)
    assert seen["noria_state_up",] == 0
    assert seen["noria_requests_in_flight", "triage"] == 1
    assert not any(name[0] == "noria_route_weight" for name in seen)
    assert "the database is gone" in caplog.text


def test_a_state_without_anything_in_it_is_up() -> None:
    assert values(Metrics(FakeState(StoppedClock()), StoppedClock()))["noria_state_up",] == 1


def test_two_apps_in_one_process_do_not_share_numbers() -> None:
    one, other = told(), told()
    one.started("triage")
    assert ("noria_requests_in_flight", "triage") not in values(other)
