"""Each kind of monitor: how often unchanged streams alarm, and how soon changed ones do."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.statistics import counted, scored
from benchmarks.statistics.bounds import fixed_n, fixed_n_shift
from noria.evaluation.quality import wilson

ALPHA = 0.05
LINE = math.log(1 / ALPHA)
REFERENCES = (500, 5_000, 50_000)
TOLD = 5_000
"""The reference that `median_delay` is told for; the others are in `by_reference`."""
LOOKS, ROWS = 1000, 100
"""Of an unchanged stream."""
DELAY_LOOKS, DELAY_ROWS = 1000, 20
"""Of a changed one: it is looked at every 20 rows, so that a delay is known to 20 rows."""
CALM = 20_000
"""Rows before a change that comes late."""
PAIRED_ROWS = 1000
ARL = 10_000
"""Scores that the detector promises to run before a false alarm, on average."""


@dataclass(frozen=True)
class Plan:
    """How much is simulated.

    Attributes:
        null: Unchanged streams of a kind, over all references.
        delay: Changed streams for each change and reference.
        peer_streams: Streams that a peer is asked about at most.
        peer_seconds: Longest time for one peer and kind.
    """

    null: int
    delay: int
    peer_streams: int
    peer_seconds: float


QUICK, FULL = Plan(240, 20, 5, 15), Plan(1500, 100, 20, 120)
Random = np.random.Generator
Alarm = Callable[[Random, int], int | None]
"""A stream and its number → rows until its alarm."""


def _random(*seed: int) -> Random:
    return np.random.default_rng(list(seed))


def _nulls(alarms: Iterable[int | None]) -> dict[str, Any]:
    first = list(alarms)
    raised = sum(alarm is not None for alarm in first)
    interval = wilson(raised, len(first))
    return {
        "alarm_rate_null": raised / len(first),
        "alpha": ALPHA,
        "alarms": raised,
        "streams": len(first),
        "interval": [interval.low, interval.high],
    }


def _median(alarms: Sequence[int | None]) -> float | None:
    """Rows; None if half of the streams don't alarm."""
    middle = statistics.median(math.inf if alarm is None else alarm for alarm in alarms)
    return None if math.isinf(middle) else middle


def _finite(value: float) -> float | None:
    return None if math.isinf(value) else round(value, 1)


def _counted(
    kind: int,
    plan: Plan,
    stream: Callable[..., counted.Counted],
    changes: Mapping[str, Any],
    bound: Callable[[Any, int], float],
) -> dict[str, Any]:
    """A kind whose streams are counted in cells, with references of several sizes."""
    each = plan.null // len(REFERENCES)
    by_reference: dict[str, Any] = {}
    every: list[int | None] = []
    for reference in REFERENCES:
        alarms = [
            stream(_random(kind, 0, reference, run), reference, run=run).first_alarm(LINE, LOOKS, ROWS)
            for run in range(each)
        ]
        every += alarms
        found = {"alarm_rate_null": sum(a is not None for a in alarms) / each, "median_delay": {}, "found": {}}
        for number, (name, change) in enumerate(changes.items(), 1):
            delays = [
                stream(_random(kind, number, reference, run), reference, change, run=run).first_alarm(
                    LINE, DELAY_LOOKS, DELAY_ROWS
                )
                for run in range(plan.delay)
            ]
            found["median_delay"][name] = _median(delays)
            found["found"][name] = sum(d is not None for d in delays) / plan.delay
        found["fixed_n"] = {name: _finite(bound(change, reference)) for name, change in changes.items()}
        by_reference[str(reference)] = found
    told = by_reference[str(TOLD)]
    return {
        **_nulls(every),
        "median_delay": told["median_delay"],
        "fixed_n": told["fixed_n"],
        "by_reference": by_reference,
    }


def numeric(plan: Plan) -> dict[str, Any]:
    """Columns of numbers whose mean moves."""
    changes = {"0.1 sd": 0.1, "0.2 sd": 0.2}
    found = _counted(1, plan, counted.numbers, changes, lambda shift, n: fixed_n_shift(shift, ALPHA, n))
    late = [_late(_random(1, 9, run)) for run in range(plan.delay)]
    found["after_calm"] = {"calm_rows": CALM, "change": "0.2 sd", "median_delay": _median(late)}
    return found


