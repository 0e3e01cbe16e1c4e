"""A rollout: a candidate's way from shadow over canary steps to champion, or back."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
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
    """What was seen of one version while both served: counts, so that they add up over looks.

    Attributes:
        requests: Requests that went to it.
        errors: Of these, those that failed.
        labelled: Answers of which somebody said what is right, or how good they are.
        wrong: Of these, the wrong and the bad ones.
        timed: Answers whose time was compared with the limit.
        slow: Of these, those that took longer.
        worded: Answers in words.
        refused: Of these, those that decline.
        stopped: Of the requests, those that a guardrail or the model server's own filter stopped.
    """

    requests: int = 0
    errors: int = 0
    labelled: int = 0
    wrong: int = 0
    timed: int = 0
    slow: int = 0
    worded: int = 0
    refused: int = 0
    stopped: int = 0

    def __add__(self, other: "Arm") -> "Arm":
        return Arm(*map(int.__add__, astuple(self), astuple(other)))


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
        guards: What the candidate is watched for; frozen when the rollout began, as is the threshold.
        weighed: Guard → what the evidence holds already of (bad, all) of the champion and of (bad, all) of the
            candidate in this stage; the rest waits to fill a block.
        past: The same of the stages and steps before: what they taught about both versions' rates is kept.
        log_e: Guard → ln evidence that the candidate does worse than the champion; absent is 0.
        log_threshold: ln(guards / alpha): so many tests are looked at continuously.
        slow_ms: An answer that takes longer is slow; frozen before any answer is compared with it, 0 until then.
        compared: Requests of the shadow stage that both versions gave one answer to.
        agreed: Of these, those with the same answer.
        similarity: Sum over them of how much the words of the two answers overlap, 0 to 1 each.
        differing: The first requests whose answers differ; the answers themselves stay in the log.
        paused: Who paused it and why; empty while it may move up. A paused rollout is still rolled back.
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
    guards: tuple[str, ...] = ("errors", "feedback")
    weighed: Mapping[str, tuple[int, int, int, int]] = field(default_factory=dict)
    past: Mapping[str, tuple[int, int, int, int]] = field(default_factory=dict)
    log_e: Mapping[str, float] = field(default_factory=dict)
    slow_ms: float = 0.0
    compared: int = 0
    agreed: int = 0
    similarity: float = 0.0
    differing: tuple[str, ...] = ()
    paused: str = ""
    history: tuple[StageChange, ...] = ()

    @property
    def ref(self) -> str:
        """`model/version` of the candidate."""
        return f"{self.model}/{self.version}"

    def enter(self, stage: Stage, at: datetime, reason: str, *, step: int = 0, weight: int = 0) -> "Rollout":
        """The rollout in a new stage or step, with fresh counts and the reason on record."""
        past = dict(self.past)
        for guard, counts in self.weighed.items():
            bad_a, all_a, bad_b, all_b = past.get(guard, (0, 0, 0, 0))
            past[guard] = (bad_a + counts[0], all_a + counts[1], bad_b + counts[2], all_b + counts[3])
        return replace(
            self,
            stage=stage,
            step=step,
            weight=weight,
            changed_at=at,
            candidate=Arm(),
            champion=Arm(),
            weighed={},
            past=past,
            history=(*self.history, StageChange(at, stage, weight, reason)),
        )
