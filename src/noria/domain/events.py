"""What happens in the loop. `noria/loop.py` says what each of them sets off.

An event's id is made from what happened, so the same happening told twice is one event,
and the durable workflow that it starts is started once.
"""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowClosed:
    """All records of a window are in the table.

    `revision` tells apart that a window was closed again, because records came late; `longer` that it is one that is
    summed from shorter ones.
    """

    endpoint: str
    start: datetime
    end: datetime
    revision: int = 0
    longer: bool = False

    @property
    def id(self) -> str:
        length = f":{(self.end - self.start).total_seconds():.0f}s" if self.longer else ""
        again = f":{self.revision}" if self.revision else ""
        return f"window:{self.endpoint}:{self.start.isoformat()}{length}{again}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowJudged:
    """More was said of answers of a window that is closed; `at` tells one look from the next."""

    endpoint: str
    start: datetime
    end: datetime
    at: datetime

    @property
    def id(self) -> str:
        return f"judged:{self.endpoint}:{self.start.isoformat()}:{self.end.isoformat()}:{self.at.isoformat()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftDetected:
    """A drift monitor's evidence reached its threshold.

    `state_id` names the MonitorState, `since` is its own: a version that becomes champion again is watched anew.
    """

    endpoint: str
    monitor: str
    state_id: str
    since: datetime | None = None

    @property
    def id(self) -> str:
        return f"drift:{self.state_id}" + (f":{self.since.isoformat()}" if self.since else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityDropped:
    """A quality monitor's evidence reached its threshold.

    `state_id` names the MonitorState, `since` is its own: a version that becomes champion again is watched anew.
    """

    endpoint: str
    monitor: str
    state_id: str
    since: datetime | None = None

    @property
    def id(self) -> str:
        return f"quality:{self.state_id}" + (f":{self.since.isoformat()}" if self.since else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRaised:
    """An alert began to fire; `at` tells two firings of the same cause apart."""

    endpoint: str
    alert_id: str
    at: datetime

    @property
    def id(self) -> str:
        return f"alert:{self.alert_id}:{self.at.isoformat()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleDue:
    """The endpoint's schedule came round."""

    endpoint: str
    at: datetime

    @property
    def id(self) -> str:
        return f"schedule:{self.endpoint}:{self.at.isoformat()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsArrived:
    """Enough new labels came in since the last run."""

    endpoint: str
    total: int

    @property
    def id(self) -> str:
        return f"labels:{self.endpoint}:{self.total}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackArrived:
    """Enough was said of answers since the last run."""

    endpoint: str
    total: int

    @property
    def id(self) -> str:
        return f"feedback:{self.endpoint}:{self.total}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModelChanged:
    """The model that training starts from is another one; `base` tells which."""

    endpoint: str
    base: str

    @property
    def id(self) -> str:
        return f"base:{self.endpoint}:{self.base}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainRequested:
    """A person asked for a run, or an endpoint without a version needs its first."""

    endpoint: str
    actor: str
    reason: str
    at: datetime

    @property
    def id(self) -> str:
        return f"retrain:{self.endpoint}:{self.at.isoformat()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run was granted; its pipeline begins."""

    endpoint: str
    run_id: str

    @property
    def id(self) -> str:
        return f"run:{self.run_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed:
    """A run ended without a candidate."""

    endpoint: str
    run_id: str

    @property
    def id(self) -> str:
        return f"run-failed:{self.run_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRegistered:
    """A version with its card is in the registry and waits for its gates. `run_id` is empty for an upload.

    `again` tells apart that a version which was judged before is proposed once more.
    """

    endpoint: str
    model: str
    version: str
    run_id: str = ""
    again: str = ""

    @property
    def ref(self) -> str:
        """`model/version` of the candidate."""
        return f"{self.model}/{self.version}"

    @property
    def id(self) -> str:
        return f"candidate:{self.endpoint}:{self.ref}" + (f":{self.again}" if self.again else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePassed:
    """A verdict allows the candidate."""

    endpoint: str
    verdict_id: str

    @property
    def id(self) -> str:
        return f"passed:{self.verdict_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateFailed:
    """A verdict refuses the candidate."""

    endpoint: str
    verdict_id: str

    @property
    def id(self) -> str:
        return f"refused:{self.verdict_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionPromoted:
    """A version became champion: by a rollout, as the first one, or by a rollback."""

    endpoint: str
    model: str
    version: str
    revision: int

    @property
    def id(self) -> str:
        return f"promoted:{self.endpoint}:{self.revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """A rollout was stopped by its guard, or a champion was taken back."""

    endpoint: str
    rollout_id: str
    reason: str

    @property
    def id(self) -> str:
        return f"rolled-back:{self.rollout_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentStarted:
    """Somebody asked for an experiment; its versions are brought up."""

    endpoint: str
    experiment_id: str

    @property
    def id(self) -> str:
        return f"experiment:{self.experiment_id}"


Event = (
    WindowClosed
    | WindowJudged
    | DriftDetected
    | QualityDropped
    | AlertRaised
    | ScheduleDue
    | LabelsArrived
    | FeedbackArrived
    | BaseModelChanged
    | RetrainRequested
    | RunStarted
    | RunFailed
    | CandidateRegistered
    | GatePassed
    | GateFailed
    | VersionPromoted
    | RolledBack
    | ExperimentStarted
)
