"""Windows, and what a monitor has seen so far: counts and log-capitals, which merge by addition."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum


class MonitorKind(StrEnum):
    """What a monitor watches."""

    TEXT_DRIFT = "text_drift"
    CATEGORICAL_DRIFT = "categorical_drift"
    NUMERIC_DRIFT = "numeric_drift"
    QUALITY = "quality"


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
        counts: Cells of a drift monitor; empty for a quality monitor.
        log_capitals: Of a quality monitor, one for each bet of the grid; empty for a drift monitor.
        log_e: Natural logarithm of the evidence; alarm when it reaches `log_threshold`.
        log_threshold: ln(K / alpha) for K monitors on the endpoint.
        numbers: What else is worth showing (effect sizes, running mean, floor).
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
    log_capitals: tuple[float, ...] = ()
    log_e: float = 0.0
    log_threshold: float = 0.0
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def alarms(self) -> bool:
        """Whether the evidence has reached the threshold."""
        return self.log_e >= self.log_threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowCursor:
    """How far an endpoint's windows are closed. `id` is the endpoint's name."""

    id: str
    closed_until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowCounts:
    """The cells of a drift monitor's newest window alone, to compare the next one with. `id` is its state's."""

    id: str
    endpoint: str
    window: Window
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Moved:
    """A cell, class or bin whose share changed, and examples of what falls into it now."""

    name: str
    share_before: float
    share_now: float
    examples: tuple[str, ...] = ()
