"""What Prometheus reads at `/metrics`: requests as they happen, and the loop's state as it is at the scrape.

A registry of its own keeps one app's numbers apart from another's in the same process. Reading the state may fail; then
its gauges are absent and `noria_state_up` is 0, but the request metrics are still there.
"""

import logging
from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from noria.api.pool import Pool
from noria.domain.alert import Alert, AlertState
from noria.domain.endpoint import Route
from noria.domain.monitor import MonitorState
from noria.domain.status import Heartbeat
from noria.ports import Clock, StateStore

log = logging.getLogger("noria.api.metrics")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of what `Metrics.render` returns."""
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class _Series(dict[tuple[str, ...], Any]):
    """Labels → the series of a metric, which the library takes long to find."""

    def __init__(self, metric: Any) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, labels: tuple[str, ...]) -> Any:
        series = self[labels] = self._metric.labels(*labels)
        return series


class Metrics:
    """Counts what the gateway tells it and renders everything for Prometheus.

    The gateway calls `started` once for each request that it takes (a shadow's copy included) and `finished` exactly
    once for each `started`. Labels come from the project file and the registry, never from a caller, so that nobody
    can blow up the number of series. Safe to call from any thread.

    Args:
        state: Read at each scrape.
        clock: For ages.
        pool: Adds up what several processes counted; None if there is only this one.
    """

    def __init__(self, state: StateStore, clock: Clock, pool: Pool | None = None) -> None:
        self.registry = CollectorRegistry()
        """What this process counts."""
        self.pool = pool
        served = ("endpoint", "model", "version", "route")
        self._requests = Counter(
            "noria_requests", "Requests that ended.", (*served, "outcome", "status"), registry=self.registry
        )
        self._duration = Histogram(
            "noria_request_duration_seconds",
            "From arrival to the last byte.",
            served,
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._ttft = Histogram(
            "noria_time_to_first_token_seconds",
            "From arrival to the first streamed content.",
            served,
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._tokens = Counter(
            "noria_tokens", "Tokens, as model servers counted them.", (*served, "direction"), registry=self.registry
        )
        self._in_flight = Gauge(
            "noria_requests_in_flight", "Requests under way.", ("endpoint",), registry=self.registry
        )
        self._dropped = Counter(
            "noria_shadow_dropped", "Shadow copies that were not made.", ("endpoint",), registry=self.registry
        )
        self._turned_away = Counter(
            "noria_unauthenticated",
            "Requests refused for want of a valid API key.",
            ("reason",),
            registry=self.registry,
        )
        self._in_flight_of = _Series(self._in_flight)
        self._requests_of = _Series(self._requests)
        self._duration_of = _Series(self._duration)
        self._ttft_of = _Series(self._ttft)
        self._tokens_of = _Series(self._tokens)
        ProcessCollector(registry=self.registry)
        self._of_state = CollectorRegistry()
        self._of_state.register(StateCollector(state, clock))

    def started(self, endpoint: str) -> None:
        """A request was taken."""
        self._in_flight_of[endpoint,].inc()

    def finished(
        self,
        endpoint: str,
        model: str,
        version: str,
        role: str,
        outcome: str,
        status: int,
        duration_s: float,
        ttft_s: float | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
    ) -> None:
        """A request ended.

        Args:
            endpoint: Endpoint that took it.
            model: Registered model that was picked; empty if none was.
            version: Its version; empty if none was picked.
            role: Role of the target; empty if none was picked.
            outcome: `OutcomeKind` value.
            status: HTTP status given to the caller.
            duration_s: From arrival to the last byte, seconds.
            ttft_s: To the first streamed content, seconds; None if not streamed.
            input_tokens: As the model server counted them; None if it did not.
            output_tokens: The same.
        """
        served = (endpoint, model, version, role)
        self._in_flight_of[endpoint,].dec()
        self._requests_of[*served, outcome, str(status)].inc()
        self._duration_of[served].observe(duration_s)
        if ttft_s is not None:
            self._ttft_of[served].observe(ttft_s)
        if input_tokens:
            self._tokens_of[*served, "input"].inc(input_tokens)
        if output_tokens:
            self._tokens_of[*served, "output"].inc(output_tokens)

    def shadow_dropped(self, endpoint: str) -> None:
        """A shadow copy was not made, because too many were under way."""
        self._dropped.labels(endpoint).inc()

    def turned_away(self, reason: str) -> None:
        """A request came without a key, or with one that opens nothing here."""
        self._turned_away.labels(reason).inc()

    def render(self) -> bytes:
        """Everything in Prometheus' text format. Reads the state store, so call it off the event loop."""
        counted = generate_latest(self.registry) if self.pool is None else self.pool.render(self.registry)
        return counted + generate_latest(self._of_state)

    def keep(self) -> None:
        """Write down what was counted, for a scrape that another process answers."""
        if self.pool is not None:
            self.pool.write(self.registry)


class StateCollector(Collector):
    """Gauges that are read from the state at each scrape; none of them if the state can't be read."""

    def __init__(self, state: StateStore, clock: Clock) -> None:
        self._state, self._clock = state, clock

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not read the state to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The loop's state now."""
        try:
            families = [*self._worker(), *self._monitors(), self._alerts(), self._weights()]
        except Exception as error:  # whatever happened to the state, the request metrics must still be served
            log.warning("The state can't be read for /metrics: %s", error)
            families = []
        yield GaugeMetricFamily("noria_state_up", "Whether the state could be read.", value=float(bool(families)))
        yield from families

    def _worker(self) -> Iterator[GaugeMetricFamily]:
        unshipped = GaugeMetricFamily("noria_records_unshipped", "Entries not in the tables yet.", labels=("spool",))
        open_intents = GaugeMetricFamily("noria_records_open", "Requests without an outcome yet.", labels=("spool",))
        age = GaugeMetricFamily("noria_worker_heartbeat_age_seconds", "Since the worker's last sign of life.")
        beat = self._state.get(Heartbeat, "worker")
        if beat is not None:
            age.add_metric((), (self._clock.now() - beat.at).total_seconds())
            for name, spool in beat.spools.items():
                unshipped.add_metric((name,), spool.unshipped)
                open_intents.add_metric((name,), spool.open_intents)
        yield from (unshipped, open_intents, age)

    def _monitors(self) -> Iterator[GaugeMetricFamily]:
        labels = ("endpoint", "monitor", "version")
        evidence = GaugeMetricFamily("noria_monitor_log_e", "ln evidence of a change.", labels=labels)
        threshold = GaugeMetricFamily("noria_monitor_log_threshold", "The monitor alarms from here.", labels=labels)
        rows = GaugeMetricFamily("noria_monitor_rows", "Rows that the evidence rests on.", labels=labels)
        champions = {route.endpoint: route.champion.version for route in self._state.find(Route)}
        for monitor in self._state.find(MonitorState):
            if monitor.model_version == champions.get(monitor.endpoint):
                key = (monitor.endpoint, monitor.monitor, monitor.model_version)
                evidence.add_metric(key, monitor.log_e)
                threshold.add_metric(key, monitor.log_threshold)
                rows.add_metric(key, monitor.rows)
        yield from (evidence, threshold, rows)

    def _alerts(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily("noria_alerts_firing", "Alerts that fire.", labels=("endpoint",))
        firing = Tally({route.endpoint: 0 for route in self._state.find(Route)})
        firing.update(a.endpoint for a in self._state.find(Alert) if a.state is AlertState.FIRING)
        for endpoint, count in firing.items():
            family.add_metric((endpoint,), count)
        return family

    def _weights(self) -> GaugeMetricFamily:
        labels = ("endpoint", "model", "version", "route")
        family = GaugeMetricFamily("noria_route_weight", "Per cent of the traffic.", labels=labels)
        for route in self._state.find(Route):
            for target in route.targets:
                family.add_metric((route.endpoint, target.model, target.version, target.role.value), target.weight)
        return family
