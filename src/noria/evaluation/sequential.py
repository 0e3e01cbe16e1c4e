"""Tests that may be looked at after every record, for ever, and still keep their promise.

Each returns the natural logarithm of an e-process: evidence that starts at 1 and whose expectation under "nothing
has changed" is at most 1 at every stopping time. Reaching 1/alpha even once is then at most alpha likely (Ville
1939), however often somebody looks. Logarithms are natural throughout; `ln 20` is the alarm line for alpha = 0.05.

The records are taken to be independent given their law. Copies of one record (a client that retries in a loop) count
as evidence; a rhythm that the reference doesn't hold (weekends) is a change like any other.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, logsumexp

Floats = NDArray[np.float64]

CONCENTRATIONS = (100.0, 300.0, 1000.0, 3000.0)
"""How far a changed law is looked for: the smaller, the further from the reference."""
STAKES: Floats = np.geomspace(0.01, 0.5, 8)
"""Shares of the capital that are bet on each score; the mixture learns which of them suits."""
PRUDENCE = 10.0
"""Records' worth of belief that a candidate is like its champion, before it has shown anything."""


# --- two samples of counts: drift -----------------------------------------------------------------------------------


def log_e_two_sample(counts: ArrayLike, reference: ArrayLike, groupings: Sequence[NDArray[np.int64]] = ()) -> float:
    """Evidence that counts come from another law than the reference's counts.

    A mixture of Dirichlet-multinomials around the reference's shares, over the predictive law of the counts given the
    reference (Jeffreys prior). Plugging the reference's shares in as if they were known instead alarms in 52 to 99 per
    cent of unchanged streams. The promise is kept on average over that prior.

    Measured (alpha 0.05, 10 cells, 250 looks of 100 rows): alarms in 0.5% of unchanged streams with 5,000 reference
    rows, 2.0% with 500, 1.5% with 100; with 96 cells 2% and 3%. With 5,000 reference rows a mean moved by 0.1 sd is
    found after 2,300 rows (median), by 0.2 sd after 500; with 500 reference rows 0.2 sd is found in half of the
    streams at all, because so small a reference is itself that uncertain.

    Args:
        counts: Rows in each cell since the baseline began, shape (K,).
        reference: Rows of the reference in each cell, shape (K,).
        groupings: Coarser views, each the group of every cell, shape (K,): evidence is the mean over the cells and all
            of these, so that a change that is spread over many cells is found in few groups.
    """
    return float(log_e_path(np.asarray(counts, float)[None, :], reference, groupings)[0])


def log_e_path(counts: ArrayLike, reference: ArrayLike, groupings: Sequence[NDArray[np.int64]] = ()) -> Floats:
    """`log_e_two_sample` at many looks: cumulative counts of shape (T, K) give T values."""
    seen, prior = np.asarray(counts, float), np.asarray(reference, float) + 0.5
    views = [np.eye(prior.size)] + [np.eye(int(groups.max()) + 1)[groups] for groups in groupings]
    evidence = [_log_e_dirichlet(seen @ view, prior @ view) for view in views]
    return np.where(seen.sum(-1) > 0, logsumexp(evidence, axis=0) - math.log(len(views)), 0.0)


def _log_e_dirichlet(counts: Floats, prior: Floats) -> Floats:
    shares = prior / prior.sum()
    changed = [_log_dirichlet_multinomial(counts, tau * shares) for tau in CONCENTRATIONS]
    alike = _log_dirichlet_multinomial(counts, prior)
    return np.asarray(logsumexp(changed, axis=0) - math.log(len(changed)) - alike)


def _log_dirichlet_multinomial(counts: Floats, prior: Floats) -> Floats:
    """ln of the probability of a sequence with these counts; the multinomial coefficient cancels in ratios."""
    total = gammaln(prior.sum()) - gammaln(prior.sum() + counts.sum(-1))
    cells = (gammaln(prior + counts) - gammaln(prior)).sum(-1)
    return np.asarray(total + cells)


# --- scores against a floor: quality --------------------------------------------------------------------------------


def no_bets() -> tuple[float, ...]:
    """The state before the first score: ln of the capital that is kept for later, then of each stake's capital."""
    return (math.log(0.5),) * (1 + len(STAKES))


