"""Windows, and what a monitor has seen so far: counts and log-capitals, which merge by addition."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any


class MonitorKind(StrEnum):
    """What a monitor watches."""

    TEXT_DRIFT = "text_drift"
    CATEGORICAL_DRIFT = "categorical_drift"
    NUMERIC_DRIFT = "numeric_drift"
    QUALITY = "quality"
    SCORE = "score"
    """A share of what is good, such as requests without an error, against what was promised."""

    @property
    def bets(self) -> bool:
        """Whether its evidence is bets on scores against a floor; else it compares counts with a reference."""
        return self in (MonitorKind.QUALITY, MonitorKind.SCORE)


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A tumbling span of event time, start included, end excluded."""

    start: datetime
    end: datetime

    @classmethod
    def holding(cls, moment: datetime, granularity: timedelta) -> "Window":
        """The window of that granularity, counted from the epoch, that holds the moment."""
        seconds = int(granularity.total_seconds())
        start = datetime.fromtimestamp(int(moment.timestamp()) // seconds * seconds, moment.tzinfo)
        return cls(start, start + granularity)

    def next(self) -> "Window":
        """The window that begins where this one ends."""
        return Window(self.end, self.end + (self.end - self.start))


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorState:
    """The evidence of one monitor against the baseline of one model version.

    Attributes:
        id: `endpoint:monitor:model version`.
        endpoint: Endpoint watched.
        monitor: Name of the monitor in the project file.
        kind: What it watches.
        model_version: Version whose baseline it compares with.
        since: End of the window before the first one it folded in.
        folded_until: End of the last window it folded in; a window is folded in once.
        rows: Rows seen so far.
        counts: Cells of a drift monitor; empty for one that bets.
        starts: Where the evidence of a drift monitor began anew: the number of each start, and the counts then.
        log_capitals: Of a monitor that bets, one for each stake of the grid; empty for a drift monitor.
        log_e: Natural logarithm of the evidence; alarm when it reaches `log_threshold`.
        log_threshold: ln(K / alpha) for K monitors on the endpoint.
        numbers: What else is worth showing (effect sizes, running mean, floor).
        monitor_version: Grows when the project file changes what is watched; the evidence then begins anew.
        column: The observed column that it watches.
    """

    id: str
    endpoint: str
    monitor: str
    kind: MonitorKind
    model_version: str
    since: datetime
    folded_until: datetime
    rows: int
    counts: tuple[int, ...] = ()
    starts: tuple[tuple[int, ...], ...] = ()
    log_capitals: tuple[float, ...] = ()
    log_e: float = 0.0
    log_threshold: float = 0.0
    numbers: Mapping[str, float] = field(default_factory=dict)
    monitor_version: int = 1
    column: str = ""

    @property
    def alarms(self) -> bool:
        """Whether the evidence has reached the threshold."""
        return self.log_e >= self.log_threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What an endpoint's traffic is compared with, and how, from when on: a new champion, or a change of the project
    file's monitors, begins another one. So a window of the past is computed as it was watched then.

    Attributes:
        id: `endpoint:number`.
        endpoint: The endpoint's name.
        number: Grows by one with each.
        model: The champion's model.
        version: Its version.
        monitor_version: Grows by one when the monitors were changed.
        monitors: What the project file says of them, as JSON values; what it doesn't say is left out.
        since: Start of its first window.
        counted_until: End of the last window that was computed while it was the newest.
        held: The newest window before that which held anything.
    """

    id: str
    endpoint: str
    number: int
    model: str
    version: str
    monitor_version: int
    monitors: Mapping[str, Any]
    since: datetime
    counted_until: datetime
    held: Window | None = None

    @property
    def ref(self) -> str:
        """`model/version`."""
        return f"{self.model}/{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowCursor:
    """How far an endpoint's windows are closed. `id` is the endpoint's name.

    Attributes:
        revision: Grows when windows are closed again; windows that are closed from then on carry it.
    """

    id: str
    closed_until: datetime
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LateRecords:
    """Moments of records that go into windows which are closed already. `id` is the endpoint's name."""

    id: str
    endpoint: str
    starts: tuple[datetime, ...]


@dataclass(frozen=True, slots=True)
class Moved:
    """A cell, class or bin whose share changed, and examples of what falls into it now."""

    name: str
    share_before: float
    share_now: float
    examples: tuple[str, ...] = ()
