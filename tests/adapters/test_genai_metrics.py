"""The conventions' histograms: what an exporter gets, also one that refuses now and then."""

import logging
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExporter, MetricExportResult

from fakes.entries import intent, outcome
from noria.adapters.telemetry.genai import Places
from noria.adapters.telemetry.metrics import DURATION, MOST_SERIES, Histograms, Series
from noria.adapters.telemetry.opentelemetry import SCOPE, Resource
from noria.projectfile import parse_project

YAML = "project: shop\nendpoints: {triage: {task: classification, policy: p.yaml, training: {data: d.csv}}}"
PLACES = Places(parse_project(YAML, Path("/nowhere")).project)


class Exporter(MetricExporter):
    """Takes exports, or not, as it is told; keeps the points that it took."""

    def __init__(self, temporality: AggregationTemporality, refuses: tuple[int, ...] = ()) -> None:
        super().__init__({HistogramInstrument: temporality})
        self.refuses, self.asked, self.took, self.shut = refuses, 0, [], False
        self.came = threading.Event()

    def export(self, metrics_data, timeout_millis=10_000, **_):
        self.asked += 1
        self.came.set()
        if self.asked in self.refuses:
            return MetricExportResult.FAILURE
        metrics = metrics_data.resource_metrics[0].scope_metrics[0].metrics
        self.took.append({m.name: list(m.data.data_points) for m in metrics})
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis=10_000):
        return True

    def shutdown(self, timeout_millis=30_000, **_):
        self.shut = True

    def durations(self) -> list[int]:
        return [sum(p.count for p in points.get(DURATION.name, ())) for points in self.took]


def histograms(exporter: Exporter) -> Histograms:
    return Histograms(PLACES, Resource({}), SCOPE, exporter, 3600)


def lasting(milliseconds: int, n: int = 1, **changes):
    return intent(n, **changes), outcome(n, duration_us=milliseconds * 1000)


def test_sums_are_all_that_was_ever_counted():
    exporter = Exporter(AggregationTemporality.CUMULATIVE, refuses=(2,))
    one = histograms(exporter)
    for milliseconds in (100, 200, 300):
        one.send([lasting(milliseconds)])
        one._export()
    one.close(10)
    assert exporter.durations() == [1, 3, 3]
    (last,) = exporter.took[-1][DURATION.name]
    assert (last.sum, last.min, last.max) == (pytest.approx(0.6), 0.1, 0.3)
    assert exporter.took[0][DURATION.name][0].start_time_unix_nano == last.start_time_unix_nano
    assert exporter.shut


def test_what_is_new_is_counted_once_and_what_was_refused_comes_with_the_next():
    exporter = Exporter(AggregationTemporality.DELTA, refuses=(2,))
    one = histograms(exporter)
    for milliseconds in (100, 200, 300):
        one.send([lasting(milliseconds)])
        one._export()
    one.close(10)
    assert exporter.durations() == [1, 2]
    first, second = (took[DURATION.name][0] for took in exporter.took)
    assert (second.sum, second.min, second.max) == (pytest.approx(0.5), 0.2, 0.3)
    assert second.start_time_unix_nano == first.time_unix_nano


def test_an_exporter_that_breaks_does_not_end_the_thread(caplog):
    exporter = Exporter(AggregationTemporality.DELTA)
    exporter.export = lambda *_, **__: 1 / 0
    one = histograms(exporter)
    one.send([lasting(100)])
    with caplog.at_level(logging.CRITICAL):
        one._export()
    del exporter.export
    one.close(10)
    assert exporter.durations() == [1]


def test_nothing_is_sent_while_nothing_was_counted():
    exporter = Exporter(AggregationTemporality.CUMULATIVE)
    histograms(exporter).close(10)
    assert exporter.asked == 0


def test_it_is_sent_at_intervals():
    exporter = Exporter(AggregationTemporality.CUMULATIVE)
    one = Histograms(PLACES, Resource({}), SCOPE, exporter, 0.01)
    one.send([lasting(100)])
    assert exporter.came.wait(30)
    one.close(10)


def test_the_number_of_series_is_bounded():
    exporter = Exporter(AggregationTemporality.CUMULATIVE)
    one = histograms(exporter)
    one.send([lasting(1, n, version=str(n)) for n in range(MOST_SERIES + 50)])
    one.close(10)
    assert len(exporter.took[-1][DURATION.name]) == MOST_SERIES


@given(st.lists(st.integers(0, 10**6), max_size=30), st.lists(st.integers(0, 10**6), max_size=30))
def test_counted_apart_and_merged_is_counted_together(some, others):
    def counted(values) -> Series:
        series = Series({}, [0] * (len(DURATION.bounds) + 1))
        for value in values:
            series.add(DURATION.bounds, value)
        return series

    one = counted(some)
    one.merge(counted(others))
    assert one == counted([*some, *others])


@given(st.floats(0, 200, allow_nan=False))
def test_a_bucket_holds_its_upper_bound(seconds):
    series = Series({}, [0] * (len(DURATION.bounds) + 1))
    series.add(DURATION.bounds, seconds)
    place = series.buckets.index(1)
    assert place == len(DURATION.bounds) or seconds <= DURATION.bounds[place]
    assert place == 0 or seconds > DURATION.bounds[place - 1]
