"""An alert: one thing that is wrong with one endpoint, and silences, which keep alerts from being sent.

    pending → firing → resolved → pending or firing again

An alert is pending while a rule's windows are counted, fires once it is certain enough, and is resolved when its cause
is gone. Only while it fires can somebody acknowledge it. What nobody is told of is still shown.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase

from noria.domain.errors import Conflict
from noria.domain.monitor import Moved
from noria.domain.odds import odds


class AlertState(StrEnum):
    """Where an alert stands. (A sequential test's alarm is final, so its alert is never pending.)"""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Severity(StrEnum):
    """How grave an alert is, the least grave first."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for the least grave."""
        return list(Severity).index(self)


EVIDENCE_MONITORS = frozenset({"text", "length", "prediction", "quality"})
"""Monitors whose alerts asked for a run before alerts said so themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """Somebody looks after it."""

    by: str
    at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Seen:
    """One window's value of what a rule watches."""

    start: datetime
    value: float
    model: str = ""
    """`model/version` that the value is of; `*` for all."""


@dataclass(frozen=True, slots=True)
class SliceMoved:
    """A slice of the records in which a measure stands out: `key` = `value` of the slice, and what was measured."""

    key: str
    value: str
    measure: str
    now: float
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Example:
    """A record that shows what is meant, as redacted as it lies in the log."""

    request_id: str
    text: str
    value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something is wrong, since when, how sure we are, and what moved.

    Attributes:
        id: `endpoint:monitor:model version` or `endpoint:rule`, so that the same cause raises one alert.
        endpoint: Endpoint concerned; empty for the installation as a whole.
        monitor: Monitor or rule that raised it, or `gate`, `registry`, `spool`, `approval` for an alert of the
            system itself.
        state: Pending, firing or resolved.
        raised_at: When it fired; while it is pending, when it began to be.
        since: Start of the evidence it rests on.
        summary: One sentence for a person.
        log_e: Natural logarithm of the evidence; 0 for a plain threshold and for an alert of the system itself.
        rows: Records that the evidence rests on.
        moved: What changed most, with redacted examples.
        resolved_at: When it ended.
        resolution: Why it ended.
        severity: How grave it is.
        group: Alerts of one group that fire together are told together; empty for the endpoint's own group.
        rule: Name of the rule that raised it; empty if none did.
        metric: What the rule watches.
        value: Its newest value.
        limit: The threshold of the rule.
        slice: `key=value` of the slice that it is about; empty for all records.
        trail: The newest windows' values, oldest first.
        slices: Slices in which it shows most.
        records: Example records.
        trigger: Whether it may start a run; None in alerts stored before this was said.
        acknowledged: Who looks after it.
    """

    id: str
    endpoint: str
    monitor: str
    state: AlertState
    raised_at: datetime
    since: datetime
    summary: str
    log_e: float = 0.0
    rows: int = 0
    moved: tuple[Moved, ...] = ()
    resolved_at: datetime | None = None
    resolution: str = ""
    severity: Severity = Severity.WARNING
    group: str = ""
    rule: str = ""
    metric: str = ""
    value: float | None = None
    limit: float | None = None
    slice: str = ""
    trail: tuple[Seen, ...] = ()
    slices: tuple[SliceMoved, ...] = ()
    records: tuple[Example, ...] = ()
    trigger: bool | None = None
    acknowledged: Acknowledgement | None = None

    @property
    def fires(self) -> bool:
        """Whether it fires now."""
        return self.state is AlertState.FIRING

    @property
    def grouping(self) -> str:
        """What it is told together with."""
        return self.group or self.endpoint

    @property
    def by_threshold(self) -> bool:
        """Whether a plain threshold raised it, which nothing protects from chance."""
        return bool(self.rule) and self.log_e == 0

    @property
    def how_sure(self) -> str:
        """How sure it is that this is no chance, in words; empty where that is no question."""
        if self.by_threshold:
            return "a plain threshold: it may be chance"
        if self.log_e > 0:
            return f"evidence {odds(self.log_e)} to 1"
        return ""

    @property
    def asks_for_run(self) -> bool:
        """Whether it may start a run of the training pipeline."""
        return self.monitor in EVIDENCE_MONITORS if self.trigger is None else self.trigger

    @property
    def changed_at(self) -> datetime:
        """When it came into the state that it is in."""
        return self.resolved_at if self.resolved_at is not None else self.raised_at

    def fire(self, at: datetime) -> "Alert":
        """The same alert, firing since then; whoever looked after an earlier firing has not seen this one."""
        return replace(self, state=AlertState.FIRING, raised_at=at, resolved_at=None, resolution="", acknowledged=None)

    def resolve(self, at: datetime, why: str) -> "Alert":
        """The same alert, ended."""
        return replace(self, state=AlertState.RESOLVED, resolved_at=at, resolution=why)

    def acknowledge(self, by: str, at: datetime, reason: str) -> "Alert":
        """The same alert with somebody who looks after it.

        Raises:
            Conflict: It doesn't fire.
        """
        if not self.fires:
            raise Conflict(
                f"Alert {self.id} is {self.state.value}, so there is nothing to look after.",
                "`noria alerts list` shows those that fire.",
            )
        return replace(self, acknowledged=Acknowledgement(by=by, at=at, reason=reason))


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Alerts that nobody is told of until some moment. They fire, are shown and start runs all the same.

    Attributes:
        id: Identity, made from what it says.
        endpoint: Pattern (`*`, `?`, `[…]`) of the endpoints meant; one without any matches that name alone.
        monitor: Pattern of the monitors or rules meant.
        severity: Pattern of the severities meant.
        begun_at: Since when.
        until: Until when.
        by: Who asked for it.
        reason: Why.
        lifted_at: When somebody ended it before its time.
        lifted_by: Who did.
    """

    id: str
    endpoint: str = "*"
    monitor: str = "*"
    severity: str = "*"
    begun_at: datetime
    until: datetime
    by: str
    reason: str
    lifted_at: datetime | None = None
    lifted_by: str = ""

    def holds(self, now: datetime) -> bool:
        """Whether it is in force."""
        return self.lifted_at is None and self.begun_at <= now < self.until

    def covers(self, alert: Alert) -> bool:
        """Whether the alert is one of those meant."""
        return (
            fnmatchcase(alert.endpoint, self.endpoint)
            and fnmatchcase(alert.monitor, self.monitor)
            and fnmatchcase(alert.severity.value, self.severity)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleState:
    """The newest windows' values of what a rule watches. Folding a window in twice changes nothing.

    Attributes:
        id: `endpoint:rule`.
        endpoint: Endpoint watched.
        rule: Name of the rule.
        text: What the rule said; another text begins anew.
        seen: Newest windows with a value, oldest first.
    """

    id: str
    endpoint: str
    rule: str
    text: str
    seen: tuple[Seen, ...] = field(default=())


def silenced(alert: Alert, silences: "list[Silence]", now: datetime) -> Silence | None:
    """The silence that keeps an alert from being sent now, the one that lasts longest; None if none does."""
    found = [s for s in silences if s.holds(now) and s.covers(alert)]
    return max(found, key=lambda s: s.until, default=None)
