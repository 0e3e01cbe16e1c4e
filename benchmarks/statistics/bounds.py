"""The fewest rows in which a change can be found at all by a test that looks once, at the right moment, in half of the
streams: the likelihood ratio of both laws, both of them known, at the same alpha (Neyman & Pearson 1933).
"""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

STREAMS = 4000
"""That the ratio's quantiles are simulated with."""
_IMPOSSIBLE = 1e6
_MOST = 10**6


def fixed_n(before: ArrayLike, after: ArrayLike, alpha: float, reference: float = math.inf) -> float:
    """Rows; infinite if not even all rows of the reference tell the laws apart.

    Args:
        before: Probability of each outcome of a row.
        after: The same after the change.
        alpha: Of the one look.
        reference: Rows of the reference, if that is where the old law has to be learnt from.
    """
    p, q = np.asarray(before, float), np.asarray(after, float)
    known = p > 0
    ratio = np.full(p.size, _IMPOSSIBLE)
    ratio[known] = np.log(np.maximum(q[known], 1e-300) / p[known])
    random = np.random.default_rng(0)

    def enough(rows: int) -> bool:
        old, new = (random.multinomial(rows, law / law.sum(), STREAMS) @ ratio for law in (p, q))
        return bool((old >= np.median(new)).mean() <= alpha)

    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
        if high > _MOST:
            return math.inf
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return _with_reference(high, reference)


def fixed_n_shift(shift: float, alpha: float, reference: float = math.inf) -> float:
    """The same for a normal mean that moves by so many standard deviations."""
    return _with_reference((NormalDist().inv_cdf(1 - alpha) / shift) ** 2, reference)


def _with_reference(rows: float, reference: float) -> float:
    """Two samples know about as much as one of n m / (n + m) rows."""
    return rows / (1 - rows / reference) if rows < reference else math.inf
