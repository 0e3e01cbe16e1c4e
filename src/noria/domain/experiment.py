"""An experiment: versions that answer an endpoint's callers side by side until it is known which is better."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from math import ceil, log

BINS = 120
"""Bins of answer times: equally wide on a logarithmic scale, from 1 ms to 13 minutes."""
RATIO = 1.12
"""Each bin's upper edge over its lower one: so exactly are quantiles of times known."""


class ExperimentState(StrEnum):
    """Where an experiment stands."""

    STARTING = "starting"
    """Its versions are brought up."""
    RUNNING = "running"
    ENDED = "ended"


class Metric(StrEnum):
    """By what the better version is found."""

    SUCCESS = "success"
    """Right or good answers, of those that somebody labelled or scored."""
    ERRORS = "errors"
    LATENCY = "latency"
    """The median time of an answer."""
    COST = "cost"
    """The mean cost of a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A version that takes part.

    Attributes:
        model: Registered model.
        version: Version of it.
        verdict_id: Verdict that allows it.
        weight: Per cent of the traffic that it answers.
    """

    model: str
    version: str
    verdict_id: str
    weight: int

    @property
    def ref(self) -> str:
        """`model/version`."""
        return f"{self.model}/{self.version}"


@dataclass(frozen=True, slots=True)
class Tally:
    """What was seen of a version: sums, so that they add up over looks.

    Attributes:
        requests: Requests that went to it.
        errors: Of these, those that failed.
        labelled: Answers of which somebody said whether they are right or good.
        wrong: Of these, those that are not.
        priced: Requests whose cost is known.
        cost: Sum of those costs, US dollars.
        cost_squares: Sum of their squares.
        times: Answers by how long they took, see `bin_of`; empty if there were none.
    """

    requests: int = 0
    errors: int = 0
    labelled: int = 0
    wrong: int = 0
    priced: int = 0
    cost: float = 0.0
    cost_squares: float = 0.0
    times: tuple[int, ...] = ()

    def __add__(self, other: "Tally") -> "Tally":
        both = zip(self.times, other.times, strict=True) if self.times and other.times else None
        return Tally(
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            labelled=self.labelled + other.labelled,
            wrong=self.wrong + other.wrong,
            priced=self.priced + other.priced,
            cost=self.cost + other.cost,
            cost_squares=self.cost_squares + other.cost_squares,
            times=tuple(a + b for a, b in both) if both is not None else self.times or other.times,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """The state of an experiment; survives the death of any process.

    Attributes:
        id: Identity.
        endpoint: Endpoint whose callers take part.
        state: Where it stands.
        variants: The versions; the first is the champion.
        metric: By what the better version is found.
        alpha: Probability of finding a difference, in that metric, where there is none.
        max_requests: Requests after which it ends undecided.
        margin: Versions that differ by less are as good as equal; 0 to go on until they differ.
        floor: Per cent of the traffic that each version keeps where the split adapts; 0 for a split that stays.
        promote: Whether a winner becomes champion.
        started_at: When it was asked for.
        started_by: By whom.
        reason: Why.
        changed_at: When its state or its split last changed.
        began_at: When callers began to take part; what was asked before isn't counted.
        cursor_us: Newest outcome that was looked at, microseconds since the epoch.
        feedback_cursor_us: Newest feedback that was looked at.
        seen: `table:spool` → highest sequence number that was counted.
        tallies: `model/version` → what was seen of it.
        weighed: Pair (`metric:better>worse`) → what the evidence holds already: (bad, all) of both.
        log_e: Pair → ln evidence that the one does better than the other; absent is 0.
        verdict: How it ended, in words.
        winner: `model/version` that is better than all others, empty if none is.
    """

    id: str
    endpoint: str
    state: ExperimentState
    variants: tuple[Variant, ...]
    metric: Metric
    alpha: float
    max_requests: int
    margin: float
    floor: int
    promote: bool
    started_at: datetime
    started_by: str
    reason: str
    changed_at: datetime
    began_at: datetime
    cursor_us: int
    feedback_cursor_us: int
    seen: Mapping[str, int] = field(default_factory=dict)
    tallies: Mapping[str, Tally] = field(default_factory=dict)
    weighed: Mapping[str, tuple[int, int, int, int]] = field(default_factory=dict)
    log_e: Mapping[str, float] = field(default_factory=dict)
    verdict: str = ""
    winner: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state is ExperimentState.ENDED

    @property
    def requests(self) -> int:
        """Requests of all versions together."""
        return sum(tally.requests for tally in self.tallies.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Borrowed:
    """Versions that somebody asks beside the traffic, whose model servers the worker leaves alone until then."""

    endpoint: str
    refs: tuple[str, ...]
    until: datetime


def bin_of(ms: float) -> int:
    """The bin of a time in milliseconds; bin 0 is up to 1 ms, the last one everything beyond its lower edge."""
    return min(max(ceil(log(max(ms, 1.0)) / log(RATIO) - 1e-9), 0), BINS - 1)


def edges(bin: int) -> tuple[float, float]:
    """Between which milliseconds the times of a bin lie."""
    return (0.0 if bin == 0 else RATIO ** (bin - 1)), RATIO**bin
