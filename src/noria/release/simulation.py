"""Whole rollouts on simulated traffic: how soon a plan finds a bad candidate, and how seldom it errs about a good one.

The same state machine as in production looks at answers that are drawn at given rates; `python -m benchmarks.loop` and
the tests tell what comes of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from noria.domain.endpoint import FULL_WEIGHT
from noria.domain.rollout import Arm, Rollout, Stage
from noria.release.guards import threshold, worse
from noria.release.progress import Look, advance
from noria.settings import RolloutPlan

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How often a version's answers are what the guards watch for, each between 0 and 1.

    `labelled` is the share of answers of which somebody says whether they are right.
    """

    errors: float = 0.01
    slow: float = 0.02
    refusals: float = 0.02
    guardrails: float = 0.01
    wrong: float = 0.2
    labelled: float = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """How one simulated rollout ended.

    Attributes:
        stage: Promoted or rolled back.
        guard: The guard that rolled it back, empty if none did.
        requests: Requests of callers until then.
        candidate_requests: Of these, those that the candidate answered: what a bad one costs callers.
        copies: Copies that it got in the shadow stage, which cost callers nothing.
    """

    stage: Stage
    guard: str
    requests: int
    candidate_requests: int
    copies: int


def simulate(
    plan: RolloutPlan, champion: Rates, candidate: Rates, seed: int, per_look: int = 20, words: bool = True
) -> Simulated:
    """Walk a candidate through a plan.

    Args:
        plan: Stages, steps, alpha and guards.
        champion: Its rates.
        candidate: Its rates.
        seed: Of what is drawn.
        per_look: Requests between two looks, on average.
        words: Whether answers are in words, so that they may decline.
    """
    rng = np.random.default_rng(seed)
    guards = tuple(name for name in plan.guards if words or name != "refusals")
    rollout = Rollout(
        id="simulated",
        endpoint="simulated",
        model="simulated",
        version="2",
        verdict_id="simulated",
        stage=Stage.SHADOW,
        started_at=_NOW,
        changed_at=_NOW,
        cursor_us=0,
        feedback_cursor_us=0,
        guards=guards,
        log_threshold=threshold(len(guards), plan.alpha),
    )
    requests = answered = copies = 0
    while not rollout.stage.finished:
        size = int(rng.integers(1, 2 * per_look))
        shadow = rollout.stage is Stage.SHADOW
        theirs = size if shadow else int(rng.binomial(size, rollout.weight / FULL_WEIGHT))
        ours = size if shadow else size - theirs
        requests, copies = requests + size, copies + (theirs if shadow else 0)
        answered += 0 if shadow else theirs
        look = Look(champion=_arm(rng, ours, champion, shadow), candidate=_arm(rng, theirs, candidate, shadow))
        rollout, _ = advance(rollout, look, plan, _NOW)
    return Simulated(
        stage=rollout.stage,
        guard=worse(rollout) if rollout.stage is Stage.ROLLED_BACK else "",
        requests=requests,
        candidate_requests=answered,
        copies=copies,
    )


def share_rolled_back(runs: Sequence[Simulated]) -> float:
    """Of simulated rollouts."""
    return sum(run.stage is Stage.ROLLED_BACK for run in runs) / len(runs)


def _arm(rng: np.random.Generator, size: int, rates: Rates, shadow: bool) -> Arm:
    labelled = int(rng.binomial(size, rates.labelled))
    timed = 0 if shadow else size

    def drawn(all_of_them: int, rate: float) -> int:
        return int(rng.binomial(all_of_them, rate))

    return Arm(
        requests=size,
        errors=drawn(size, rates.errors),
        labelled=labelled,
        wrong=drawn(labelled, rates.wrong),
        timed=timed,
        slow=drawn(timed, rates.slow),
        worded=size,
        refused=drawn(size, rates.refusals),
        stopped=drawn(size, rates.guardrails),
    )
