"""Two samples of counts: drift of numbers, categories and texts.

What has been counted since the baseline began is compared with what was counted for the reference. "Nothing has
changed" is the predictive law of the counts given the reference (Dirichlet-multinomial, Jeffreys prior): it knows that
a small reference is itself uncertain. Cells that neither side holds are no part of it; so it is the largest of the laws
on all sets of cells that hold what was seen, and a value that never comes is never evidence.

"Something has changed" is a mixture of laws, each a distribution over streams that depends on the reference only. The
ratio of the two is an e-process then, and so is the mean of several:

- any change: Dirichlet-multinomials around the reference's shares, at several distances;
- one cell against all others: a new topic, a class that rises, values that go missing. The rest of the law cancels, so
  this costs one pass over the cells, not one pass for each;
- for cells in an order (bins of numbers): shares tilted along the ranks, which is what a moved or widened distribution
  looks like (the first two components of Neyman's smooth test), with the reference's own uncertainty kept.

Reference counts have to come from rows that the cells were not chosen by. Bins at quantiles are the exception: there
the rows' own counts are exactly what the law of the spacings asks for (Wilks 1941).
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, logsumexp

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CONCENTRATIONS = (100.0, 300.0, 1000.0, 3000.0)
"""How far a changed law is looked for: the smaller, the further from the reference."""
CELL_CONCENTRATIONS = (10.0, 30.0, *CONCENTRATIONS)
"""The same for the share of one cell, which may change by more than a whole law does."""
TILTS = (-0.8, -0.4, -0.2, -0.1, -0.05, 0.05, 0.1, 0.2, 0.4, 0.8)
"""How far shares are tilted along the ranks, in standard deviations: for normal values about the shift of the mean."""
_JEFFREYS = 0.5
"""Rows that are added to each cell of the reference."""
_NEVER_SEEN = 0.05
"""The same for cells that the reference doesn't hold, where a changed law is looked for."""
_LEAST_SHARE = 1e-12
_MOST_TILT = 500.0


def log_e_two_sample(
    counts: ArrayLike, reference: ArrayLike, groupings: Sequence[Ints] = (), ordered: int = 0
) -> float:
    """Evidence that counts come from another law than the reference's counts.

    Plugging the reference's shares in as if they were known instead alarms in 52 to 99 per cent of unchanged streams.
    The promise is kept on average over the prior of the reference's law; how often single laws alarm is measured by
    `python -m benchmarks.statistics` and told in docs/explanation/statistics.md.

    Args:
        counts: Rows in each cell since the baseline began, shape (K,).
        reference: Rows of the reference in each cell, shape (K,); without any there is nothing to compare with and no
            evidence.
        groupings: Coarser views, each the group of every cell, shape (K,): evidence is looked for in these, too, so
            that a change that is spread over many cells is found in few groups.
        ordered: So many of the first cells are in rising order; 0 where there is none.
    """
    return float(log_e_path(np.asarray(counts, float)[None, :], reference, groupings, ordered)[0])


def log_e_path(counts: ArrayLike, reference: ArrayLike, groupings: Sequence[Ints] = (), ordered: int = 0) -> Floats:
    """`log_e_two_sample` at many looks: cumulative counts of shape (T, K) give T values."""
    seen, before = np.asarray(counts, float), np.asarray(reference, float)
    if not before.sum():
        return np.zeros(len(seen))
    evidence = list(_ratios(seen, before, groupings, ordered))
    return np.where(seen.sum(-1) > 0, _mean(evidence), 0.0)


def _ratios(counts: Floats, reference: Floats, groupings: Sequence[Ints], ordered: int) -> Iterator[Floats]:
    """ln of each ratio that the evidence is the mean of, shape (T,)."""
    alike = np.where((counts > 0) | (reference > 0), reference + _JEFFREYS, 0.0)
    prior = reference + np.where(reference > 0, _JEFFREYS, _NEVER_SEEN)
    for view in [None, *groupings]:
        seen, held, same = (x if view is None else _grouped(x, view) for x in (counts, prior, alike))
        yield _any_change(seen, held, same)
        yield _one_cell(seen, held, same)
    if ordered > 1:
        for scores in _rank_scores(prior, ordered):
            yield _tilted(counts, prior, alike, scores)


