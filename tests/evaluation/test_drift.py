import math
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from noria.evaluation.cells import Categories, NumericBins, ScoreGrid
from noria.evaluation.drift import Drift, deltas, drift, drift_row, table_deltas
from noria.evaluation.states import ColumnState
from noria.tables import DRIFT_METRICS

NOW, BEFORE = np.array([30, 10, 0, 60]), np.array([20, 40, 0, 40])


def test_measures_agree_with_scipy():
    found = drift(NOW, BEFORE)
    table = np.stack([NOW, BEFORE])[:, [0, 1, 3]]
    expected = stats.chi2_contingency(table, correction=False)
    assert found.chi_squared_test.statistic == pytest.approx(expected.statistic)
    assert found.chi_squared_test.pvalue == pytest.approx(expected.pvalue)
    assert found.js_distance == pytest.approx(jensenshannon(NOW, BEFORE, base=2))
    assert found.tv_distance == pytest.approx(0.3)
    assert found.l_infinity_distance == pytest.approx(0.3)


def test_measures_that_need_an_order_agree_with_scipy_on_the_centres():
    rng = np.random.default_rng(0)
    before, now = rng.gamma(3, 10, size=500), rng.gamma(4, 10, size=300)
    bins = NumericBins.fit(before)
    found = drift(bins.count(now), bins.count(before), bins)
    placed_now, placed_before = bins.centres[bins.assign(now)], bins.centres[bins.assign(before)]
    expected = stats.ks_2samp(placed_now, placed_before, method="asymp")
    assert found.ks_test.statistic == pytest.approx(expected.statistic)
    assert found.ks_test.pvalue == pytest.approx(expected.pvalue)
    assert found.wasserstein_distance == pytest.approx(stats.wasserstein_distance(placed_now, placed_before))
    assert found.wasserstein_distance == pytest.approx(stats.wasserstein_distance(now, before), rel=0.35)


def test_the_stability_index_is_finite_with_empty_cells_and_symmetric():
    assert drift([10, 0], [0, 10]).population_stability_index == pytest.approx(2 * 10 / 11 * math.log(21))
    assert drift(NOW, BEFORE).population_stability_index == pytest.approx(drift(BEFORE, NOW).population_stability_index)


def test_equal_samples_do_not_differ():
    bins = NumericBins.fit(range(100))
    counts = bins.count(range(100))
    found = drift(counts, counts, bins)
    assert (found.js_distance, found.tv_distance, found.l_infinity_distance) == pytest.approx((0, 0, 0))
    assert (found.wasserstein_distance, found.population_stability_index) == pytest.approx((0, 0))
    assert found.ks_test.pvalue == found.chi_squared_test.pvalue == pytest.approx(1)


@pytest.mark.parametrize(("now", "before"), [([0, 0, 0], [1, 2, 0]), ([1, 2, 0], [0, 0, 0])])
def test_a_side_without_rows_says_nothing(now, before):
    assert drift(now, before) == Drift()
    assert drift(now, before, NumericBins(np.array([1.0]), np.array([0.0, 2.0]))) == Drift()


def test_one_cell_and_missing_values_alone_do_not_differ():
    assert drift([5], [7]).chi_squared_test.pvalue == 1
    assert drift([0, 0, 4], [1, 2, 0], NumericBins(np.array([1.0]), np.array([0.0, 2.0]))).ks_test is None


COUNTS = st.integers(0, 3) | st.integers(0, 1000)


@settings(max_examples=2000, deadline=None)
@given(st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=30))
def test_measures_of_any_counts_agree_with_scipy_and_numpy(pairs):
    now, before = np.array(pairs).T
    assume(now.sum() and before.sum())
    found, p, q = drift(now, before), now / now.sum(), before / before.sum()
    assert found.js_distance == pytest.approx(jensenshannon(now, before, base=2), abs=1e-7)
    assert found.tv_distance == pytest.approx(np.abs(p - q).sum() / 2)
    assert found.l_infinity_distance == pytest.approx(np.abs(p - q).max())
    full = np.stack([now, before])[:, now + before > 0]
    expected = stats.chi2_contingency(full, correction=False)
    assert found.chi_squared_test.statistic == pytest.approx(expected.statistic, abs=1e-9)
    assert found.chi_squared_test.pvalue == pytest.approx(expected.pvalue, abs=1e-12)
    a, b = (now + 0.5) / (now + 0.5).sum(), (before + 0.5) / (before + 0.5).sum()
    assert found.population_stability_index == pytest.approx(stats.entropy(a, b) + stats.entropy(b, a), abs=1e-12)