def bet(log_capitals: tuple[float, ...], scores: ArrayLike, floor: float) -> tuple[float, ...]:
    """Bet that scores lie below a floor on average; the capital is evidence that they do.

    The product of 1 + stake (floor - score) / (1 - floor), mixed over a grid of stakes (Waudby-Smith & Ramdas 2024).
    Capital that good years have eaten would delay the alarm when bad ones come, so each call sets a part of what was
    kept back to work afresh: after call t a share 1/(t + 1) is still kept. That is the mixture behind a
    Shiryaev-Roberts detector (Shin, Ramdas & Rinaldo 2024), with weights that add up to one, so that Ville holds.

    Measured (alpha 0.05, floor 0.78, accuracy 0.80, windows of 50): alarms in 3% of streams of 20,000 that sit exactly
    on the floor; a fall to 0.70 is found after 250 scores, to 0.55 after 50; after 5,000 good scores first, after 750
    and 150 (2,700 and 900 without fresh capital); after 20,000, a fall to 0.55 still after 150.

    Args:
        log_capitals: The state so far, from `no_bets` or from here.
        scores: Values between 0 and 1 in any order; anything outside is clipped, NaN is left out.
        floor: Average that is promised, between 0 and 1.

    Returns:
        The new state; the same one if there are no scores.
    """
    values = np.asarray(scores, float).ravel()
    values = np.clip(values[~np.isnan(values)], 0, 1)
    if not values.size:
        return log_capitals
    promised = min(max(floor, 0.0), 0.999)
    gains = np.log1p(STAKES[:, None] * (promised - values) / (1 - promised)).sum(axis=1)
    kept = math.exp(log_capitals[0])
    fresh = math.log(kept * kept / (1 + kept))
    capitals = np.logaddexp(np.asarray(log_capitals[1:]) + gains, fresh)
    return (math.log(kept / (1 + kept)), *capitals.tolist())


def log_e_bets(log_capitals: Sequence[float]) -> float:
    """Evidence in a state of `bet`: what is kept plus the mean of what the stakes hold."""
    return float(np.logaddexp(log_capitals[0], logsumexp(log_capitals[1:]) - math.log(len(log_capitals) - 1)))


# --- two streams of failures: canary against champion ---------------------------------------------------------------


def log_e_block(
    champion: tuple[int, int],
    candidate: tuple[int, int],
    past_champion: tuple[int, int],
    past_candidate: tuple[int, int],
) -> float:
    """Evidence from one block that the candidate fails more often than the champion; add it up over blocks.

    The e-variable for two Bernoulli streams of Turner, Ly & Grünwald (2024), one-sided: rates estimated from past
    blocks alone against their average weighted by this block's sizes, and 1 where the past says that the candidate is
    no worse. Blocks may have any sizes as long as these don't depend on the outcomes. Small blocks learn sooner.

    Measured (alpha 0.025, blocks of 50, up to 8,000 requests): stops 0.5 to 2% of candidates that are equally good.
    Champion fails in 2%: a candidate that fails in 20% and gets a tenth of the traffic is stopped after 350 requests
    in all; 6% at half of the traffic after 900. Wrong in 20% against 30%: 800 at half, 2,000 at a tenth.

    Args:
        champion: (failures, requests) of this block.
        candidate: (failures, requests) of this block.
        past_champion: (failures, requests) of all blocks before.
        past_candidate: (failures, requests) of all blocks before.
    """
    (failed_a, total_a), (failed_b, total_b) = champion, candidate
    if not (total_a and total_b and past_champion[1] and past_candidate[1]):
        return 0.0
    rate_a = (past_champion[0] + 0.5) / (past_champion[1] + 1)
    rate_b = (past_candidate[0] + PRUDENCE * rate_a) / (past_candidate[1] + PRUDENCE)
    if rate_b <= rate_a:
        return 0.0
    same = (total_a * rate_a + total_b * rate_b) / (total_a + total_b)
    return _log_ratio(failed_a, total_a, rate_a, same) + _log_ratio(failed_b, total_b, rate_b, same)


