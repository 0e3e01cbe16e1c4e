"""What Prometheus reads, parsed back with Prometheus' own parser."""

import logging

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fakes.state import FakeState
from fakes.story import THRESHOLD, StoppedClock, tell
from noria.api.metrics import Metrics


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
    metrics.finished("triage", "triage", "1", "champion", "answered", 200, 0.012)

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
    metrics.finished("assistant", "assistant", "1", "champion", "answered", 200, 1.9, 0.2, 31, 64)

    seen = values(metrics)
    assert seen["noria_time_to_first_token_seconds_count", "assistant", "assistant", "champion", "1"] == 1
    assert seen["noria_tokens_total", "input", "assistant", "assistant", "champion", "1"] == 31
    assert seen["noria_tokens_total", "output", "assistant", "assistant", "champion", "1"] == 64


def test_dropped_shadows_are_counted() -> None:
    metrics = told()
    metrics.shadow_dropped("triage")
    assert values(metrics)["noria_shadow_dropped_total", "triage"] == 1


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
