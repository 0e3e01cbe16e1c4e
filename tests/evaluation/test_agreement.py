import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from noria.domain.errors import InvalidData
from noria.evaluation.agreement import agreement, cohen_kappa

SCORES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=50)


@given(SCORES)
def test_kappa_agrees_with_scikit_learn_and_lies_in_its_interval(pairs) -> None:
    first, second = [p for p, _ in pairs], [q for _, q in pairs]
    found = agreement(first, second)
    good, too = [p >= 0.5 for p in first], [q >= 0.5 for q in second]
    assert found.share == pytest.approx(np.mean(np.equal(good, too)))
    if len({*good, *too}) == 1:
        assert math.isnan(found.kappa)  # both say one thing only: chance explains everything
        return
    assert found.kappa == pytest.approx(cohen_kappa_score(good, too), abs=1e-12)
    assert found.kappa_interval.low - 1e-12 <= found.kappa <= found.kappa_interval.high + 1e-12


def test_the_standard_error_is_the_published_one() -> None:
    """Fleiss, Cohen & Everitt 1969, as Fleiss' textbook works it out: 100 subjects in three classes."""
    table = [[75, 1, 4], [5, 4, 1], [0, 0, 10]]
    kappa, interval = cohen_kappa(table)
    assert round(kappa, 2) == 0.68
    assert (interval.high - interval.low) / 2 / 1.96 == pytest.approx(0.087, abs=0.001)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    truth = np.array([[0.35, 0.10], [0.15, 0.40]])
    right = cohen_kappa(truth * 1e9)[0]
    held = 0
    for _ in range(500):
        _, interval = cohen_kappa(rng.multinomial(200, truth.ravel()).reshape(2, 2))
        held += interval.low <= right <= interval.high
    assert 0.92 <= held / 500 <= 0.98


def test_scores_are_correlated_where_both_vary() -> None:
    assert agreement([0.1, 0.5, 0.9], [0.2, 0.4, 0.6]).correlation == pytest.approx(1)
    assert math.isnan(agreement([0.5, 0.5], [0.1, 0.9]).correlation)


def test_nothing_in_common_is_said_to_be_nothing() -> None:
    found = agreement([], [])
    assert (found.pairs, found.agreed) == (0, 0)
    assert all(math.isnan(n) for n in (found.share, found.kappa, found.correlation, found.kappa_interval.low))
    with pytest.raises(InvalidData, match="compared"):
        agreement([1.0], [])