def _log_ratio(failed: int, total: int, rate: float, other: float) -> float:
    """ln likelihood ratio of two Bernoulli rates."""
    return failed * math.log(rate / other) + (total - failed) * math.log((1 - rate) / (1 - other))


# --- paired differences: candidate against champion on the same rows ------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NonInferiority:
    """Whether a candidate is no worse than its champion by more than a margin.

    Attributes:
        log_e: ln evidence against "worse by the margin or more", at its highest; it passes at ln(1/alpha).
        mean: Mean difference, candidate minus champion.
        lower: The mean difference is at least this, with confidence 1 - alpha, whenever it is looked at.
        upper: The mean difference is at most this, likewise.
        rows: Rows compared.
    """

    log_e: float
    mean: float
    lower: float
    upper: float
    rows: int


def non_inferiority(differences: ArrayLike, margin: float, alpha: float = 0.05) -> NonInferiority:
    """Bet on paired differences that the candidate is not worse by the margin.

    The stakes are the predictable plug-in of Waudby-Smith & Ramdas (2024): each is set from the variance of the rows
    before it, for the number of rows there are, and the evidence is the highest that it ever was. The rows have to be
    a random sample of those that the claim is about; they are taken in a fixed shuffled order, so a sorted file
    does no harm.

    Measured (alpha 0.05, margin 0.03, the two disagree on 10% of the rows): a candidate that is worse by the margin
    passes in 2 to 4% of comparisons; an equally good one in 50% with 500 rows, 78% with 1,000 and 98%
    with 2,000 (a test that may be looked at only once: 66%, 91% and 99.6%).

    Args:
        differences: Candidate's score minus champion's on each row, between -1 and 1; NaN is left out.
        margin: How much worse still counts as no worse, between 0 and 1.
        alpha: Probability of passing a candidate that is worse by the margin.
    """
    values = np.asarray(differences, float).ravel()
    values = np.clip(values[~np.isnan(values)], -1, 1)
    if not values.size:
        return NonInferiority(log_e=0.0, mean=0.0, lower=-1.0, upper=1.0, rows=0)
    shuffled = np.random.default_rng(0).permutation((values + 1) / 2)
    return NonInferiority(
        log_e=_log_e_above(shuffled, (1 - margin) / 2, alpha),
        mean=float(values.mean()),
        lower=2 * _lower_bound(shuffled, alpha) - 1,
        upper=1 - 2 * _lower_bound(1 - shuffled, alpha),
        rows=values.size,
    )


def _log_e_above(values: Floats, bound: float, alpha: float) -> float:
    """The highest ln evidence, along the rows, that the mean of values in [0, 1] is above a bound."""
    seen = np.arange(1, values.size + 1)
    means = (values.cumsum() + 0.5) / (seen + 1)
    variances = (((values - means) ** 2).cumsum() + 0.25) / (seen + 1)
    known = np.concatenate([[0.25], variances[:-1]])
    stakes = np.sqrt(2 * math.log(1 / alpha) / (values.size * known))
    gains = np.log1p(np.minimum(stakes, 0.9 / max(bound, 1e-12)) * (values - bound))
    return max(0.0, float(gains.cumsum().max()))


def _lower_bound(values: Floats, alpha: float) -> float:
    """The largest bound that the evidence exceeds 1/alpha for; it falls as the bound rises, so halving finds it."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _log_e_above(values, middle, alpha) >= -math.log(alpha) else (low, middle)
    return low


# --- many monitors --------------------------------------------------------------------------------------------------


def log_threshold(alpha: float, monitors: int = 1) -> float:
    """The alarm line ln(K / alpha) for K monitors: together they raise a false alarm with probability alpha."""
    return math.log(max(monitors, 1) / alpha)


def e_bh(log_es: Mapping[str, float], alpha: float) -> frozenset[str]:
    """Which of many hypotheses to reject so that at most alpha of the rejected ones are true, on average.

    The e-value form of Benjamini-Hochberg (Wang & Ramdas 2022); it holds under any dependence.
    """
    ranked = sorted(log_es, key=lambda name: log_es[name], reverse=True)
    passing = [k for k, name in enumerate(ranked, 1) if log_es[name] >= math.log(len(ranked) / (k * alpha))]
    return frozenset(ranked[: max(passing, default=0)])
