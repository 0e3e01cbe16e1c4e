"""What Prometheus reads at `/metrics`: requests as they happen, and the loop's state as it is at the scrape.

A registry of its own keeps one app's numbers apart from another's in the same process. Reading the state may fail; then
its gauges are absent and `noria_state_up` is 0, but the request metrics are still there.
"""

import logging
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from noria.api.counts import Counts
from noria.api.pool import Pool
from noria.domain.alert import Alert, AlertState, Silence, silenced
from noria.domain.endpoint import Route
from noria.domain.monitor import MonitorState
from noria.domain.status import Heartbeat
from noria.ports import Clock, StateStore

log = logging.getLogger("noria.api.metrics")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of what `Metrics.render` returns."""


class Metrics:
    """Counts what the gateway tells it and renders everything for Prometheus.

    The gateway calls `started` once for each request that it takes (a shadow's copy included) and `finished` exactly
    once for each `started`. Labels come from the project file and the registry, never from a caller, so that nobody
    can blow up the number of series.

    Args:
        state: Read at each scrape.
        clock: For ages.
        pool: Adds up what several processes counted; None if there is only this one.
        spool_bytes: What the spools take on disk, bytes; raises OSError if that can't be known.
    """

    def __init__(
        self,
        state: StateStore,
        clock: Clock,
        pool: Pool | None = None,
        spool_bytes: Callable[[], int] | None = None,
    ) -> None:
        self.registry = CollectorRegistry()
        """What this process counts."""
        self.pool = pool
        self.counts = Counts()
        self.started, self.finished = self.counts.started, self.counts.finished
        self.shadow_dropped, self.turned_away = self.counts.shadow_dropped, self.counts.turned_away
        self.log_refused = self.counts.log_refused
        self.registry.register(self.counts)
        ProcessCollector(registry=self.registry)
        self._of_project = CollectorRegistry()
        self.collectors: list[Collector] = [self.counts, StateCollector(state, clock)]
        """Where all metrics but the process's own come from."""
        if spool_bytes is not None:
            self.collectors.append(DiskCollector(spool_bytes))
        for collector in self.collectors[1:]:
            self._of_project.register(collector)

    def render(self) -> bytes:
        """Everything in Prometheus' text format. Reads the state store, so call it off the event loop."""
        counted = generate_latest(self.registry) if self.pool is None else self.pool.render(self.registry)
        return counted + generate_latest(self._of_project)

    def keep(self) -> None:
        """Write down what was counted, for a scrape that another process answers."""
        if self.pool is not None:
            self.pool.write(self.registry)


class DiskCollector(Collector):
    """What the spools take on disk: it grows while nobody ships, also if the worker that would say so is dead."""

    def __init__(self, spool_bytes: Callable[[], int]) -> None:
        self._bytes = spool_bytes

    def describe(self) -> Iterable[Metric]:
        """Nothing; see `StateCollector`."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The sum now; nothing if it can't be known."""
        try:
            yield GaugeMetricFamily("noria_spool_bytes", "What the spools take on disk.", value=self._bytes())
        except OSError as error:
            log.warning("The size of the spools can't be read for /metrics: %s", error)


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
            families = [*self._worker(), *self._monitors(), *self._alerts(), self._weights()]
        except Exception as error:  # whatever happened to the state, the request metrics must still be served
            log.warning("The state can't be read for /metrics: %s", error)
            families = []
        yield GaugeMetricFamily("noria_state_up", "Whether the state could be read.", value=float(bool(families)))
        yield from families

    def _worker(self) -> Iterator[Metric]:
        unshipped = GaugeMetricFamily("noria_records_unshipped", "Entries not in the tables yet.", labels=("spool",))
        open_intents = GaugeMetricFamily("noria_records_open", "Requests without an outcome yet.", labels=("spool",))
        age = GaugeMetricFamily("noria_worker_heartbeat_age_seconds", "Since the worker's last sign of life.")
        beat = self._state.get(Heartbeat, "worker")
        if beat is not None:
            age.add_metric((), (self._clock.now() - beat.at).total_seconds())
            for name, spool in beat.spools.items():
                unshipped.add_metric((name,), spool.unshipped)
                open_intents.add_metric((name,), spool.open_intents)
        now = self._clock.now()
        yield from (unshipped, open_intents, age, *_exports(beat), *_notifiers(beat, now))

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

    def _alerts(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("noria_alerts_firing", "Alerts that fire.", labels=("endpoint",))
        labels = ("endpoint", "monitor", "severity", "state", "acknowledged", "silenced")
        each = GaugeMetricFamily("noria_alerts", "1 for every alert that fires or is pending.", labels=labels)
        found = [a for a in self._state.find(Alert) if a.state is not AlertState.RESOLVED]
        silences, now = self._state.find(Silence) if found else [], self._clock.now()
        firing = Tally({route.endpoint: 0 for route in self._state.find(Route)})
        firing.update(a.endpoint for a in found if a.fires)
        for endpoint, count in firing.items():
            family.add_metric((endpoint,), count)
        alike = Tally(
            (
                a.endpoint,
                a.monitor,
                a.severity.value,
                a.state.value,
                _yes(a.acknowledged),
                _yes(silenced(a, silences, now)),
            )
            for a in found
        )
        for values in alike:
            each.add_metric(values, 1)
        yield from (family, each)

    def _weights(self) -> GaugeMetricFamily:
        labels = ("endpoint", "model", "version", "route")
        family = GaugeMetricFamily("noria_route_weight", "Per cent of the traffic.", labels=labels)
        for route in self._state.find(Route):
            for target in route.targets:
                family.add_metric((route.endpoint, target.model, target.version, target.role.value), target.weight)
        return family


def _yes(value: object) -> str:
    return "false" if value is None else "true"


def _notifiers(beat: Heartbeat | None, now: datetime) -> Iterator[Metric]:
    """What became of what notifiers had to tell."""
    told = CounterMetricFamily("noria_notifications_delivered", "Alerts that were told.", labels=("to",))
    failed = CounterMetricFamily("noria_notifications_failed", "Tries to tell alerts in vain.", labels=("to",))
    waiting = GaugeMetricFamily("noria_notifications_waiting", "Alerts that are still to be told.", labels=("to",))
    failing = GaugeMetricFamily("noria_notifier_failing_seconds", "Since it began to fail; 0 if not.", labels=("to",))
    for name, notifier in beat.notifiers.items() if beat is not None else ():
        since = notifier.failing_since
        told.add_metric((name,), notifier.delivered)
        failed.add_metric((name,), notifier.failed)
        waiting.add_metric((name,), notifier.waiting)
        failing.add_metric((name,), (now - since).total_seconds() if since is not None else 0.0)
    yield from (told, failed, waiting, failing)


def _exports(beat: Heartbeat | None) -> Iterator[Metric]:
    """What became of the records that the worker exports."""
    sent = CounterMetricFamily("noria_export_sent", "Records exported by the worker.", labels=("to",))
    dropped = CounterMetricFamily("noria_export_dropped", "Records that could not be exported.", labels=("to",))
    waiting = GaugeMetricFamily("noria_export_waiting", "Records that wait to be exported.", labels=("to",))
    for name, outlet in beat.telemetry.items() if beat is not None else ():
        sent.add_metric((name,), outlet.sent)
        dropped.add_metric((name,), outlet.dropped)
        waiting.add_metric((name,), outlet.waiting)
    yield from (sent, dropped, waiting)
