"""Intervals of experiments: right at every look at once, and narrow enough to be of use."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from noria.evaluation.sequential.intervals import Interval, mean, proportion, quantile, quantile_ranks


@pytest.mark.parametrize("rate", [0.02, 0.2, 0.9])
def test_the_true_rate_is_seldom_ever_outside_however_often_one_looks(rate):
    rng, alpha, outside = np.random.default_rng(1), 0.1, 0
    for _ in range(80):
        hits = (rng.random(1000) < rate).cumsum()
        looks = [proportion(int(hits[n - 1]), n, alpha) for n in range(20, 1001, 40)]
        outside += any(not found.low <= rate <= found.high for found in looks)
    assert outside / 80 <= alpha


@given(st.integers(0, 500), st.integers(0, 500), st.floats(0.001, 0.4))
def test_an_interval_holds_what_was_seen_and_is_wider_than_one_for_a_single_look(hits, more, alpha):
    total = hits + more
    found = proportion(hits, total, alpha)
    if not total:
        assert (found.low, found.high) == (0, 1)
        return
    assert 0 <= found.low <= hits / total <= found.high <= 1
    once = stats.binomtest(hits, total).proportion_ci(1 - alpha, "wilson")
    assert found.high - found.low >= 0.95 * (once.high - once.low)


def test_more_answers_narrow_it():
    widths = [proportion(n // 5, n, 0.05) for n in (50, 500, 5000)]
    assert [round(i.high - i.low, 2) for i in widths] == [0.35, 0.13, 0.04]


def test_the_mirror_image_of_a_rate_has_the_mirror_image_of_its_interval():
    one, other = proportion(3, 40, 0.05), proportion(37, 40, 0.05)
    assert one.low == pytest.approx(1 - other.high, abs=1e-9)
    assert one.high == pytest.approx(1 - other.low, abs=1e-9)


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_the_true_quantile_is_seldom_ever_outside(share):
    rng, alpha, outside = np.random.default_rng(2), 0.1, 0
    edges = [(float(n), float(n + 1)) for n in range(40)]
    truth = float(stats.expon.ppf(share) * 5)
    for _ in range(100):
        values = np.minimum(rng.exponential(5, 600), 39.5).astype(int)
        for n in range(20, 601, 20):
            found = quantile(np.bincount(values[:n], minlength=40).tolist(), edges, share, alpha)
            if not found.low <= truth <= found.high:
                outside += 1
                break
    assert outside / 100 <= alpha


def test_a_quantile_is_where_its_bin_is():
    edges = [(0.0, 1.0), (1.0, 2.0), (2.0, 4.0)]
    found = quantile([100, 800, 100], edges, 0.5, 0.05)
    assert 1 < found.value < 2
    assert (found.low, found.high) == (1.0, 2.0)
    assert math.isnan(quantile([0, 0, 0], edges, 0.5, 0.05).value)
    assert quantile([0, 0, 3], edges, 0.5, 0.05) == Interval(3.0, 0.0, math.inf)


@given(st.integers(1, 400), st.floats(0.05, 0.95))
def test_the_ranks_of_a_quantile_hold_the_expected_one(total, share):
    low, high = quantile_ranks(total, share, 0.05)
    assert 0 <= low <= round(total * share) <= high <= total


def test_the_true_mean_is_seldom_ever_outside():
    rng, alpha, outside = np.random.default_rng(3), 0.1, 0
    for _ in range(80):
        values = rng.exponential(0.01, 2000)
        sums, squares = values.cumsum(), (values**2).cumsum()
        looks = [mean(n, float(sums[n - 1]), float(squares[n - 1]), alpha) for n in range(50, 2001, 50)]
        outside += any(not found.low <= 0.01 <= found.high for found in looks)
    assert outside / 80 <= alpha


def test_few_values_say_nothing_of_a_mean():
    assert mean(10, 1.0, 0.2, 0.05) == Interval(0.1, -math.inf, math.inf)
    assert math.isnan(mean(0, 0.0, 0.0, 0.05).value)


def test_a_difference_is_true_whenever_both_are():
    found = Interval(0.5, 0.4, 0.7).minus(Interval(0.2, 0.1, 0.3))
    assert (round(found.value, 9), round(found.low, 9), round(found.high, 9)) == (0.3, 0.1, 0.6)
