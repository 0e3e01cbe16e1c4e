"""Streams of scores and of failures: a mean against its floor, a canary against its champion, groups, pairs of rows."""

import math

import numpy as np
from numpy.typing import NDArray

from noria.evaluation.sequential import (
    SCORE_STEPS,
    bet_counts,
    detect_counts,
    log_detector,
    log_e_bets,
    log_e_block,
    log_e_groups,
    no_bets,
    non_inferiority,
)

Random = np.random.Generator
FLOOR = 0.8
GROUPS = (0.4, 0.3, 0.2, 0.1)
"""Shares of the traffic that groups of callers have."""
GROUP_RATE = 0.1
CHAMPION_RATE = 0.02
MARGIN, DISAGREE = 0.03, 0.1


def _scores(random: Random, mean: float, run: int, looks: int, rows: int) -> NDArray[np.int64]:
    """Scores counted on the grid at each look: right or wrong in every other run, a judge's grades in the others."""
    if run % 2:
        grades = np.arange(5) / 4
        spread = np.array([0.05, 0.05, 0.1, 0.25, 0.55])
        law = spread * (1 + (mean - spread @ grades) / _variance(spread, grades) * (grades - spread @ grades))
        cells = (grades * SCORE_STEPS).astype(int)
    else:
        law, cells = np.array([1 - mean, mean]), np.array([0, SCORE_STEPS])
    counts = np.zeros((looks, SCORE_STEPS + 1), np.int64)
    counts[:, cells] = random.multinomial(rows, law, size=looks)
    return counts


def _variance(law: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    return float(law @ values**2 - (law @ values) ** 2)


def score_alarm(random: Random, mean: float, line: float, looks: int, rows: int, run: int = 0) -> int | None:
    """Scores until the alarm that their mean lies below the floor, None if there is none."""
    state = no_bets()
    for look, counts in enumerate(_scores(random, mean, run, looks, rows), 1):
        state = bet_counts(state, counts, FLOOR)
        if log_e_bets(state) >= line:
            return look * rows
    return None


def detector_run(random: Random, arl: float, looks: int, rows: int) -> int:
    """Scores on the floor until the detector's first false alarm; all of them if none comes."""
    state: tuple[float, ...] = ()
    for look, counts in enumerate(_scores(random, FLOOR, 0, looks, rows), 1):
        state = detect_counts(state, counts, FLOOR)
        if log_detector(state) >= math.log(arl):
            return look * rows
    return looks * rows


def canary_alarm(random: Random, candidate: float, share: float, line: float, looks: int, rows: int) -> int | None:
    """Requests, of both versions together, until the candidate is stopped."""
    past_a, past_b, log_e = (0, 0), (0, 0), 0.0
    totals = random.binomial(rows, share, size=looks)
    failed_b = random.binomial(totals, candidate)
    failed_a = random.binomial(rows - totals, CHAMPION_RATE)
    for look, (n, b, a) in enumerate(zip(totals.tolist(), failed_b.tolist(), failed_a.tolist(), strict=True), 1):
        log_e += log_e_block((a, rows - n), (b, n), past_a, past_b)
        past_a, past_b = (past_a[0] + a, past_a[1] + rows - n), (past_b[0] + b, past_b[1] + n)
        if log_e >= line:
            return look * rows
    return None


def parity_alarm(random: Random, worst: float, line: float, looks: int, rows: int) -> int | None:
    """Requests until groups are called unequal; the smallest group but one fails at another rate."""
    rates = np.full(len(GROUPS), GROUP_RATE)
    rates[2] = worst
    past, log_e = [(0, 0)] * len(GROUPS), 0.0
    sizes = random.multinomial(rows, GROUPS, size=looks)
    for look, (failed, total) in enumerate(zip(random.binomial(sizes, rates).tolist(), sizes.tolist(), strict=True), 1):
        block = list(zip(failed, total, strict=True))
        log_e += log_e_groups(block, past)
        past = [(f + a, n + b) for (f, n), (a, b) in zip(past, block, strict=True)]
        if log_e >= line:
            return look * rows
    return None


def passes(random: Random, difference: float, rows: int, alpha: float) -> bool:
    """Whether a candidate passes as no worse by the margin."""
    law = [(DISAGREE - difference) / 2, 1 - DISAGREE, (DISAGREE + difference) / 2]
    return non_inferiority(random.choice([-1, 0, 1], rows, p=law), MARGIN, alpha).log_e >= -math.log(alpha)
