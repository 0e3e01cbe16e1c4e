"""A rollout: a candidate's way from shadow over canary steps to champion, or back."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum


class Stage(StrEnum):
    """Where a candidate stands on its way to the traffic."""

    STARTING = "starting"
    """Its model server is coming up."""
    SHADOW = "shadow"
    CANARY = "canary"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self in (Stage.PROMOTED, Stage.ROLLED_BACK)


@dataclass(frozen=True, slots=True)
class Arm:
    """What was seen of one version while both served: counts, so that they add up over looks."""

    requests: int = 0
    errors: int = 0
    labelled: int = 0
    wrong: int = 0

    def __add__(self, other: "Arm") -> "Arm":
        return Arm(
            self.requests + other.requests,
            self.errors + other.errors,
            self.labelled + other.labelled,
            self.wrong + other.wrong,
        )


@dataclass(frozen=True, slots=True)
class StageChange:
    """One step on the way, for the account that a person reads."""

    at: datetime
    stage: Stage
    weight: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """The state of one candidate's rollout; survives the death of any process.

    Attributes:
        id: The verdict's id: one verdict allows one rollout.
        endpoint: Endpoint concerned.
        model: Candidate's registered model.
        version: Candidate's version.
        verdict_id: Verdict that allows it.
        stage: Where it stands.
        step: Index of the canary step, 0 in shadow.
        weight: Per cent of the traffic that the candidate answers now.
        started_at: When it began.
        changed_at: When the stage or the step last changed.
        cursor_us: Newest outcome that was looked at (microseconds since the epoch); where to look on from.
        feedback_cursor_us: Newest feedback that was looked at.
        seen: `table:spool` → highest sequence number that was counted, so that each row counts once.
        champion: What was seen of the champion since the candidate's stage began.
        candidate: What was seen of the candidate in the current stage and step.
        champion_weighed: The part of `champion` that the evidence holds already; the rest waits to fill a block.
        candidate_weighed: The part of `candidate` that the evidence holds already.
        log_e_errors: ln evidence that the candidate fails more often than the champion.
        log_e_wrong: ln evidence that the candidate is wrong more often than the champion.
        log_threshold: ln(2 / alpha): two tests are looked at continuously.
        history: What happened, in order.
    """

    id: str
    endpoint: str
    model: str
    version: str
    verdict_id: str
    stage: Stage
    started_at: datetime
    changed_at: datetime
    cursor_us: int
    feedback_cursor_us: int
    log_threshold: float
    step: int = 0
    weight: int = 0
    seen: Mapping[str, int] = field(default_factory=dict)
    champion: Arm = field(default_factory=Arm)
    candidate: Arm = field(default_factory=Arm)
    champion_weighed: Arm = field(default_factory=Arm)
    candidate_weighed: Arm = field(default_factory=Arm)
    log_e_errors: float = 0.0
    log_e_wrong: float = 0.0
    history: tuple[StageChange, ...] = ()

    def enter(self, stage: Stage, at: datetime, reason: str, *, step: int = 0, weight: int = 0) -> "Rollout":
        """The rollout in a new stage or step, with fresh counts and the reason on record."""
        return replace(
            self,
            stage=stage,
            step=step,
            weight=weight,
            changed_at=at,
            candidate=Arm(),
            champion=Arm(),
            candidate_weighed=Arm(),
            champion_weighed=Arm(),
            history=(*self.history, StageChange(at, stage, weight, reason)),
        )
