"""How evidence grows by one window: pure functions from a monitor's state and what the window held to the next state.

Each also says what the window's rows in the drift table are: against the baseline, and against the window before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import ArrayLike

from noria.domain.monitor import MonitorKind, MonitorState, WindowCounts
from noria.evaluation.drift import Drift
from noria.evaluation.profile import Row
from noria.evaluation.sequential import bet, log_e_bets, log_e_two_sample, no_bets
from noria.monitoring.rows import Column, Place, against_baseline, against_window
from noria.monitoring.watching import Watched


@dataclass(frozen=True, slots=True)
class Folded:
    """A monitor after a window: its new state, the window's rows, and the window's own counts if it held anything."""

    state: MonitorState
    rows: Sequence[Row] = ()
    newest: WindowCounts | None = None


def begin(endpoint: str, monitor: str, kind: MonitorKind, version: str, since: datetime) -> MonitorState:
    """A monitor that has seen nothing yet."""
    return MonitorState(
        id=f"{endpoint}:{monitor}:{version}",
        endpoint=endpoint,
        monitor=monitor,
        kind=kind,
        model_version=version,
        since=since,
        folded_until=since,
        rows=0,
        log_capitals=no_bets() if kind is MonitorKind.QUALITY else (),
    )


def fold_counts(
    state: MonitorState,
    watch: Watched,
    counts: ArrayLike,
    before: WindowCounts | None,
    place: Place,
    threshold: float,
) -> Folded:
    """A drift monitor after a window.

    Args:
        state: Before it; if that was counted in other cells, the counts begin anew.
        watch: What the monitor watches.
        counts: The window's values in each cell, shape (K,).
        before: The newest window before it that held anything.
        place: Where the rows belong.
        threshold: ln(K / alpha).
    """
    new, reference = np.asarray(counts, np.int64), watch.reference
    old = np.array(state.counts if len(state.counts) == len(new) else [0] * len(new), np.int64)
    total = old + new
    sizes = watch.drift(total, reference.counts)
    after = replace(
        state,
        folded_until=place.window.end,
        rows=int(total.sum()),
        counts=tuple(total.tolist()),
        log_e=log_e_two_sample(total, reference.counts, reference.cells.groupings, reference.cells.ordered),
        log_threshold=threshold,
        numbers=_numbers(js_distance=sizes.js_distance, population_stability_index=sizes.population_stability_index),
    )
    if not new.sum():
        return Folded(after)
    newest = WindowCounts(id=state.id, endpoint=state.endpoint, window=place.window, counts=tuple(new.tolist()))
    delta = int(new.sum() - reference.counts.sum())
    about = Column(state.monitor, watch.column, watch.data_type)
    rows = [against_baseline(place, about, watch.drift(new, reference.counts), after, count_delta=delta)]
    if before is not None and len(before.counts) == len(new):
        delta = int(new.sum()) - sum(before.counts)
        found = watch.drift(new, before.counts)
        rows.append(against_window(place, about, found, before.window, count_delta=delta))
    return Folded(after, rows, newest)


def fold_scores(state: MonitorState, scores: Sequence[float], floor: float, place: Place, threshold: float) -> Folded:
    """A quality monitor after a window, likewise.

    Args:
        state: Before it.
        scores: Of the window, 0 to 1.
        floor: Average that was promised.
        place: Where the row belongs.
        threshold: ln(K / alpha).
    """
    capitals = bet(state.log_capitals, scores, floor)
    rows, total = state.rows + len(scores), state.numbers.get("mean", 0.0) * state.rows + sum(scores)
    after = replace(
        state,
        folded_until=place.window.end,
        rows=rows,
        log_capitals=capitals,
        log_e=log_e_bets(capitals),
        log_threshold=threshold,
        numbers=_numbers(mean=total / rows if rows else None, floor=floor),
    )
    if not scores:
        return Folded(after)
    mean = sum(scores) / len(scores)
    about = Column(state.monitor, "score", "double")
    return Folded(after, [against_baseline(place, about, Drift(), after, mean=mean, avg_delta=mean - floor)])


def _numbers(**numbers: float | None) -> dict[str, float]:
    return {name: number for name, number in numbers.items() if number is not None}
