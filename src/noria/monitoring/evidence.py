"""Evidence as a fold over kept states: a pure function of a monitor's state and what was kept of the next window.

Counts of drift monitors add up; scores are bet on window by window. So a window that is computed again,
because records came late or somebody asked, changes evidence by folding the kept states once more, and a new window
costs the same however many there were.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from noria.domain.monitor import MonitorState, Watch, Window
from noria.evaluation.drift import drift
from noria.evaluation.sequential import bet_counts, log_e_bets, log_e_since, no_bets, started
from noria.monitoring.computing import Key
from noria.monitoring.keeping import SCORES, Kept
from noria.monitoring.watching import Watched, asked_by


@dataclass(frozen=True, slots=True)
class Folded:
    """A monitor after some windows: its state after each, and whether it reached its threshold at any of them."""

    watched: Watched
    states: Sequence[MonitorState]

    @property
    def last(self) -> MonitorState:
        """Its state after the last window."""
        return self.states[-1]

    @property
    def alarmed(self) -> MonitorState | None:
        """Its state when it first alarmed; None if it never did."""
        return next((state for state in self.states if state.alarms), None)


def begin(watch: Watch, monitor: Watched, since: datetime, threshold: float) -> MonitorState:
    """A monitor that has seen nothing yet; its evidence begins with the first window that starts at that time."""
    return MonitorState(
        id=f"{watch.endpoint}:{monitor.name}:{watch.version}",
        endpoint=watch.endpoint,
        monitor=monitor.name,
        kind=monitor.kind,
        model_version=watch.version,
        since=since,
        folded_until=since,
        rows=0,
        log_capitals=no_bets() if monitor.kind.bets else (),
        log_threshold=threshold,
        monitor_version=watch.monitor_version,
        column=monitor.column,
    )


def fold(
    state: MonitorState, monitor: Watched, windows: Iterable[Window], kept: Mapping[Key, Kept], champion: str
) -> Folded:
    """A monitor after windows that follow one another.

    Args:
        state: Before them.
        monitor: What it watches.
        windows: In order.
        kept: What was kept of them, of each model and of all together.
        champion: The model whose answers are watched, `name/version`.
    """
    states = []
    for window in windows:
        found = kept.get(Key(window, asked_by(monitor.column, champion), "", "", monitor.column))
        state = _next(state, monitor, window, found)
        states.append(state)
    return Folded(monitor, states or [state])


def _next(state: MonitorState, monitor: Watched, window: Window, found: Kept | None) -> MonitorState:
    """The state after one window. What is no evidence only moves the time on: nothing, values in other cells, windows
    before it began, such as those that the reference was made from."""
    reference, early = monitor.reference, window.start < state.since
    moved_on = replace(state, folded_until=max(state.folded_until, window.end))
    if found is None or found.cells != reference.digest or early or not found.state.cells.sum():
        return moved_on
    new = found.state.cells
    if monitor.kind.bets and monitor.floor is not None:
        capitals = bet_counts(state.log_capitals, new, monitor.floor)
        rows = state.rows + int(new.sum())
        mean = (state.numbers.get("mean", 0.0) * state.rows + found.state.mean * int(new.sum())) / rows
        promised = monitor.floor if reference.digest == SCORES.digest else 1 - monitor.floor
        numbers = {"mean": mean, "floor": promised}
        return replace(moved_on, rows=rows, log_capitals=capitals, log_e=log_e_bets(capitals), numbers=numbers)
    same = len(state.counts) == len(new)
    total, starts = (new + np.array(state.counts, np.int64), state.starts) if same else (new, ())
    cells = reference.cells
    sizes = drift(total, reference.counts, cells)
    known = {"js_distance": sizes.js_distance, "population_stability_index": sizes.population_stability_index}
    return replace(
        moved_on,
        rows=int(total.sum()),
        counts=tuple(total.tolist()),
        starts=started(starts, total, reference.counts),
        log_e=log_e_since(total, reference.counts, starts, cells.groupings, cells.ordered),
        numbers={name: number for name, number in known.items() if number is not None},
    )