def _late(random: Random) -> int | None:
    """Rows from the change until the alarm, if many calm rows came first; a false alarm before it counts as at once."""
    stream = counted.numbers(random, TOLD, 0.2, calm=CALM)
    alarm = stream.first_alarm(LINE, CALM // DELAY_ROWS + DELAY_LOOKS, DELAY_ROWS)
    return None if alarm is None else max(alarm - CALM, 0)


def categorical(plan: Plan) -> dict[str, Any]:
    """Columns of categories in which a class rises or a new one comes."""

    def bound(change: str, reference: int) -> float:
        law = np.append(counted.LAWS["classes"], 0.0)
        after = 0.95 * law
        after[2 if change == "rises" else -1] += 0.05
        return fixed_n(law, after, ALPHA, reference)

    return _counted(2, plan, counted.categories, {"a class +5%": "rises", "a new class 5%": "new"}, bound)


def text(plan: Plan) -> dict[str, Any]:
    """Messages of which some are about a new topic."""

    def bound(share: float, reference: int) -> float:
        _, before, now = counted.topics(reference, 0)
        return fixed_n(before, (1 - share) * before + share * now, ALPHA, reference / 2)

    changes = {f"a new topic {share:.0%}": share for share in (0.02, 0.05, 0.1)}
    return _counted(3, plan, counted.texts, changes, bound)


def _streams(
    kind: int, plan: Plan, null: Sequence[Alarm], changes: Mapping[str, tuple[Alarm, float]]
) -> dict[str, Any]:
    """A kind without a reference: unchanged streams of several sorts by turns, and changed ones with their bound."""
    alarms = [null[run % len(null)](_random(kind, 0, run), run) for run in range(plan.null)]
    delays = {
        name: [alarm(_random(kind, number, run), run) for run in range(plan.delay)]
        for number, (name, (alarm, _)) in enumerate(changes.items(), 1)
    }
    return {
        **_nulls(alarms),
        "median_delay": {name: _median(found) for name, found in delays.items()},
        "found": {name: sum(d is not None for d in found) / plan.delay for name, found in delays.items()},
        "fixed_n": {name: _finite(bound) for name, (_, bound) in changes.items()},
    }


def score(plan: Plan) -> dict[str, Any]:
    """Scores on their floor, and below it by some points."""

    def alarm(mean: float, looks: int, rows: int) -> Alarm:
        return lambda random, run: scored.score_alarm(random, mean, LINE, looks, rows, run)

    changes = {}
    for points in (2, 5):
        mean = scored.FLOOR - points / 100
        bound = fixed_n([1 - scored.FLOOR, scored.FLOOR], [1 - mean, mean], ALPHA)
        changes[f"-{points} points"] = (alarm(mean, DELAY_LOOKS, DELAY_ROWS), bound)
    found = _streams(4, plan, [alarm(scored.FLOOR, LOOKS, ROWS)], changes)
    runs = [
        scored.detector_run(_random(4, 9, run), ARL, 5 * ARL // ROWS, ROWS) for run in range(max(plan.null // 5, 50))
    ]
    return found | {"detector": {"promised_run": ARL, "mean_run": statistics.fmean(runs), "streams": len(runs)}}


def canary(plan: Plan) -> dict[str, Any]:
    """Canaries that fail as often as their champion, and more often, at half and a tenth of the traffic."""

    def alarm(rate: float, share: float, looks: int, rows: int) -> Alarm:
        return lambda random, _: scored.canary_alarm(random, rate, share, LINE, looks, rows)

    changes = {}
    for rate, share in ((0.04, 0.5), (0.06, 0.5), (0.2, 0.1)):
        bound = _failures([1 - share, share], [scored.CHAMPION_RATE, rate])
        name = f"{scored.CHAMPION_RATE:.0%} → {rate:.0%}, {share:.0%} of traffic"
        changes[name] = (alarm(rate, share, DELAY_LOOKS, DELAY_ROWS), bound)
    null = [alarm(scored.CHAMPION_RATE, share, LOOKS, ROWS) for share in (0.5, 0.1)]
    return _streams(5, plan, null, changes)


def parity(plan: Plan) -> dict[str, Any]:
    """Groups that are served alike, and one of four served worse."""

    def alarm(worst: float, looks: int, rows: int) -> Alarm:
        return lambda random, _: scored.parity_alarm(random, worst, LINE, looks, rows)

    changes = {}
    for worst in (0.15, 0.2):
        rates = [scored.GROUP_RATE, scored.GROUP_RATE, worst, scored.GROUP_RATE]
        name = f"{scored.GROUP_RATE:.0%} → {worst:.0%} in one of four"
        changes[name] = (alarm(worst, DELAY_LOOKS, DELAY_ROWS), _failures(scored.GROUPS, rates))
    return _streams(6, plan, [alarm(scored.GROUP_RATE, LOOKS, ROWS)], changes)


def paired(plan: Plan) -> dict[str, Any]:
    """Candidates that are worse by the margin and pass, and equally good ones that do."""
    worse = [
        PAIRED_ROWS if scored.passes(_random(7, 0, run), -scored.MARGIN, PAIRED_ROWS, ALPHA) else None
        for run in range(plan.null)
    ]
    power = {
        str(rows): statistics.fmean(scored.passes(_random(7, rows, run), 0.0, rows, ALPHA) for run in range(plan.delay))
        for rows in (500, 1000, 2000)
    }
    return {**_nulls(worse), "equal_passes": power}


def _failures(shares: Sequence[float], rates: Sequence[float]) -> float:
    """The bound for failures of groups with these shares of the traffic, against all failing alike."""
    part, rate = np.asarray(shares), np.asarray(rates)
    same = np.full(part.size, part @ rate)
    before, after = (np.concatenate([part * r, part * (1 - r)]) for r in (same, rate))
    return fixed_n(before, after, ALPHA)


KINDS: Mapping[str, Callable[[Plan], dict[str, Any]]] = {
    "numeric": numeric,
    "categorical": categorical,
    "text": text,
    "score": score,
    "canary": canary,
    "parity": parity,
    "paired": paired,
}
