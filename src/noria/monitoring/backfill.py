"""Computing history again: `noria monitor run`.

Each window is computed as it was watched when it closed, its rows are replaced, and the evidence that rests on it is
folded anew; so doing it twice gives the same tables. Windows from before anything was watched are added to the first
watch: its evidence then begins with them. The project's rules look at the newest of them once more, in the worker.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from noria.domain.endpoint import Route
from noria.domain.errors import InvalidRequest, NotReady
from noria.domain.events import WindowJudged
from noria.domain.monitor import Watch, Window, WindowCursor
from noria.monitoring import watches
from noria.monitoring.alerts.rules import TRAIL
from noria.monitoring.monitors import Monitors
from noria.monitoring.recomputing import Raced
from noria.monitoring.windows import CATCH_UP, due, holding, holding_windows
from noria.ports import Clock
from noria.settings import Endpoint

_TRIES = 3


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What was computed again.

    Attributes:
        endpoint: Whose windows.
        windows: How many were computed from records.
        longer: How many were summed from them.
        records: Requests in them.
        alarms: Monitors that reached their threshold at any of them.
    """

    endpoint: str
    windows: int = 0
    longer: int = 0
    records: int = 0
    alarms: tuple[str, ...] = ()


Told = Callable[[int, int], None]
"""Is told how many windows are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Backfill:
    """Computes windows of the past again."""

    monitors: Monitors
    clock: Clock

    def run(self, name: str, since: datetime, until: datetime, told: Told = lambda _, __: None) -> Backfilled:
        """Compute an endpoint's windows that are over and lie, at least in part, in a span of time.

        Args:
            name: The endpoint's.
            since: Start of the span; the window that holds it is computed whole.
            until: End of the span; what isn't over yet is left for the worker.
            told: Is told how far it is.

        Raises:
            InvalidRequest: The span is empty, or its records are past their retention.
            NotReady: No version of the endpoint has answered yet.
        """
        endpoint = self.monitors.project.endpoints[name]
        route = self.monitors.state.get(Route, name)
        if route is None:
            raise NotReady(f"{name} has no version that answers yet.", "Run `noria up` until it has one.")
        length = endpoint.monitors.window
        since, until = holding(since, length).start, min(until, self._over(name, endpoint))
        self._check(name, endpoint, since, until)
        watch, every = watches.current(self.monitors.state, name, route.champion, endpoint.monitors, since)
        if since < every[-1].since:
            earlier = watches.extended(every[-1], since)
            with self.monitors.state.note() as note:
                note.put(earlier)
            every = [*every[:-1], earlier]
        windows = self._windows(name, endpoint, since, until)
        result = Backfilled(name)
        for watch, some in _by_watch(every, windows):
            result = self._one(endpoint, watch, some, result, len(windows), told, newest=watch is every[0])
        return self._sum(endpoint, every, windows, result)

    def _over(self, name: str, endpoint: Endpoint) -> datetime:
        """Up to when windows are closed."""
        cursor = self.monitors.state.get(WindowCursor, name)
        return cursor.closed_until if cursor else holding(self.clock.now(), endpoint.monitors.window).start

    def _check(self, name: str, endpoint: Endpoint, since: datetime, until: datetime) -> None:
        if since >= until:
            raise InvalidRequest(
                f"No window of {name} lies between {since.isoformat()} and {until.isoformat()}.",
                "Name a span of the past that holds a whole window.",
            )
        if endpoint.retention is not None and since < (gone := self.clock.now() - endpoint.retention):
            raise InvalidRequest(
                f"Records of {name} from before {gone.isoformat(timespec='seconds')} are past their retention: what is "
                "known of them can't be computed again.",
                "Begin later.",
            )

    def _windows(self, name: str, endpoint: Endpoint, since: datetime, until: datetime) -> Sequence[Window]:
        """All windows of a short span; of a long one those that hold anything."""
        length = endpoint.monitors.window
        if (until - since) / length <= CATCH_UP:
            return list(due(since, length, until))
        return [w for w in holding_windows(self.monitors.records, name, since, until, length) if w.end <= until]

    def _one(
        self,
        endpoint: Endpoint,
        watch: Watch,
        windows: Sequence[Window],
        before: Backfilled,
        of: int,
        told: Told,
        *,
        newest: bool,
    ) -> Backfilled:
        """Compute the windows of one watch."""

        def progress(done: int) -> None:
            told(before.windows + done, of)

        for left in reversed(range(_TRIES)):
            try:
                done = self.monitors.recompute(endpoint, watch, windows, newest=newest, told=progress)
                break
            except Raced:  # the worker closed a window meanwhile
                if not left:
                    raise
                watch = self.monitors.state.get(Watch, watch.id) or watch
        alarms = {*before.alarms, *(each.watched.name for each in done.folded if each.alarmed)}
        return Backfilled(
            before.endpoint,
            before.windows + len(windows),
            before.longer,
            before.records + done.records,
            tuple(sorted(alarms)),
        )

    def _sum(
        self,
        endpoint: Endpoint,
        every: Sequence[Watch],
        windows: Sequence[Window],
        result: Backfilled,
    ) -> Backfilled:
        """Sum up the longer windows that hold any of these."""
        longer = {holding(window.start, length) for window in windows for length in endpoint.monitors.granularities}
        over = sorted((w for w in longer if w.end <= self._over(result.endpoint, endpoint)), key=_by_length)
        for window in over:
            watch = watches.at(every, window.start) or every[-1]
            self.monitors.recomputing.sum_up(watch, window)
        self._look_again(result.endpoint, endpoint, [*windows, *over])
        return Backfilled(result.endpoint, result.windows, len(over), result.records, result.alarms)

    def _look_again(self, name: str, endpoint: Endpoint, windows: Sequence[Window]) -> None:
        """Have the rules look at the newest windows of each length, as many as they remember or need, and how right
        their answers were be measured."""
        now = self.clock.now()
        most = max([TRAIL, *(rule.needed[1] for rule in endpoint.alerts.values())])
        with self.monitors.state.note() as note:
            for _, some in groupby(sorted(windows, key=_by_length), key=lambda w: w.end - w.start):
                for window in list(some)[-most:]:
                    note.emit(WindowJudged(endpoint=name, start=window.start, end=window.end, at=now))


def _by_watch(every: Sequence[Watch], windows: Sequence[Window]) -> list[tuple[Watch, list[Window]]]:
    """Windows by the watch that they belong to."""
    by_number = {watch.number: watch for watch in every}
    found = groupby(windows, key=lambda window: (watches.at(every, window.start) or every[-1]).number)
    return [(by_number[number], list(some)) for number, some in found]


def _by_length(window: Window) -> tuple[float, datetime]:
    return (window.end - window.start).total_seconds(), window.start
