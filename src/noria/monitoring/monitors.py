"""Monitors: fold each closed window once into the evidence against the champion's baseline, and say when it is enough.

All monitors of an endpoint share one promise: together they raise a false alarm with probability alpha, for ever.
A window is read once, its rows are written once, and its evidence counts once, however often a crash repeats the work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from noria.domain.endpoint import Route, Target
from noria.domain.events import DriftDetected, QualityDropped, WindowClosed
from noria.domain.monitor import MonitorKind, MonitorState, Moved, Window, WindowCounts
from noria.evaluation.baseline import Baseline
from noria.evaluation.sequential import log_threshold
from noria.monitoring.baselines import Baselines, first_baseline
from noria.monitoring.folding import Folded, begin, fold_counts, fold_scores
from noria.monitoring.reading import Record, read_judgements, read_records
from noria.monitoring.rows import Place, drift_table_of, profile_table_of
from noria.monitoring.watching import watched
from noria.ports import RecordStore, StateStore, Steps
from noria.settings import Endpoint, MonitorName, Project

ENOUGH_TO_SHOW = 200
"""Values that say what moved: more windows are read again until there are as many."""


@dataclass(frozen=True, slots=True)
class Monitors:
    """The monitors of every endpoint of a project."""

    state: StateStore
    records: RecordStore
    baselines: Baselines
    project: Project

    def evaluate(self, event: WindowClosed, step: Steps) -> None:
        """Fold a closed window in."""
        step("fold the window", self._evaluate, event)

    def moved(self, state: MonitorState) -> tuple[Moved, ...]:
        """What changed most in what a drift monitor saw of late; nothing for a quality monitor."""
        route, endpoint = self.state.get(Route, state.endpoint), self.project.endpoints.get(state.endpoint)
        if route is None or endpoint is None or state.kind is MonitorKind.QUALITY:
            return ()
        model, version = route.champion.model, state.model_version
        baseline = self.baselines.of(model, version)
        watch = next(iter(watched(baseline, [MonitorName(state.monitor)])), None) if baseline else None
        if watch is None:
            return ()
        length = endpoint.monitors.window
        while True:
            since = max(state.since, state.folded_until - length)
            records = read_records(self.records, state.endpoint, since, state.folded_until)
            values = watch.values(records, f"{model}/{version}")
            if len(values) >= ENOUGH_TO_SHOW or since == state.since:
                return watch.moved(values)
            length *= 4

    def _evaluate(self, event: WindowClosed) -> Mapping[str, Any]:
        """Read, write, count; returns what it came to, for the workflow's own log."""
        endpoint, route = self.project.endpoints.get(event.endpoint), self.state.get(Route, event.endpoint)
        if endpoint is None or route is None:
            return {}
        turn = _Turn(event, endpoint, route.champion, self._states(event.endpoint, route.champion))
        if turn.since >= event.end:
            return {}
        records = read_records(self.records, event.endpoint, turn.since, event.end)
        commit = self.records.snapshot("inference")
        self._append("profile_metrics", profile_table_of(turn.place, records, endpoint.task, commit), event)
        baseline = self._baseline(turn)
        if baseline is None:
            return {"records": len(records)}
        folded = self._fold(turn, baseline, records)
        self._append("drift_metrics", drift_table_of([row for each in folded for row in each.rows]), event)
        return {"records": len(records), "alarms": self._save(folded)}

    def _states(self, endpoint: str, champion: Target) -> dict[str, MonitorState]:
        """What the monitors know of this champion; nothing if another one held its place meanwhile."""
        known = self.state.find(MonitorState, endpoint=endpoint)
        newest = known[0].model_version if known else ""
        return {s.monitor: s for s in known if s.model_version == champion.version == newest}

    def _baseline(self, turn: "_Turn") -> Baseline | None:
        """The champion's; one that came without gets its own from its first records, and is watched from then on."""
        champion = turn.champion
        baseline = self.baselines.of(champion.model, champion.version)
        if baseline is None:
            first = first_baseline(self.records, turn.event.endpoint, turn.endpoint, champion)
            if first is not None:
                self.baselines.keep(champion.model, champion.version, first)
        return baseline

    def _fold(self, turn: "_Turn", baseline: Baseline, records: Sequence[Record]) -> list[Folded]:
        """Every monitor's next state and rows."""
        monitors = turn.endpoint.monitors
        drifts = watched(baseline, monitors.watch)
        floor = baseline.floor if MonitorName.QUALITY in monitors.watch else None
        threshold = log_threshold(monitors.alpha, len(drifts) + (floor is not None))
        folded = []
        for watch in drifts:
            state = turn.state(watch.name, watch.kind)
            counts = watch.reference.cells.count([value for value, _ in watch.values(records, turn.champion.ref)])
            before = self.state.get(WindowCounts, state.id) if state.rows else None
            folded.append(fold_counts(state, watch, counts, before, turn.place, threshold))
        if floor is not None:
            state = turn.state(MonitorName.QUALITY, MonitorKind.QUALITY)
            said = read_judgements(self.records, turn.event.endpoint, turn.since, turn.event.end, turn.champion.ref)
            folded.append(fold_scores(state, [each.score for each in said], floor, turn.place, threshold))
        return folded

    def _append(self, table: str, rows: pa.Table, event: WindowClosed) -> None:
        """Write rows once for this window: its start in seconds grows from window to window."""
        if rows.num_rows:
            self.records.append(table, rows, f"monitor:{event.endpoint}", int(event.start.timestamp()))

    def _save(self, folded: Sequence[Folded]) -> list[str]:
        """Remember all states and tell the loop of those that alarm; an alarm told before is not told again."""
        with self.state.note() as note:
            for each in folded:
                note.put(each.state)
                if each.newest is not None:
                    note.put(each.newest)
                if each.state.alarms:
                    note.emit(alarm(each.state))
        return [each.state.monitor for each in folded if each.state.alarms]


@dataclass(frozen=True, slots=True)
class _Turn:
    """One window's turn."""

    event: WindowClosed
    endpoint: Endpoint
    champion: Target
    states: Mapping[str, MonitorState]

    @property
    def since(self) -> datetime:
        """Where to read from: the window's start, or earlier where one before it could not be folded in."""
        return max((state.folded_until for state in self.states.values()), default=self.event.start)

    @property
    def place(self) -> Place:
        """Where the window's rows belong."""
        window = Window(self.event.start, self.event.end)
        return Place(endpoint=self.event.endpoint, window=window, model=self.champion.ref)

    def state(self, monitor: MonitorName, kind: MonitorKind) -> MonitorState:
        """The monitor's state; a new one if this is its first window with this champion."""
        known = self.states.get(monitor)
        return known or begin(self.event.endpoint, monitor, kind, self.champion.version, self.since)


def alarm(state: MonitorState) -> DriftDetected | QualityDropped:
    """The event that tells the loop of a monitor's alarm."""
    kind = QualityDropped if state.kind is MonitorKind.QUALITY else DriftDetected
    return kind(endpoint=state.endpoint, monitor=state.monitor, state_id=state.id, since=state.since)