@settings(max_examples=2000, deadline=None)
@given(st.lists(st.tuples(COUNTS, COUNTS), min_size=2, max_size=20), st.integers(0, 2**32))
def test_measures_of_ordered_cells_agree_with_scipy(pairs, seed):
    now, before = np.array(pairs).T
    assume(min(now.sum(), before.sum()) > 1)
    centres = np.sort(np.random.default_rng(seed).normal(size=len(now)))
    bins = NumericBins((centres[1:] + centres[:-1]) / 2, centres)
    found = drift(np.append(now, 3), np.append(before, 5), bins)
    expected = stats.ks_2samp(np.repeat(centres, now), np.repeat(centres, before), method="asymp")
    assert found.ks_test.statistic == pytest.approx(expected.statistic, abs=1e-12)
    assert found.ks_test.pvalue == pytest.approx(expected.pvalue, rel=1e-3, abs=1e-4)
    distance = stats.wasserstein_distance(centres, centres, now, before)
    assert found.wasserstein_distance == pytest.approx(distance, abs=1e-9)


def test_scores_have_an_order_too():
    grid = ScoreGrid()
    now, before = [0.1] * 3 + [0.9], [0.5, 0.5]
    found = drift(grid.count(now), grid.count(before), grid)
    assert found.wasserstein_distance == pytest.approx(stats.wasserstein_distance(now, before))
    assert found.ks_test.statistic == stats.ks_2samp(now, before).statistic


# --- of states


def test_a_row_says_what_moved_between_two_states():
    bins = NumericBins.fit(range(100))
    before = ColumnState.of("n", pa.array([0.0, 1.0, 2.0, None]), bins)
    now = ColumnState.of("n", pa.array([0.0, 0.0, 8.0, 8.0, 9.0]), bins)
    row = drift_row(now, before, bins)
    assert (row["count_delta"], row["avg_delta"], row["percent_null_delta"]) == (1, 4, -25)
    assert (row["percent_zeros_delta"], row["percent_distinct_delta"]) == (40 - 25, 60 - 75)
    assert row["js_distance"] == drift(now.cells, before.cells, bins).js_distance
    assert row["ks_test"].keys() == {"statistic", "pvalue"}
    assert pa.Table.from_pylist([row], schema=DRIFT_METRICS).num_rows == 1


def test_the_table_row_counts_columns_that_came_and_went():
    now = [ColumnState.of("a", pa.array([1])), ColumnState.of("b", pa.nulls(1)), ColumnState.of("c", pa.array(["x"]))]
    before = [ColumnState.of("a", pa.array([2])), ColumnState.of("b", pa.array([2]))]
    row = table_deltas(now, before, 7, 9)
    assert row == {"count_delta": -2, "non_null_columns_delta": {"added": 1, "missing": 1}}


POOR = {
    "empty": pa.array([], pa.float64()),
    "one": pa.array([1.0]),
    "null": pa.nulls(5),
    "nan": pa.array([math.nan, math.nan]),
    "infinite": pa.array([math.inf, -math.inf, math.inf]),
    "constant": pa.array([3.0] * 9),
    "huge": pa.array([1.7e308, -1.7e308]),
    "text": pa.array(["x", "你好", "مرحبا", "😀"]),
    "bool": pa.array([True, None]),
}


@pytest.mark.parametrize("before", POOR)
@pytest.mark.parametrize("now", POOR)
def test_any_poor_column_against_any_other_is_a_row(now, before):
    for cells in (NumericBins.fit(POOR[before]), Categories.fit(POOR[before]), ScoreGrid(), None):
        one, other = ColumnState.of("c", POOR[now], cells), ColumnState.of("c", POOR[before], cells)
        row = drift_row(one, other, cells)
        assert row["count_delta"] == len(POOR[now]) - len(POOR[before])
        for value in row.values():
            assert not isinstance(value, float) or not math.isnan(value)
        assert pa.Table.from_pylist([row], schema=DRIFT_METRICS).num_rows == 1


def test_a_side_without_rows_has_no_shares_to_compare():
    row = deltas(ColumnState(name="n", count=0), ColumnState.of("n", pa.array([1.0])))
    assert row == {"count_delta": -1}


def test_names_are_columns_of_the_table():
    assert set(asdict(drift(NOW, BEFORE))) <= set(DRIFT_METRICS.names)
