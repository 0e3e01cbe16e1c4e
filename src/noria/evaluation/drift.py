"""The effect sizes that people know, on counts: they say how much changed and never alarm (`sequential.py` does).

Names are the columns of the `drift_metrics` table. All compare shares over the same cells; a side without rows gives a
row that says nothing.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.special import rel_entr

from noria.evaluation.cells import Floats, NumericBins


@dataclass(frozen=True, slots=True)
class Test:
    """A classical test's statistic and p-value, which holds for one look only."""

    __test__ = False

    statistic: float
    pvalue: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How far two samples are apart; None where a measure has no meaning.

    Attributes:
        js_distance: Jensen-Shannon distance, base 2: the square root of the divergence, 0 to 1.
        ks_test: Two-sample Kolmogorov-Smirnov over the cells' edges; for numbers.
        wasserstein_distance: Earth mover's distance between the cells' centres, in units of the column; for numbers.
        population_stability_index: Sum of (p - q) ln(p / q); half a row is added to every cell on both sides.
        chi_squared_test: Two-sample Pearson test over the cells that hold rows on either side, uncorrected.
        tv_distance: Total variation, half the sum of |p - q|, 0 to 1.
        l_infinity_distance: Largest |p - q|, 0 to 1.
    """

    js_distance: float | None = None
    ks_test: Test | None = None
    wasserstein_distance: float | None = None
    population_stability_index: float | None = None
    chi_squared_test: Test | None = None
    tv_distance: float | None = None
    l_infinity_distance: float | None = None


def drift(now: ArrayLike, before: ArrayLike) -> Drift:
    """Compare counts over the same cells, in any order of the cells.

    Args:
        now: Rows in each cell, shape (K,).
        before: Rows of the reference in each cell, shape (K,).
    """
    new, old = np.asarray(now, float), np.asarray(before, float)
    if not new.sum() or not old.sum():
        return Drift()
    p, q = new / new.sum(), old / old.sum()
    return Drift(
        js_distance=_jensen_shannon(p, q),
        population_stability_index=_stability(new, old),
        chi_squared_test=_chi_squared(new, old),
        tv_distance=float(np.abs(p - q).sum() / 2),
        l_infinity_distance=float(np.abs(p - q).max()),
    )


def drift_of_numbers(now: ArrayLike, before: ArrayLike, bins: NumericBins) -> Drift:
    """Compare counts over bins of numbers: what `drift` says, and the two measures that need an order.

    Both are exact for values that lie on the bins' centres, and leave out what is missing.
    """
    found = drift(now, before)
    new, old = np.asarray(now, float)[:-1], np.asarray(before, float)[:-1]
    if not new.sum() or not old.sum():
        return found
    gap = (new / new.sum()).cumsum() - (old / old.sum()).cumsum()
    distance = float(np.abs(gap[:-1] * np.diff(bins.centres)).sum())
    return replace(found, ks_test=_kolmogorov_smirnov(gap, new.sum(), old.sum()), wasserstein_distance=distance)


def _jensen_shannon(p: Floats, q: Floats) -> float:
    middle = (p + q) / 2
    divergence = (rel_entr(p, middle).sum() + rel_entr(q, middle).sum()) / 2
    return float(np.sqrt(max(divergence, 0.0) / np.log(2)))


def _stability(new: Floats, old: Floats) -> float:
    p, q = (new + 0.5) / (new + 0.5).sum(), (old + 0.5) / (old + 0.5).sum()
    return float(((p - q) * np.log(p / q)).sum())


def _chi_squared(new: Floats, old: Floats) -> Test:
    both = np.stack([new, old])[:, new + old > 0]
    expected = both.sum(axis=1, keepdims=True) * both.sum(axis=0) / both.sum()
    statistic = float(((both - expected) ** 2 / expected).sum())
    free = both.shape[1] - 1
    return Test(statistic, float(stats.chi2.sf(statistic, free)) if free else 1.0)


def _kolmogorov_smirnov(gap: Floats, new: float, old: float) -> Test:
    statistic = float(min(np.abs(gap).max(), 1.0))
    return Test(statistic, float(np.clip(stats.kstwo.sf(statistic, np.round(new * old / (new + old))), 0, 1)))
