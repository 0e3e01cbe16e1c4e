"""How a rollout moves on, as pure functions: shadow, then the canary steps, then champion, or back at any time.

What was seen of both versions is weighed in blocks; each block's evidence that the candidate is worse adds to the
evidence of the blocks before it (STATISTICS 5), so it may be looked at after every record. A candidate that is as good
as its champion is rolled back with probability at most alpha over its whole way, however often the worker looks.

Measured (alpha 0.05, 200 shadow answers, steps of 10 and 50 per cent with 200 answers each, 30% labelled): 0.3 to 1.3%
of equal candidates are rolled back; every candidate that fails in 10% instead of 1%; of those that are wrong in 40%
instead of 20% of the labelled answers, 87%.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from noria.domain.endpoint import FULL_WEIGHT
from noria.domain.rollout import Arm, Rollout, Stage
from noria.evaluation.sequential import log_e_block
from noria.release.account import evidence, tally
from noria.settings import RolloutPlan

BLOCK = 10
"""Requests (or labels) that each version has to show before a block is weighed: less would leave one side empty."""


class Move(StrEnum):
    """What happens next."""

    WAIT = "wait"
    STEP = "step"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A move with its reason and the numbers it rests on; step and weight say where a STEP leads."""

    move: Move
    reason: str = ""
    evidence: Mapping[str, object] = field(default_factory=dict)
    step: int = 0
    weight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What came in since the last look."""

    champion: Arm = field(default_factory=Arm)
    candidate: Arm = field(default_factory=Arm)


def advance(rollout: Rollout, look: Look, plan: RolloutPlan, now: datetime) -> tuple[Rollout, Decision]:
    """Fold a look into the rollout and decide; the rollout that comes back stands where the decision leads."""
    seen = fold(rollout, look, everything=_enough(rollout, look, plan))
    decision = replace(decide(seen, plan), evidence=evidence(seen))
    match decision.move:
        case Move.WAIT:
            return seen, decision
        case Move.STEP:
            there = seen.enter(Stage.CANARY, now, decision.reason, step=decision.step, weight=decision.weight)
        case Move.PROMOTE:
            there = seen.enter(Stage.PROMOTED, now, decision.reason, step=seen.step, weight=FULL_WEIGHT)
        case Move.ROLL_BACK:
            there = seen.enter(Stage.ROLLED_BACK, now, decision.reason, step=seen.step)
    return there, decision


def fold(rollout: Rollout, look: Look, *, everything: bool = False) -> Rollout:
    """Add what was seen, and weigh the blocks that it fills.

    Args:
        rollout: The rollout before.
        look: What came in.
        everything: Weigh what there is even if it doesn't fill a block: a step ends.
    """
    champion, candidate = rollout.champion + look.champion, rollout.candidate + look.candidate
    before_a, before_b = rollout.champion_weighed, rollout.candidate_weighed
    least = 1 if everything else BLOCK
    log_e_errors, log_e_wrong = rollout.log_e_errors, rollout.log_e_wrong
    weighed_a, weighed_b = before_a, before_b
    if min(champion.requests - before_a.requests, candidate.requests - before_b.requests) >= least:
        log_e_errors += _weigh(_served(champion), _served(candidate), _served(before_a), _served(before_b))
        weighed_a = replace(weighed_a, requests=champion.requests, errors=champion.errors)
        weighed_b = replace(weighed_b, requests=candidate.requests, errors=candidate.errors)
    if min(champion.labelled - before_a.labelled, candidate.labelled - before_b.labelled) >= least:
        log_e_wrong += _weigh(_judged(champion), _judged(candidate), _judged(before_a), _judged(before_b))
        weighed_a = replace(weighed_a, labelled=champion.labelled, wrong=champion.wrong)
        weighed_b = replace(weighed_b, labelled=candidate.labelled, wrong=candidate.wrong)
    return replace(
        rollout,
        champion=champion,
        candidate=candidate,
        champion_weighed=weighed_a,
        candidate_weighed=weighed_b,
        log_e_errors=log_e_errors,
        log_e_wrong=log_e_wrong,
    )


def decide(rollout: Rollout, plan: RolloutPlan) -> Decision:
    """What the counts and the evidence say; the guard speaks first."""
    if rollout.stage not in (Stage.SHADOW, Stage.CANARY):
        return Decision(move=Move.WAIT)
    if rollout.log_e_errors >= rollout.log_threshold:
        return Decision(move=Move.ROLL_BACK, reason=f"it fails more often than the champion: {tally(rollout)}")
    if rollout.log_e_wrong >= rollout.log_threshold:
        return Decision(move=Move.ROLL_BACK, reason=f"it is wrong more often than the champion: {tally(rollout)}")
    if rollout.candidate.requests < needed(rollout, plan):
        return Decision(move=Move.WAIT)
    if rollout.step < len(plan.steps):
        weight = plan.steps[rollout.step]
        return Decision(move=Move.STEP, reason=tally(rollout), step=rollout.step + 1, weight=weight)
    return Decision(move=Move.PROMOTE, reason=tally(rollout))


def needed(rollout: Rollout, plan: RolloutPlan) -> int:
    """Answers of the candidate that the current stage or step asks for."""
    return plan.shadow_requests if rollout.stage is Stage.SHADOW else plan.step_requests


def _enough(rollout: Rollout, look: Look, plan: RolloutPlan) -> bool:
    return rollout.candidate.requests + look.candidate.requests >= needed(rollout, plan)


def _served(arm: Arm) -> tuple[int, int]:
    return arm.errors, arm.requests


def _judged(arm: Arm) -> tuple[int, int]:
    return arm.wrong, arm.labelled


def _weigh(a: tuple[int, int], b: tuple[int, int], past_a: tuple[int, int], past_b: tuple[int, int]) -> float:
    """Evidence of the block between what was weighed before and now; a is the champion, b the candidate."""
    block_a, block_b = (a[0] - past_a[0], a[1] - past_a[1]), (b[0] - past_b[0], b[1] - past_b[1])
    return log_e_block(block_a, block_b, past_a, past_b)
