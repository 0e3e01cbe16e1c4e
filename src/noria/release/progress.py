"""How a rollout moves on, as pure functions: shadow, then the canary steps, then champion, or back at any time.

What was seen of both versions is weighed in blocks; each block's evidence that the candidate is worse adds to the
evidence of the blocks before it (STATISTICS 5), so it may be looked at after every record. A candidate that is as good
as its champion is rolled back with probability at most alpha over its whole way, however often the worker looks.

Measured with `release.simulation` (alpha 0.05 shared by five guards, 200 shadow answers, steps of 10 and 50 per cent
with 200 answers each, 30% labelled): 0.4 to 0.5% of equal candidates are rolled back; every candidate that fails in 10%
instead of 1% (after 164 answers in the median, all of them copies), is slow in 20% instead of 2% (after 44 answers to
callers), declines in 15% instead of 2%, or is stopped by guardrails in 10% instead of 1%; of those that are wrong in
40% instead of 20% of the labelled answers, 89%.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from noria.domain.endpoint import FULL_WEIGHT
from noria.domain.rollout import Arm, Rollout, Stage
from noria.release.account import evidence, tally
from noria.release.guards import BLOCK, weigh, worse
from noria.release.watched import GUARDS
from noria.settings import RolloutPlan

MOST_EXAMPLES = 20
"""Requests with differing answers that a rollout remembers."""


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
    compared: int = 0
    agreed: int = 0
    similarity: float = 0.0
    differing: tuple[str, ...] = ()


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
    seen = weigh(
        rollout, rollout.champion + look.champion, rollout.candidate + look.candidate, 1 if everything else BLOCK
    )
    return replace(
        seen,
        compared=seen.compared + look.compared,
        agreed=seen.agreed + look.agreed,
        similarity=seen.similarity + look.similarity,
        differing=(*seen.differing, *look.differing)[:MOST_EXAMPLES],
    )


def decide(rollout: Rollout, plan: RolloutPlan) -> Decision:
    """What the counts and the evidence say; the guards speak first, and also while a person has paused the rollout."""
    if rollout.stage not in (Stage.SHADOW, Stage.CANARY):
        return Decision(move=Move.WAIT)
    if guard := worse(rollout):
        return Decision(move=Move.ROLL_BACK, reason=f"{GUARDS[guard].says}: {tally(rollout)}")
    if rollout.paused or rollout.candidate.requests < needed(rollout, plan):
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
