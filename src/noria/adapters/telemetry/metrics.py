"""The conventions' histograms, counted from records in plain numbers and exported at intervals.

The SDK's instruments cost 43 µs a record, more than shipping it; this costs 2.5. What an exporter did not take
is in its next export.
"""

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from noria.adapters.telemetry import genai
from noria.adapters.telemetry.genai import Places
from noria.adapters.telemetry.outlet import Record
from noria.domain.inference import Intent, Outcome, OutcomeKind

SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS: Final = tuple(float(4**power) for power in range(14))
FIRST_TOKEN_SECONDS: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
TOKEN_SECONDS: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
"""Bucket boundaries as the conventions give them."""
MOST_SERIES: Final = 2000
"""Series of one metric; what would be one more is left out. All labels come from the project and the registry."""
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """A metric.

    Attributes:
        name: In the conventions.
        unit: In UCUM.
        description: For people.
        bounds: Of its buckets.
    """

    name: str
    unit: str
    description: str
    bounds: tuple[float, ...]


DURATION: Final = Kind("gen_ai.client.operation.duration", "s", "From a request's arrival to its last byte.", SECONDS)
USAGE: Final = Kind("gen_ai.client.token.usage", "{token}", "Tokens of a request and of its answer.", TOKENS)
FIRST: Final = Kind("gen_ai.server.time_to_first_token", "s", "To the first streamed content.", FIRST_TOKEN_SECONDS)
EACH: Final = Kind(
    "gen_ai.server.time_per_output_token", "s", "Of a stream, for each token after the first.", TOKEN_SECONDS
)
KINDS: Final = (DURATION, USAGE, FIRST, EACH)

Counted = dict[str, dict[Key, "Series"]]
"""Metric → key → series."""
log = logging.getLogger("noria.telemetry")


@dataclass(slots=True)
class Series:
    """One series: attributes and what was counted."""

    attributes: Mapping[str, genai.Value]
    buckets: list[int]
    sum: float = 0.0
    least: float = float("inf")
    most: float = float("-inf")

    def add(self, bounds: Sequence[float], value: float) -> None:
        """Count a value; a bucket holds its upper bound."""
        self.buckets[bisect_left(bounds, value)] += 1
        self.sum += value
        if value < self.least:
            self.least = value
        if value > self.most:
            self.most = value

    def merge(self, other: "Series") -> None:
        """Count what another series has counted."""
        self.buckets = [mine + its for mine, its in zip(self.buckets, other.buckets, strict=True)]
        self.sum += other.sum
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)


class Histograms:
    """Counts records for one exporter, and exports what was counted in a thread of its own.

    Args:
        places: Who runs the models.
        sender: Who sends.
        scope: In whose name.
        exporter: Whom it goes to; says whether he wants the sums or what is new.
        every_s: Between two exports, seconds.
    """

    def __init__(
        self, places: Places, sender: Resource, scope: InstrumentationScope, exporter: MetricExporter, every_s: float
    ) -> None:
        self._places, self._sender, self._scope = places, sender, scope
        self._exporter, self._every_s = exporter, every_s
        wanted = exporter._preferred_temporality or {}  # where the SDK's own reader looks
        self._temporality = wanted.get(HistogramInstrument, AggregationTemporality.CUMULATIVE)
        self._since_ns = time.time_ns()
        self._counted = _nothing()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry-histograms", daemon=True)
        self._thread.start()

    def send(self, records: list[Record]) -> str:
        """Count records in; always taken."""
        with self._lock:
            for intent, outcome in records:
                self._count(intent, outcome)
        return ""

    def close(self, timeout_s: float) -> None:
        """Export once more, and let go of the exporter."""
        self._closing.set()
        self._thread.join(timeout_s)
        self._exporter.shutdown()

    def _run(self) -> None:
        while not self._closing.wait(self._every_s):
            self._export()
        self._export()

    def _count(self, intent: Intent, outcome: Outcome) -> None:
        doing = genai.operation(self._places, intent, outcome, genai.sent(intent.request))
        error = "" if outcome.kind is OutcomeKind.ANSWERED else (*outcome.errors, outcome.kind.value)[0]
        model, version = outcome.model or intent.model, outcome.version or intent.version
        key = (doing, intent.endpoint, model, version, intent.role.value, error)
        self._add(DURATION, key, outcome.duration_us / 1e6, intent, outcome)
        if outcome.input_tokens is not None:
            self._add(USAGE, (*key, "input"), outcome.input_tokens, intent, outcome)
        if outcome.output_tokens is not None:
            self._add(USAGE, (*key, "output"), outcome.output_tokens, intent, outcome)
        if outcome.ttft_us is not None:
            self._add(FIRST, key, outcome.ttft_us / 1e6, intent, outcome)
            if outcome.output_tokens is not None and outcome.output_tokens > 1:
                rest_s = (outcome.duration_us - outcome.ttft_us) / 1e6
                self._add(EACH, key, rest_s / (outcome.output_tokens - 1), intent, outcome)

    def _add(self, kind: Kind, key: Key, value: float, intent: Intent, outcome: Outcome) -> None:
        counted = self._counted[kind.name]
        series = counted.get(key)
        if series is None:
            if len(counted) >= MOST_SERIES:
                return
            attributes = genai.dimensions(self._places, intent, outcome, key[0])
            if kind is USAGE:
                attributes[genai.TOKEN_TYPE] = key[-1]
            series = counted[key] = Series(attributes, [0] * (len(kind.bounds) + 1))
        series.add(kind.bounds, value)

    def _export(self) -> None:
        """Send what was counted. Sums stay; what is new is counted on from nothing, unless it isn't taken."""
        now_ns, new = time.time_ns(), self._temporality is AggregationTemporality.DELTA
        with self._lock:
            counted = self._counted
            metrics = [self._metric(kind, counted[kind.name], now_ns) for kind in KINDS if counted[kind.name]]
            if new:
                self._counted = _nothing()
        if not metrics:
            return
        data = MetricsData([ResourceMetrics(self._sender, [ScopeMetrics(self._scope, metrics, "")], "")])
        try:
            taken = self._exporter.export(data) is MetricExportResult.SUCCESS
        except Exception:  # an exporter's fault must not end the thread
            log.exception("metrics can't be exported")
            taken = False
        if new and taken:
            self._since_ns = now_ns
        elif new:
            self._take_back(counted)

    def _take_back(self, counted: Counted) -> None:
        """Put what nobody took to what was counted meanwhile."""
        with self._lock:
            for name, before in counted.items():
                for key, series in self._counted[name].items():
                    if key in before:
                        before[key].merge(series)
                    else:
                        before[key] = series
            self._counted = counted

    def _metric(self, kind: Kind, counted: Mapping[Key, Series], now_ns: int) -> Metric:
        points = [
            HistogramDataPoint(
                attributes=series.attributes,
                start_time_unix_nano=self._since_ns,
                time_unix_nano=now_ns,
                count=sum(series.buckets),
                sum=series.sum,
                bucket_counts=list(series.buckets),
                explicit_bounds=kind.bounds,
                min=series.least,
                max=series.most,
            )
            for series in counted.values()
        ]
        return Metric(kind.name, kind.description, kind.unit, Histogram(points, self._temporality))


def _nothing() -> Counted:
    return {kind.name: {} for kind in KINDS}
