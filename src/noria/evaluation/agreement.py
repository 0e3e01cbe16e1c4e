"""How far a judge agrees with people about the same answers: how often, beyond chance, and in the scores themselves."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from noria.domain.errors import InvalidData
from noria.evaluation.cells import Floats, Ints
from noria.evaluation.quality import Interval, wilson

GOOD = 0.5
"""A score of at least this says that an answer is good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What two raters of the same answers have in common.

    Attributes:
        pairs: Answers that both rated.
        agreed: Of these, how many both call good or both call bad.
        share: Their share; NaN without pairs.
        interval: 95% Wilson interval of the share.
        kappa: Cohen's kappa of good and bad: 0 is what chance gives, 1 is full agreement. NaN where chance alone
            agrees always, because both raters only ever say the same one thing.
        kappa_interval: 95% interval of kappa, for many pairs; NaN likewise.
        correlation: Pearson's, of the scores; NaN where one of the raters gives all answers the same.
        table: How many answers the first calls bad (row 0) or good (row 1) and the second bad or good, shape (2, 2).
    """

    pairs: int
    agreed: int
    share: float
    interval: Interval
    kappa: float
    kappa_interval: Interval
    correlation: float
    table: Ints


def agreement(first: ArrayLike, second: ArrayLike) -> Agreement:
    """Compare two raters' scores of the same answers.

    Args:
        first: Scores between 0 and 1, shape (n,).
        second: The other's, in the same order.

    Raises:
        InvalidData: They differ in length.
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.shape != other.shape or one.ndim != 1:
        raise InvalidData(f"{one.size} scores can't be compared with {other.size}.", "Give one pair for each answer.")
    good, too = one >= GOOD, other >= GOOD
    table = np.bincount(2 * good + too, minlength=4).reshape(2, 2).astype(np.float64)
    agreed = int(table[0, 0] + table[1, 1])
    kappa, interval = cohen_kappa(table)
    return Agreement(
        pairs=one.size,
        agreed=agreed,
        share=agreed / one.size if one.size else math.nan,
        interval=wilson(agreed, one.size),
        kappa=kappa,
        kappa_interval=interval,
        correlation=_correlation(one, other),
        table=table.astype(np.int64),
    )


def cohen_kappa(table: ArrayLike, confidence: float = 0.95) -> tuple[float, Interval]:
    """Cohen's kappa of a table of two raters, and its interval.

    Sources: Cohen 1960; the standard error for many pairs of Fleiss, Cohen & Everitt 1969.

    Args:
        table: How often the one said i and the other j, shape (K, K).
        confidence: Of the interval.
    """
    counts = np.asarray(table, np.float64)
    total, nothing = counts.sum(), Interval(math.nan, math.nan)
    if not total:
        return math.nan, nothing
    shares = counts / total
    rows, columns, same = shares.sum(axis=1), shares.sum(axis=0), np.diag(shares)
    by_chance = float(rows @ columns)
    if by_chance >= 1:
        return math.nan, nothing
    kappa = (float(same.sum()) - by_chance) / (1 - by_chance)
    sums = columns[:, None] + rows[None, :]
    on = float((same * (1 - np.diag(sums) * (1 - kappa)) ** 2).sum())
    off = (1 - kappa) ** 2 * float((shares * sums**2).sum() - (same * np.diag(sums) ** 2).sum())
    variance = (on + off - (kappa - by_chance * (1 - kappa)) ** 2) / ((1 - by_chance) ** 2 * total)
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * math.sqrt(max(variance, 0.0))
    return kappa, Interval(max(-1.0, kappa - half), min(1.0, kappa + half))


def _correlation(one: Floats, other: Floats) -> float:
    if not one.size:
        return math.nan
    apart, too = one - one.mean(), other - other.mean()
    spread = math.sqrt(float(apart @ apart)) * math.sqrt(float(too @ too))
    return max(-1.0, min(1.0, float(apart @ too) / spread)) if spread > 0 else math.nan
