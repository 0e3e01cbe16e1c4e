"""Drift that begins long after the baseline: evidence that begins anew from time to time, beside that from the start.

Counts since the baseline hold all that was calm, which would hide a change that comes late. So from time to time a new
comparison starts: what was counted until then joins the reference, and only what comes afterwards is weighed. That is
the next factor of the same predictive law, so each comparison is an e-process from its start on, and a mixture of them
is one, with weights that were fixed before. The last few are kept; the weight of older ones is forgone. A change that
began slowly and spoiled the later references is still seen by the comparison from the start.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from noria.evaluation.sequential.counts import log_e_path

Ints = NDArray[np.int64]
Starts = tuple[tuple[int, ...], ...]
"""Of each comparison that began anew: its number, 1, 2, …, and the counts when it began."""

FROM_THE_START = 0.8
"""The weight of the comparison with everything since the baseline; those that begin anew share the rest."""
LATEST = 3
"""Comparisons that are kept beside it."""
_FEWEST, _MOST = 1_000, 10_000
"""Rows between two starts, at least and at most."""


def started(starts: Starts, counts: ArrayLike, reference: ArrayLike) -> Starts:
    """The starts after a look, with a new one if it is time: half a reference's worth of rows after the last.

    Args:
        starts: Before the look; `()` at the beginning.
        counts: Rows in each cell since the baseline began, this look's included, shape (K,).
        reference: Rows of the reference in each cell, shape (K,).
    """
    now = np.asarray(counts, np.int64)
    number, last = (starts[-1][0], sum(starts[-1][1:])) if starts else (0, 0)
    seen = int(now.sum())
    wait = min(max(_FEWEST, int(np.sum(reference)) // 2, seen // 10), _MOST)
    if seen - last < wait:
        return starts
    return (*starts, (number + 1, *now.tolist()))[-LATEST:]


def log_e_since(
    counts: ArrayLike, reference: ArrayLike, starts: Starts, groupings: Sequence[Ints] = (), ordered: int = 0
) -> float:
    """Evidence that counts come from another law than the reference's, from the start on or from a later one.

    Args:
        counts: Rows in each cell since the baseline began, shape (K,).
        reference: Rows of the reference in each cell, shape (K,).
        starts: From `started`, before this look.
        groupings: As for `log_e_two_sample`.
        ordered: Likewise.
    """
    return float(log_e_since_path(np.asarray(counts, float)[None, :], reference, starts, groupings, ordered)[0])


def log_e_since_path(
    counts: ArrayLike, reference: ArrayLike, starts: Starts, groupings: Sequence[Ints] = (), ordered: int = 0
) -> NDArray[np.float64]:
    """`log_e_since` at many looks that have the same starts: cumulative counts of shape (T, K) give T values."""
    seen, before = np.asarray(counts, float), np.asarray(reference, float)
    parts = [math.log(FROM_THE_START) + log_e_path(seen, before, groupings, ordered)]
    newest = starts[-1][0] if starts else 0
    parts.append(np.full(len(seen), math.log((1 - FROM_THE_START) / (newest + 1))))  # of those that didn't begin yet
    for number, *calm in starts:
        weight = math.log((1 - FROM_THE_START) / (number * (number + 1)))
        parts.append(weight + log_e_path(seen - calm, before + calm, groupings, ordered))
    return np.asarray(logsumexp(parts, axis=0))


def log_e_stretches(
    counts: ArrayLike, reference: ArrayLike, groupings: Sequence[Ints] = (), ordered: int = 0, most: int = 100
) -> Iterator[NDArray[np.float64]]:
    """Evidence at every look of a whole stream, as monitors would have had it, in stretches of looks.

    Args:
        counts: Cumulative, shape (T, K).
        reference: As for `log_e_since`, and so are the views.
        groupings: Likewise.
        ordered: Likewise.
        most: Looks of a stretch at most; whoever stops at an alarm is spared the rest.
    """
    seen = np.asarray(counts, np.int64)
    starts: Starts = ()
    begin = 0
    for look, now in enumerate(seen, 1):
        anew = started(starts, now, reference)
        if anew != starts or look - begin == most or look == len(seen):
            yield log_e_since_path(seen[begin:look], reference, starts, groupings, ordered)
            begin, starts = look, anew