def _grouped(counts: Floats, view: Ints) -> Floats:
    """Sums over the cells of each group, along the last axis."""
    order = np.argsort(view, kind="stable")
    starts = np.flatnonzero(np.diff(view[order], prepend=-1))
    return np.asarray(np.add.reduceat(counts[..., order], starts, axis=-1))


def _any_change(counts: Floats, prior: Floats, alike: Floats) -> Floats:
    shares = prior / prior.sum()
    changed = [_log_dirichlet_multinomial(counts, tau * shares) for tau in _no_surer(CONCENTRATIONS, prior)]
    return _mean(changed) - _log_dirichlet_multinomial(counts, alike)


def _one_cell(counts: Floats, prior: Floats, alike: Floats) -> Floats:
    """The mean over the cells of the evidence that this cell's share has changed and nothing else has."""
    if prior.size < 2:
        return np.zeros(len(counts))
    rest, shares = counts.sum(-1, keepdims=True) - counts, prior / prior.sum()
    others = alike.sum(-1, keepdims=True) - alike
    changed = [
        _log_beta_binomial(counts, rest, tau * shares, tau * (1 - shares))
        for tau in _no_surer(CELL_CONCENTRATIONS, prior)
    ]
    return _mean(np.moveaxis(_mean(changed) - _log_beta_binomial(counts, rest, alike, others), -1, 0))


def _no_surer(concentrations: tuple[float, ...], prior: Floats) -> tuple[float, ...]:
    """Those that know no more of a changed law than the reference knows of its own."""
    return tuple(tau for tau in concentrations if tau <= prior.sum()) or concentrations[:1]


def _tilted(counts: Floats, prior: Floats, alike: Floats, scores: Floats) -> Floats:
    """The evidence that shares moved along scores, by any of the tilts; together the ordered cells keep their share."""
    total, ordered = prior.sum(), scores.size
    shares = prior / total
    changed = []
    for tilt in TILTS:
        moved = shares.copy()
        moved[:ordered] *= np.exp(np.minimum(tilt * scores, _MOST_TILT))
        moved[:ordered] *= shares[:ordered].sum() / moved[:ordered].sum()
        changed.append(_log_dirichlet_multinomial(counts, total * np.maximum(moved, _LEAST_SHARE)))
    return _mean(changed) - _log_dirichlet_multinomial(counts, alike)


def _rank_scores(prior: Floats, ordered: int) -> Iterator[Floats]:
    """Polynomials of the first cells' ranks, of degree 1 and 2: mean 0, variance 1, uncorrelated."""
    shares = prior[:ordered] / prior[:ordered].sum()
    ranks = 2 * (shares.cumsum() - shares / 2) - 1
    found: list[Floats] = []
    for values in (ranks, ranks**2):
        for known in (np.ones(ordered), *found):
            values = values - (shares * values * known).sum() * known
        spread = math.sqrt((shares * values**2).sum())
        if spread > 1e-6:
            found.append(values / spread)
            yield found[-1]


def _log_dirichlet_multinomial(counts: Floats, prior: Floats) -> Floats:
    """ln of the probability of a sequence with these counts; the multinomial coefficient cancels in ratios."""
    return np.asarray(_rising(prior, counts).sum(-1) - _rising(prior.sum(-1), counts.sum(-1)))


def _log_beta_binomial(hits: Floats, misses: Floats, for_hits: Floats, for_misses: Floats) -> Floats:
    """The same with two cells, for each cell against all others."""
    return _rising(for_hits, hits) + _rising(for_misses, misses) - _rising(for_hits + for_misses, hits + misses)


def _rising(start: Floats, steps: Floats) -> Floats:
    """ln of start (start + 1) … (start + steps - 1); 0 where there are no steps."""
    return np.where(steps > 0, gammaln(start + steps) - gammaln(np.where(steps > 0, start, 1.0)), 0.0)


def _mean(logs: ArrayLike) -> Floats:
    """ln of the mean over the first axis."""
    return np.asarray(logsumexp(logs, axis=0) - math.log(len(np.asarray(logs))))
