"""Monitors: compute each closed window, fold it into the evidence against the champion's baseline, and say when that is
enough.

All monitors of an endpoint share one promise: together they raise a false alarm with probability alpha, for ever. A
window's rows are replaced as a whole and evidence is a fold over what was kept, so doing a window again, after a crash
or because records came late, comes to the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow.compute as pc

from noria.domain.endpoint import Route
from noria.domain.events import DriftDetected, QualityDropped, WindowClosed
from noria.domain.monitor import MonitorKind, MonitorState, Moved, Watch, Window
from noria.evaluation.observations import observe
from noria.monitoring import watches
from noria.monitoring.baselines import Baselines, from_traffic
from noria.monitoring.computing import COLUMNS, EVERYONE
from noria.monitoring.counting import Counting, Scorers, no_scorers, wanted
from noria.monitoring.recomputing import Done, Raced, Recomputing, Told
from noria.monitoring.watching import Seen, Watched, asked_by, watched
from noria.monitoring.windows import CATCH_UP, due, holding_windows
from noria.ports import ComputeEngine, RecordStore, StateStore, Steps
from noria.settings import Endpoint, Project

ENOUGH_TO_SHOW = 200
"""Values that say what moved: more windows are read again until there are as many."""
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Monitors:
    """The monitors of every endpoint of a project.

    Attributes:
        engine: What computes spans of many records; None: this process.
        scorers: Columns that are wanted → the installed scorers that measure them.
    """

    state: StateStore
    records: RecordStore
    baselines: Baselines
    project: Project
    engine: ComputeEngine | None = None
    scorers: Scorers = no_scorers

    def evaluate(self, event: WindowClosed, step: Steps) -> None:
        """Fold a closed window in, or sum a longer one up."""
        step("fold the window", self._evaluate, event)

    def moved(self, state: MonitorState) -> tuple[Moved, ...]:
        """What changed most in what a drift monitor saw of late; nothing for one that bets."""
        endpoint = self.project.endpoints.get(state.endpoint)
        watch = next((w for w in watches.known(self.state, state.endpoint) if w.version == state.model_version), None)
        if endpoint is None or watch is None or state.kind.bets:
            return ()
        settings = watches.settings_of(watch)
        baseline = self.baselines.of(watch.model, watch.version, settings)
        monitor = next((m for m in watched(baseline, settings) if m.name == state.monitor), None)
        if monitor is None:
            return ()
        length = settings.window
        while True:
            since = max(state.since, state.folded_until - length)
            values = self._seen(endpoint, watch, monitor, since, state.folded_until)
            if len(values) >= ENOUGH_TO_SHOW or since == state.since:
                return monitor.moved(values)
            length *= 4

    def _seen(
        self, endpoint: Endpoint, watch: Watch, monitor: Watched, since: datetime, until: datetime
    ) -> Sequence[Seen]:
        """The values that a monitor saw in a span of time, and the texts that they came with."""
        rows = self.records.scan("inference", columns=COLUMNS, endpoint=watch.endpoint, since=since, until=until)
        found = observe(rows, endpoint.task, [monitor.column, "input"])
        records, items = found.records, found.items
        everyone = asked_by(monitor.column, watch.ref) == EVERYONE
        mine = pc.or_(pc.equal(records["model"], watch.ref), everyone)
        items = items.filter(mine.take(items["record"]))
        if monitor.column in records.column_names:
            return [(value, "") for value in records.filter(mine)[monitor.column].drop_null().to_pylist()]
        shown = items[monitor.column if monitor.column == "output" else "input"].to_pylist()
        pairs = zip(items[monitor.column].to_pylist(), shown, strict=True)
        return [(value, text or "") for value, text in pairs if value is not None]

    def _evaluate(self, event: WindowClosed) -> Mapping[str, Any]:
        """Compute, write, fold; returns what it came to, for the workflow's own log."""
        endpoint, route = self.project.endpoints.get(event.endpoint), self.state.get(Route, event.endpoint)
        if endpoint is None or route is None:
            return {}
        window = Window(event.start, event.end)
        for left in reversed(range(_TRIES)):
            try:
                return self._longer(event.endpoint, window) if event.longer else self._window(endpoint, route, event)
            except Raced:
                if not left:
                    raise
        raise AssertionError("unreachable")

    def _window(self, endpoint: Endpoint, route: Route, event: WindowClosed) -> Mapping[str, Any]:
        name, window = event.endpoint, Window(event.start, event.end)
        watch, every = watches.current(self.state, name, route.champion, endpoint.monitors, window.start)
        if window.start < watch.since:  # one of the past, closed again
            watch = watches.at(every, window.start) or every[-1]
        windows = [*self._missed(watch, every, window), window]
        done = self.recompute(endpoint, watch, windows, newest=watch is every[0])
        self._learn(endpoint, watch)
        return {"records": done.records, "alarms": [f.watched.name for f in done.folded if f.alarmed]}

    def _longer(self, name: str, window: Window) -> Mapping[str, Any]:
        every = watches.known(self.state, name)
        watch = watches.at(every, window.start) or (every[-1] if every else None)
        if watch is not None and watch.since < window.end:
            self.recomputing.sum_up(watch, window)
        return {}

    def recompute(
        self, endpoint: Endpoint, watch: Watch, windows: Sequence[Window], *, newest: bool, told: Told = lambda _: None
    ) -> Done:
        """Compute windows of a watch, keep what came of it, and tell the loop of alarms; an alarm that was told is not
        told again.

        Args:
            endpoint: The endpoint's settings.
            watch: The watch that they belong to.
            windows: In order.
            newest: Whether it is the watch of today: what an earlier one would have alarmed of is no longer served.
            told: Is told how many of the windows are computed.
        """
        watch = self.state.get(Watch, watch.id) or watch
        found = self.state.find(MonitorState, endpoint=watch.endpoint) if newest else []
        states = {state.monitor: state for state in found if _of(state, watch)}
        folded_on = replace(watch, counted_until=max(watch.counted_until, windows[-1].end))
        done = self.recomputing.windows(endpoint, watch, windows, states, told)
        after = replace(folded_on, held=done.held or watch.held) if windows[-1].end > watch.counted_until else folded_on
        with self.state.note() as note:
            if note.get(Watch, watch.id) != watch:
                raise Raced(f"Somebody else computed windows of {watch.endpoint}.", "Try again in a while.")
            note.put(after)
            for each in done.folded if newest else ():
                known = note.get(MonitorState, each.last.id)
                if known is not None and _of(known, watch) and known != states.get(known.monitor):
                    raise Raced(f"Somebody else folded windows of {watch.endpoint} in.", "Try again in a while.")
                note.put(each.last)
                if each.alarmed is not None:
                    note.emit(alarm(each.alarmed))
        return done

    def _missed(self, watch: Watch, every: Sequence[Watch], window: Window) -> list[Window]:
        """Windows before that could not be computed when they closed."""
        since = watch.counted_until
        if watch is not every[0] or since >= window.start:
            return []
        length = watches.settings_of(watch).window
        if (window.start - since) / length <= CATCH_UP:
            return [w for w in due(since, length, window.start) if w.end <= window.start]
        return holding_windows(self.records, watch.endpoint, since, window.start, length)

    def _learn(self, endpoint: Endpoint, watch: Watch) -> None:
        """Complete the baseline, once there are enough records, with what the training data can't know; what is watched
        by it is watched from then on."""
        settings = watches.settings_of(watch)
        known = self.baselines.of(watch.model, watch.version, settings)
        if known is not None and known.complete:
            return
        columns = wanted(endpoint.task, settings)
        found = from_traffic(self.records, watch, endpoint, settings, columns, self.scorers(columns))
        if found is not None:
            self.baselines.keep(watch.model, watch.version, known.completed(found) if known else found, settings)

    @property
    def recomputing(self) -> Recomputing:
        """What computes windows."""
        return Recomputing(self.records, Counting(self.records, self.engine, self.scorers), self.baselines)


def _of(state: MonitorState, watch: Watch) -> bool:
    """Whether a state is of a watch: a version that becomes champion again is watched anew."""
    same = (state.model_version, state.monitor_version) == (watch.version, watch.monitor_version)
    return same and state.since >= watch.since


def alarm(state: MonitorState) -> DriftDetected | QualityDropped:
    """The event that tells the loop of a monitor's alarm."""
    kind = QualityDropped if state.kind is MonitorKind.QUALITY else DriftDetected
    return kind(endpoint=state.endpoint, monitor=state.monitor, state_id=state.id, since=state.since)
