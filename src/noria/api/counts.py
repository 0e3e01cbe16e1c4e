"""What one API process counts of its requests, in plain numbers: a microsecond a request, and a page when it is asked.

The client library's own counters cost ten: a lock and a search for the labels each time. Here one search finds a
version's whole row. Only the event loop counts; whoever collects, in any thread, sees each number as it is then.
"""

import platform
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from noria.domain.inference import Intent, Outcome

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the buckets that durations are counted in."""
_BOUNDS_US: Final = [round(seconds * 1e6) for seconds in SECONDS]
_NAMES: Final = (*(str(seconds) for seconds in SECONDS), "+Inf")
SERVED: Final = ("endpoint", "model", "version", "route")
"""Labels of what is counted for each version."""
Labels = tuple[str, ...]
_FALLBACK: Final = "fallback_from_"


class Durations:
    """A histogram of microseconds."""

    __slots__ = ("buckets", "sum_us")

    def __init__(self) -> None:
        self.buckets = [0] * len(_NAMES)
        self.sum_us = 0

    def add(self, microseconds: int) -> None:
        """Count one."""
        self.buckets[bisect_left(_BOUNDS_US, microseconds)] += 1
        self.sum_us += microseconds


class Row:
    """All that is counted of one version in one role."""

    __slots__ = ("cost_usd", "duration", "ended", "first_token", "hits", "input_tokens", "output_tokens", "tries")

    def __init__(self) -> None:
        self.ended: dict[tuple[str, int], int] = {}
        self.duration, self.first_token = Durations(), Durations()
        self.input_tokens = self.output_tokens = self.tries = self.hits = 0
        self.cost_usd = 0.0


class Counts(Collector):
    """The counts of one process."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str, str], Row] = {}
        self._in_flight: dict[str, int] = {}
        self._errors: Tally[tuple[str, str]] = Tally()
        self._fallbacks: Tally[tuple[str, str]] = Tally()
        self._dropped: Tally[tuple[str]] = Tally()
        self._turned_away: Tally[tuple[str]] = Tally()
        self._log_refused: Tally[tuple[str]] = Tally()
        self.streams: Callable[[], int] = lambda: 0
        """Streams under way."""
        self.breakers: Callable[[], Mapping[str, str]] = dict
        """`model/version` → how its circuit breaker stands."""

    def started(self, endpoint: str) -> None:
        """A request was taken."""
        self._in_flight[endpoint] = self._in_flight.get(endpoint, 0) + 1

    def finished(self, intent: Intent, outcome: Outcome) -> None:
        """A request ended."""
        self._in_flight[intent.endpoint] -= 1
        key = (intent.endpoint, outcome.model or intent.model, outcome.version or intent.version, intent.role)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = Row()
        end = (outcome.kind, outcome.status)
        row.ended[end] = row.ended.get(end, 0) + 1
        row.duration.add(outcome.duration_us)
        row.tries += outcome.tries
        if outcome.ttft_us is not None:
            row.first_token.add(outcome.ttft_us)
        if outcome.input_tokens:
            row.input_tokens += outcome.input_tokens
        if outcome.output_tokens:
            row.output_tokens += outcome.output_tokens
        if outcome.cost_usd:
            row.cost_usd += outcome.cost_usd
        if outcome.cache_hit:
            row.hits += 1
        for code in outcome.errors:
            if code.startswith(_FALLBACK):
                self._fallbacks[code.removeprefix(_FALLBACK), key[1]] += 1
            else:
                self._errors[intent.endpoint, code] += 1

    def shadow_dropped(self, endpoint: str) -> None:
        """A shadow copy was not made, because too many were under way."""
        self._dropped[(endpoint,)] += 1

    def turned_away(self, reason: str) -> None:
        """A request came without a key, or with one that opens nothing here."""
        self._turned_away[(reason,)] += 1

    def log_refused(self, entry: str) -> None:
        """The log took no `intent`, or no `outcome`."""
        self._log_refused[(entry,)] += 1

    def collect(self) -> Iterator[Metric]:
        """The counts as they are now."""
        yield from self._of_rows()
        yield _gauge(
            "noria_requests_in_flight",
            "Requests under way.",
            ("endpoint",),
            {(endpoint,): count for endpoint, count in list(self._in_flight.items())},
        )
        yield _gauge("noria_streams_in_flight", "Streams under way.", (), {(): self.streams()})
        states = {(*ref.rsplit("/", 1), str(state)): 1 for ref, state in self.breakers().items()}
        yield _gauge(
            "noria_breaker_state",
            "API processes in which a version's circuit breaker stands so.",
            ("model", "version", "state"),
            states,
        )
        for name, text, labels, tally in (
            ("noria_errors", "Reasons of requests that were not answered at once.", ("endpoint", "code"), self._errors),
            ("noria_fallbacks", "Requests that went on to another model.", ("endpoint", "model"), self._fallbacks),
            ("noria_shadow_dropped", "Shadow copies that were not made.", ("endpoint",), self._dropped),
            ("noria_unauthenticated", "Requests refused for want of a valid key.", ("reason",), self._turned_away),
            ("noria_log_refused", "Entries that the log did not take.", ("entry",), self._log_refused),
        ):
            yield _counter(name, text, labels, dict(list(tally.items())))
        yield _gauge(
            "noria_build_info",
            "API processes by version.",
            ("version", "python"),
            {(version("noria"), platform.python_version()): 1},
        )

    def _of_rows(self) -> Iterator[Metric]:
        rows = list(self._rows.items())
        ended: dict[Labels, float] = {
            (*key, outcome, str(status)): count
            for key, row in rows
            for (outcome, status), count in list(row.ended.items())
        }
        yield _counter("noria_requests", "Requests that ended.", (*SERVED, "outcome", "status"), ended)
        yield _histogram(
            "noria_request_duration_seconds",
            "From arrival to the last byte.",
            {key: row.duration for key, row in rows},
        )
        yield _histogram(
            "noria_time_to_first_token_seconds",
            "From arrival to the first streamed content.",
            {key: row.first_token for key, row in rows if any(row.first_token.buckets)},
        )
        tokens: dict[Labels, float] = {(*key, "input"): row.input_tokens for key, row in rows if row.input_tokens}
        tokens |= {(*key, "output"): row.output_tokens for key, row in rows if row.output_tokens}
        yield _counter("noria_tokens", "Tokens, as model servers counted them.", (*SERVED, "direction"), tokens)
        for name, text, values in (
            ("noria_cost_usd", "What tokens cost, where a price is known.", {k: r.cost_usd for k, r in rows}),
            ("noria_cache_hits", "Answers from memory.", {k: r.hits for k, r in rows}),
            ("noria_tries", "Requests sent to model servers.", {k: r.tries for k, r in rows}),
        ):
            yield _counter(name, text, SERVED, {key: value for key, value in values.items() if value})


def _counter(name: str, text: str, labels: tuple[str, ...], values: Mapping[Labels, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Mapping[Labels, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(name: str, text: str, values: Mapping[Labels, Durations]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=SERVED)
    for key, durations in values.items():
        sums: Iterable[int] = accumulate(list(durations.buckets))
        family.add_metric(key, list(zip(_NAMES, sums, strict=True)), durations.sum_us / 1e6)
    return family
