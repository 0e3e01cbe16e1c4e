"""What other tools' own tests expect of the same arrays.

The figures are those that Evidently (tests/stattests/test_stattests.py) and NannyML
(tests/drift/test_univariate_drift_methods.py) hold themselves to. Where a tool asks another question than we do, the
test says which, and asks ours so that both have the same answer.
"""

import math

import numpy as np
import pytest

from noria.evaluation.cells import Categories, NumericBins
from noria.evaluation.drift import drift

DICE = (16, 18, 16, 14, 12, 12)
THROWN = (16, 16, 16, 16, 16, 8)


@pytest.mark.parametrize("times", [1, 2])
def test_evidently_takes_the_reference_for_the_truth_and_so_do_we_if_it_is_very_large(times):
    """Its chi-squared test is of one sample against fixed shares; ours knows that the reference is a sample, too."""
    reference = np.array(DICE) * times
    small, large = drift(THROWN, reference).chi_squared_test, drift(THROWN, reference * 1_000_000).chi_squared_test
    assert large.pvalue == pytest.approx(0.67309, abs=1e-5)
    assert small.pvalue > large.pvalue


def test_evidently_and_we_see_no_difference_between_equal_classes():
    found = drift([10, 10, 10], [10, 10, 10])
    assert found.chi_squared_test.pvalue == pytest.approx(1, abs=1e-5)
    assert found.js_distance == pytest.approx(0)


def chosen(rng, values, number):
    return rng.choice(values, number)


def jensen_shannon(reference, now, cells):
    """NannyML takes the logarithm to base e, we take it to base 2, so that the distance ends at 1."""
    return drift(cells.count(now), cells.count(reference), cells).js_distance * math.sqrt(math.log(2))


def test_nannymls_distance_between_equal_samples_is_ours():
    reference = np.random.RandomState(1).choice(np.linspace(0, 2, 6), 10_000)
    assert jensen_shannon(reference, reference, NumericBins.fit(reference)) == 0


def test_nannymls_distance_of_few_values_is_ours_where_each_value_is_a_class():
    """As numbers a new value, 1.0, is counted with the known one after it, 1.2; we say a little less then."""
    rng = np.random.RandomState(1)
    reference, now = chosen(rng, np.linspace(0, 2, 6), 10_000), chosen(rng, np.linspace(0, 2, 3), 1000)
    classes, classes_now = [f"{value:.1f}" for value in reference], [f"{value:.1f}" for value in now]
    assert round(jensen_shannon(classes, classes_now, Categories.fit(classes)), 2) == 0.61
    assert round(jensen_shannon(reference, now, NumericBins.fit(reference)), 2) == 0.46


def test_nannymls_distance_of_classes_is_ours():
    rng = np.random.RandomState(1)
    reference, now = chosen(rng, ["a", "b", "c", "d"], 10_000), chosen(rng, ["a", "b", "c", "e"], 1000)
    assert round(jensen_shannon(reference, now, Categories.fit(reference.tolist())), 2) == 0.42


def test_nannymls_distance_between_two_samples_of_one_bell_is_near_ours():
    """It cuts numbers into other bins, so that only the size of what is chance is the same."""
    rng = np.random.RandomState(1)
    reference, now = rng.normal(0, 1, 10_000), rng.normal(0, 1, 1000)
    assert jensen_shannon(reference, now, NumericBins.fit(reference)) == pytest.approx(0.04, abs=0.01)
