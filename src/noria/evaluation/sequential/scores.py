"""Scores against a floor: quality, feedback, judges and guardrails, all between 0 and 1.

A score's evidence is what a bettor earns who stakes on it against the promise that the mean is at least the floor
(Waudby-Smith & Ramdas 2024). The capital never depends on the order of a window's scores, and it is a function of how
many fell on each point of a grid: counts from any partition of a window add up to the same evidence.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from noria.domain.errors import InvalidData

Floats = NDArray[np.float64]

STAKES: Floats = np.geomspace(0.01, 0.5, 8)
"""Shares of the capital that are bet on each score; the mixture learns which of them suits."""
SCORE_STEPS = 200
"""The grid of counted scores: 0, 1/200, 2/200, … 1. A score between two points counts as the upper one."""
_HIGHEST_FLOOR = 0.999


def no_bets() -> tuple[float, ...]:
    """The state before the first score: ln of the capital that is kept for later, then of each stake's capital."""
    return (math.log(0.5),) * (1 + len(STAKES))


def bet(log_capitals: tuple[float, ...], scores: ArrayLike, floor: float) -> tuple[float, ...]:
    """Bet that scores lie below a floor on average; the capital is evidence that they do.

    The product of 1 + stake (floor - score) / (1 - floor), mixed over a grid of stakes. Capital that good years have
    eaten would delay the alarm when bad ones come, so each call sets a part of what was kept back to work afresh:
    after call t a share 1/(t + 2) is still kept. That is the mixture behind a Shiryaev-Roberts detector (Shin, Ramdas
    & Rinaldo 2024), with weights that add up to one, so that Ville holds. It holds for any scores in [0, 1] whose mean
    given the past is at least the floor.

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
    return _worked(log_capitals, _gains(values, floor).sum(axis=1)) if values.size else log_capitals


def bet_counts(log_capitals: tuple[float, ...], counts: ArrayLike, floor: float) -> tuple[float, ...]:
    """`bet` on scores that were counted on a grid: any partition of a window gives the identical state.

    Scores that are rounded up to the grid earn the bettor less than they would have: the promise holds for them, too.

    Args:
        log_capitals: The state so far, from `no_bets`, `bet` or from here.
        counts: How many scores of a window are 0, 1/200, … 1: shape (201,), or longer where more cells (missing
            scores) follow, which are left out.
        floor: Average that is promised, between 0 and 1.

    Returns:
        The new state; the same one if there are no scores.

    Raises:
        InvalidData: There are fewer counts than points of the grid.
    """
    seen = _on_grid(counts)
    return _worked(log_capitals, _gains_of_counts(seen, floor)) if seen.any() else log_capitals


def log_e_bets(log_capitals: Sequence[float]) -> float:
    """Evidence in a state of `bet`: what is kept plus the mean of what the stakes hold."""
    return float(np.logaddexp(log_capitals[0], logsumexp(log_capitals[1:]) - math.log(len(log_capitals) - 1)))


# --- for ever: alarms so rare, instead of one at most ---------------------------------------------------------------


def detect_counts(log_sums: tuple[float, ...], counts: ArrayLike, floor: float) -> tuple[float, ...]:
    """A Shiryaev-Roberts detector of scores below a floor, for streams that are watched for ever and re-armed.

    Each look begins one bet for every score in it, and the sum of all bets so far is kept for each stake. While the
    mean is at least the floor that sum grows by at most one a score on average, so the first look at which it reaches
    ARL comes after ARL scores on average or later (the e-detector of Shin, Ramdas & Rinaldo 2024). Unlike `bet` it
    never tires: it is as quick after a million good scores as after none. Its promise is how often, not whether ever.

    Args:
        log_sums: The state so far: `()` at the beginning and after an alarm.
        counts: As for `bet_counts`.
        floor: Average that is promised, between 0 and 1.

    Returns:
        The new state; `log_detector` of it is compared with ln ARL. The same one if there are no scores.

    Raises:
        InvalidData: There are fewer counts than points of the grid.
    """
    seen = _on_grid(counts)
    if not seen.any():
        return log_sums
    begun = np.asarray(log_sums) if log_sums else np.full(len(STAKES), -math.inf)
    return tuple((np.logaddexp(begun, math.log(seen.sum())) + _gains_of_counts(seen, floor)).tolist())


def log_detector(log_sums: Sequence[float]) -> float:
    """ln of the statistic in a state of `detect_counts`; minus infinity at the beginning."""
    return float(logsumexp(log_sums) - math.log(len(log_sums))) if log_sums else -math.inf


def _worked(log_capitals: tuple[float, ...], gains: Floats) -> tuple[float, ...]:
    """The capitals after their gains, each with a part of what was kept."""
    kept = math.exp(log_capitals[0])
    fresh = math.log(kept * kept / (1 + kept))
    capitals = np.logaddexp(np.asarray(log_capitals[1:]) + gains, fresh)
    return (math.log(kept / (1 + kept)), *capitals.tolist())


def _gains(values: Floats, floor: float) -> Floats:
    """ln of what each stake multiplies its capital by at each value, shape (stakes, values)."""
    promised = min(max(floor, 0.0), _HIGHEST_FLOOR)
    return np.log1p(STAKES[:, None] * (promised - values) / (1 - promised))


def _gains_of_counts(seen: Floats, floor: float) -> Floats:
    """Not a matrix product: its last digits would depend on the library and its threads."""
    return np.asarray((_gains(np.arange(SCORE_STEPS + 1) / SCORE_STEPS, floor) * seen).sum(axis=1))


def _on_grid(counts: ArrayLike) -> Floats:
    seen = np.asarray(counts, float).ravel()
    if seen.size <= SCORE_STEPS:
        raise InvalidData(
            f"{seen.size} counts are no counts of scores on the grid of {SCORE_STEPS + 1} points.",
            f"Count scores at 0, 1/{SCORE_STEPS}, … 1.",
        )
    return seen[: SCORE_STEPS + 1]
