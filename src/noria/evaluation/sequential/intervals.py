"""Intervals that hold at every sample size at once: look whenever you like, and stop when you have seen enough.

Each is a function of sums, so whoever counts in parts adds them up. They speak of one arm of an experiment; two arms
differ where the interval of their difference leaves zero out, whatever the split between them was and however it was
adapted to what had been seen: an arm's own answers are what its interval is about.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_PRIOR = 0.5
"""Jeffreys' prior: the mixture that proportions are tested with, for rates near zero as well as near one half."""
_LEAST = 30
"""Below so many values their spread isn't known well enough for an interval of their mean."""
_TUNED_FOR = 500
"""Values for which the interval of a mean is as narrow as it gets."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value that was seen, and between which two the true one lies; NaN and no bounds where nothing was seen."""

    value: float
    low: float
    high: float

    def minus(self, other: "Interval") -> "Interval":
        """The difference, true whenever both are."""
        return Interval(self.value - other.value, self.low - other.high, self.high - other.low)


def proportion(hits: int, total: int, alpha: float) -> Interval:
    """The interval of a rate: all rates that a beta-binomial mixture has not ruled out (Robbins 1970, Ville 1939).

    Exact at every sample size. With alpha 0.05 and 40 of 200 it is 0.12 to 0.30; an interval that may be looked at only
    once is 0.15 to 0.26.

    Args:
        hits: How many were.
        total: Of how many.
        alpha: Probability that the true rate is ever outside.
    """
    if not total:
        return Interval(math.nan, 0.0, 1.0)
    seen, line = hits / total, math.log(1 / alpha)

    def ruled_out(rate: float) -> bool:
        return _log_mixture(hits, total, rate) >= line

    return Interval(seen, _edge(0.0, seen, ruled_out, rising=False), _edge(seen, 1.0, ruled_out, rising=True))


def quantile_ranks(total: int, quantile: float, alpha: float) -> tuple[int, int]:
    """How many of the values may lie at or below the true quantile: at least and at most, at every sample size at once.

    Distribution-free: whether a value lies at or below the quantile is a coin with that chance.
    """
    line = math.log(1 / alpha)

    def possible(rank: int) -> bool:
        return _log_mixture(rank, total, quantile) < line

    middle = round(total * quantile)
    low, high = middle, middle
    step = max(1, total // 2)
    while step:
        while low - step >= 0 and possible(low - step):
            low -= step
        while high + step <= total and possible(high + step):
            high += step
        step //= 2
    return low, high


def mean(total: int, sum_: float, squares: float, alpha: float) -> Interval:
    """The interval of a mean of values without bounds, such as costs.

    The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2024): it holds at all sample
    sizes at once as the central limit theorem holds at one, so it says nothing before 30 values.

    Args:
        total: How many values.
        sum_: Of the values.
        squares: Sum of their squares.
        alpha: Probability that the true mean is ever outside.
    """
    if not total:
        return Interval(math.nan, -math.inf, math.inf)
    middle = sum_ / total
    if total < _LEAST:
        return Interval(middle, -math.inf, math.inf)
    spread = math.sqrt(max(squares / total - middle * middle, 0.0) * total / (total - 1))
    known = -2 * math.log(alpha)
    tuned = total * (known + math.log(known) + 1) / _TUNED_FOR
    width = spread * math.sqrt(2 * (tuned + 1) / (total * tuned) * math.log(math.sqrt(tuned + 1) / alpha))
    return Interval(middle, middle - width, middle + width)


def quantile(counts: Sequence[int], edges: Sequence[tuple[float, float]], share: float, alpha: float) -> Interval:
    """The interval of a quantile of counted values, as exact as the bins.

    Args:
        counts: Values in each bin, in rising order.
        edges: Between which values each bin lies.
        share: Which quantile, 0.5 for the median.
        alpha: Probability that the true one is ever outside.
    """
    total = sum(counts)
    if not total:
        return Interval(math.nan, 0.0, math.inf)
    low, high = quantile_ranks(total, share, alpha)
    below = 0
    found, least, most = math.nan, edges[0][0], math.inf
    for count, (lower, upper) in zip(counts, edges, strict=True):
        if below < low <= below + count:
            least = lower
        if below < share * total <= below + count:
            found = lower + (upper - lower) * (share * total - below) / count
        if below <= high < below + count:
            most = upper
        below += count
    return Interval(found, least, most)


def _log_mixture(hits: int, total: int, rate: float) -> float:
    """ln of the evidence against a rate: the likelihood of a mixture of all rates over the rate's own."""
    misses = total - hits
    if (rate <= 0 and hits) or (rate >= 1 and misses):
        return math.inf
    own = (hits * math.log(rate) if hits else 0.0) + (misses * math.log1p(-rate) if misses else 0.0)
    return _log_beta(hits + _PRIOR, misses + _PRIOR) - _log_beta(_PRIOR, _PRIOR) - own


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _edge(low: float, high: float, ruled_out: Callable[[float], bool], rising: bool) -> float:
    """Where rates begin to be ruled out, between one that is and one that isn't."""
    outer, inner = (high, low) if rising else (low, high)
    if not ruled_out(outer):
        return outer
    for _ in range(40):
        middle = (outer + inner) / 2
        outer, inner = (middle, inner) if ruled_out(middle) else (outer, middle)
    return outer
