"""The effect sizes that people know, on counts: they say how much changed and never alarm (`sequential.py` does).

Names are the columns of the `drift_metrics` table. All compare shares over the same cells; a side without rows gives a
row that says nothing.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.special import chdtrc, kolmogorov, rel_entr

from noria.evaluation.arrays import NUMBER, Floats
from noria.evaluation.cells import Cells, NumericBins, ScoreGrid
from noria.evaluation.profile import Row, non_null_columns, percent, percent_distinct
from noria.evaluation.states import ColumnState

_MANY = 2000
"""Rows beyond which the expansion is as good as the law itself, which takes up to half a second."""


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


def drift_row(now: ColumnState, before: ColumnState, cells: Cells | None = None) -> Row:
    """The columns of `drift_metrics` that compare two states of one column: what moved, and how far apart they are.

    Args:
        now: The window's.
        before: The reference's or an earlier window's.
        cells: What both were counted in; None if they were not, or not in the same.
    """
    sizes = Drift() if cells is None else drift(now.cells, before.cells, cells)
    return deltas(now, before) | asdict(sizes)


def deltas(now: ColumnState, before: ColumnState) -> Row:
    """Differences of what both profiles say, now minus before; null where one of them says nothing.

    Percentages are of a state's rows: a side without rows has none.
    """
    row: Row = {"count_delta": now.count - before.count}
    if now.finite and before.finite:
        row["avg_delta"] = now.mean - before.mean
    if not now.count or not before.count:
        return row
    row["percent_null_delta"] = percent(now.nulls, now.count) - percent(before.nulls, before.count)
    row["percent_distinct_delta"] = percent_distinct(now) - percent_distinct(before)
    if now.data_type == before.data_type == NUMBER:
        row["percent_zeros_delta"] = percent(now.zeros, now.count) - percent(before.zeros, before.count)
    return row


def table_deltas(now: Iterable[ColumnState], before: Iterable[ColumnState], rows: int, rows_before: int) -> Row:
    """The row `:table`: how many rows more, and how many columns began or ceased to hold anything."""
    held, held_before = set(non_null_columns(now)), set(non_null_columns(before))
    change = {"added": len(held - held_before), "missing": len(held_before - held)}
    return {"count_delta": rows - rows_before, "non_null_columns_delta": change}


def drift(now: ArrayLike, before: ArrayLike, cells: Cells | None = None) -> Drift:
    """Compare counts over the same cells.

    Where the cells are numbers in order, the measures that need an order are there, too: exact for values that lie on
    the cells' centres, and without what is missing.

    Args:
        now: Rows in each cell, shape (K,).
        before: Rows of the reference in each cell, shape (K,).
        cells: What they are; None for cells without an order.
    """
    new, old = np.asarray(now, float), np.asarray(before, float)
    if new.shape != old.shape or not new.sum() or not old.sum():
        return Drift()
    p, q = new / new.sum(), old / old.sum()
    found = Drift(
        js_distance=_jensen_shannon(p, q),
        population_stability_index=_stability(new, old),
        chi_squared_test=_chi_squared(new, old),
        tv_distance=float(np.abs(p - q).sum() / 2),
        l_infinity_distance=float(np.abs(p - q).max()),
    )
    if isinstance(cells, NumericBins):
        return _in_order(found, new[:-1], old[:-1], cells.centres)
    return _in_order(found, new, old, cells.values) if isinstance(cells, ScoreGrid) else found


def _in_order(found: Drift, new: Floats, old: Floats, centres: Floats) -> Drift:
    if not new.sum() or not old.sum():
        return found
    gap = (new / new.sum()).cumsum() - (old / old.sum()).cumsum()
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.where(gap[:-1] == 0, 0, np.abs(gap[:-1] * np.diff(centres)))
    distance = float(steps.sum()) if np.isfinite(steps).all() else None
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
    return Test(statistic, float(chdtrc(free, statistic)) if free else 1.0)


def _kolmogorov_smirnov(gap: Floats, new: float, old: float) -> Test:
    """The p-value is that of scipy's `asymp`; of very many rows by the same law's expansion (Vrbik 2018)."""
    statistic, size = float(min(np.abs(gap).max(), 1.0)), round(new * old / (new + old))
    if size > _MANY:
        root = np.sqrt(size)
        scaled = statistic * root + 1 / (6 * root) + (statistic * root - 1) / (4 * size)
        return Test(statistic, float(np.clip(kolmogorov(scaled), 0, 1)))
    return Test(statistic, float(np.clip(stats.kstwo.sf(statistic, size), 0, 1)) if size else 1.0)
