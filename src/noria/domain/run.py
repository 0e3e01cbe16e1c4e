"""A run: one walk through the training pipeline, and what set it off."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum


class TriggerKind(StrEnum):
    """What may set off a run."""

    BOOTSTRAP = "bootstrap"
    """An endpoint without any version gets its first one."""
    ALERT = "alert"
    SCHEDULE = "schedule"
    LABELS = "labels"
    FEEDBACK = "feedback"
    BASE_MODEL = "base_model"
    PERSON = "person"


class RunState(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    """A candidate is registered; what the gates say is in its verdict."""
    FAILED = "failed"
    CANCELLED = "cancelled"
    """A person stopped it; it registers nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """Why a run exists.

    Attributes:
        kind: What set it off.
        cause: Id of the event that did.
        actor: Who asked: a person's name, or `noria`.
        reason: In words.
    """

    kind: TriggerKind
    cause: str
    actor: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """A finished step of a run and the numbers it left."""

    name: str
    started_at: datetime
    finished_at: datetime
    summary: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the step that is under way is, as it says itself.

    Attributes:
        step: Which step.
        since: When it began to tell.
        at: When it told last.
        done: Units of work done, of whatever kind.
        of: Units in all; 0 if nobody knows.
        message: What is being done, in words.
        numbers: What was measured on the way (loss, tokens a second).
    """

    step: str
    since: datetime
    at: datetime
    done: float
    of: float
    message: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float | None:
        """How much of it is done, 0 to 1; None if nobody knows."""
        return min(self.done / self.of, 1.0) if self.of > 0 else None

    @property
    def remaining_s(self) -> float | None:
        """Seconds that are left if it goes on at the pace so far; None if that can't be said."""
        took = (self.at - self.since).total_seconds()
        if not self.share or took <= 0:
            return None
        return took * (1 - self.share) / self.share


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One walk through the pipeline.

    Attributes:
        id: Identity, made from the event that set it off: the same event never starts two runs.
        endpoint: Endpoint whose model is trained.
        trigger: What set it off.
        state: Where it stands.
        started_at: When it began.
        steps: Finished steps, in order.
        model: Registered model name.
        version: Candidate it registered, empty until then.
        mlflow_run_id: Its run in MLflow, empty until training began.
        error: Why it failed, or who cancelled it and why, in words.
        finished_at: When it ended.
        cost_usd: What it cost elsewhere, US dollars.
        progress: How far the step under way is; None if it doesn't tell.
    """

    id: str
    endpoint: str
    trigger: Trigger
    state: RunState
    started_at: datetime
    steps: tuple[StepDone, ...] = ()
    model: str = ""
    version: str = ""
    mlflow_run_id: str = ""
    error: str = ""
    finished_at: datetime | None = None
    cost_usd: float = 0.0
    progress: Progress | None = None

    def telling(self, progress: Progress | None) -> "Run":
        """The run with how far its step under way is."""
        return replace(self, progress=progress)

    def with_step(self, step: StepDone) -> "Run":
        """The run with one more finished step; a step that is repeated after a crash replaces itself."""
        return replace(self, steps=(*(s for s in self.steps if s.name != step.name), step))


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerCursor:
    """How far an endpoint's schedule and labels have been looked at.

    Attributes:
        endpoint: Endpoint.
        scheduled: Last time of the schedule that was told to the loop; None before the schedule was first seen.
        labels: Labels that were there when the last run was granted, or when labels were first counted.
        feedback: Statements about answers, likewise.
        base: What the model that training starts from was then; empty before it was first seen.
        postponed: Id of an alert that asked for a run while none could be granted; empty if none waits.
        declined: Id of the event that was put off or declined last, so that a repeat isn't declined twice.
        why: What stood against it.
    """

    endpoint: str
    scheduled: datetime | None = None
    labels: int | None = None
    feedback: int | None = None
    base: str = ""
    postponed: str = ""
    declined: str = ""
    why: str = ""
