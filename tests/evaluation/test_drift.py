import math
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from noria.evaluation.cells import NumericBins
from noria.evaluation.drift import Drift, drift, drift_of_numbers
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
    found = drift_of_numbers(bins.count(now), bins.count(before), bins)
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
    found = drift_of_numbers(counts, counts, bins)
    assert (found.js_distance, found.tv_distance, found.l_infinity_distance) == pytest.approx((0, 0, 0))
    assert (found.wasserstein_distance, found.population_stability_index) == pytest.approx((0, 0))
    assert found.ks_test.pvalue == found.chi_squared_test.pvalue == pytest.approx(1)


@pytest.mark.parametrize(("now", "before"), [([0, 0, 0], [1, 2, 0]), ([1, 2, 0], [0, 0, 0])])
def test_a_side_without_rows_says_nothing(now, before):
    assert drift(now, before) == Drift()
    assert drift_of_numbers(now, before, NumericBins(np.array([1.0]), np.array([0.0, 2.0]))) == Drift()


def test_one_cell_and_missing_values_alone_do_not_differ():
    assert drift([5], [7]).chi_squared_test.pvalue == 1
    assert drift_of_numbers([0, 0, 4], [1, 2, 0], NumericBins(np.array([1.0]), np.array([0.0, 2.0]))).ks_test is None


def test_names_are_columns_of_the_table():
    assert set(asdict(drift(NOW, BEFORE))) <= set(DRIFT_METRICS.names)
