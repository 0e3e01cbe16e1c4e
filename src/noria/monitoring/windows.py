"""Which windows are over: once everything up to a moment is in the tables, all windows that end before it are closed.

Windows follow one another without a hole, also after an outage and when the project file changes their length. One
that records came to late is closed again, and so is every longer one that it is in.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from noria.domain.events import WindowClosed
from noria.domain.monitor import LateRecords, Window, WindowCursor
from noria.ports import Clock, RecordStore, StateStore
from noria.settings import Endpoint, Project
from noria.tables import TIME_COLUMN

CATCH_UP = 24
"""Up to so many windows are closed one by one; of more, only those that hold anything are told to the loop."""
MOST_AT_ONCE = 200
"""Windows told to the loop in one transaction."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Closes windows and tells the loop.

    Attributes:
        clock: No window of the future is closed, whatever a record says; None: whatever the watermark says is true.
    """

    state: StateStore
    records: RecordStore
    clock: Clock | None = None
    _lengths: dict[str, timedelta] = field(default_factory=dict)

    def close_due(self, project: Project, watermark: datetime) -> int:
        """Close every endpoint's windows that are over; returns how many the loop was told of.

        Args:
            project: The project in service.
            watermark: Every request that arrived, and all feedback that came, before this is in the tables.
        """
        self._lengths.update({name: endpoint.monitors.window for name, endpoint in project.endpoints.items()})
        now = watermark if self.clock is None else min(watermark, self.clock.now())
        return sum(self._close(name, endpoint, now) for name, endpoint in project.endpoints.items())

    def arriving(self, table: str, rows: pa.Table) -> None:
        """Note that rows are about to be written into a table.

        Those that go into windows which are closed already are remembered before they are in the table, so that no
        crash forgets to close these windows again.
        """
        late: dict[str, set[datetime]] = {}
        for endpoint in rows["endpoint"].unique().to_pylist():
            cursor = self.state.get(WindowCursor, endpoint) if endpoint is not None else None
            if cursor is None:
                continue
            moments = rows[TIME_COLUMN[table]].filter(pc.equal(rows["endpoint"], endpoint))
            moments = moments.filter(pc.less(moments, pa.scalar(cursor.closed_until, moments.type)))
            if len(moments):
                length = self._lengths.get(endpoint, timedelta(seconds=1))
                late[endpoint] = {holding(moment, length).start for moment in moments.unique().to_pylist()}
        if not late:
            return
        with self.state.note() as note:
            for endpoint, starts in late.items():
                known = note.get(LateRecords, endpoint)
                both = starts.union(known.starts if known is not None else ())
                note.put(LateRecords(id=endpoint, endpoint=endpoint, starts=tuple(sorted(both))))

    def _close(self, endpoint: str, settings: Endpoint, watermark: datetime) -> int:
        cursor, late = self.state.get(WindowCursor, endpoint), self.state.get(LateRecords, endpoint)
        granularity, oldest = settings.monitors.window, settings.retention and watermark - settings.retention
        windows: list[Window] = []
        revision = 0
        if cursor is None:
            until = holding(watermark, granularity).start
        else:
            revision, until = cursor.revision, cursor.closed_until
            if until - watermark > max(granularity, timedelta(hours=1)):  # a clock ran ahead of the time
                revision, until = revision + 1, holding(watermark, granularity).start
            elif _next(until, granularity).end <= watermark:
                windows, until = self._over(endpoint, until, granularity, watermark)
        again = [w for w in _again(late, windows, until, granularity) if not oldest or w.start >= oldest]
        if cursor is not None and not windows and not again and until == cursor.closed_until:
            return 0
        revision += bool(again)
        longer = _longer([*again, *windows], settings.monitors.granularities, until)
        with self.state.note() as note:
            for window in (*again, *windows):
                note.emit(_closed(endpoint, window, revision))
            for window in longer:
                note.emit(_closed(endpoint, window, revision, longer=True))
            note.put(WindowCursor(id=endpoint, closed_until=until, revision=revision))
            if late is not None:
                note.put(LateRecords(id=endpoint, endpoint=endpoint, starts=()))
        return len(again) + len(windows)

    def _over(
        self, endpoint: str, closed_until: datetime, granularity: timedelta, watermark: datetime
    ) -> tuple[list[Window], datetime]:
        """Windows to tell the loop of, and how far that closes the endpoint."""
        until = holding(watermark, granularity).start
        if (until - closed_until) / granularity <= CATCH_UP:
            return list(due(closed_until, granularity, watermark)), until
        windows = holding_windows(self.records, endpoint, closed_until, until, granularity)
        if len(windows) > MOST_AT_ONCE:
            windows = windows[:MOST_AT_ONCE]
            until = windows[-1].end
        return windows, until


def holding_windows(
    records: RecordStore, endpoint: str, since: datetime, until: datetime, granularity: timedelta
) -> list[Window]:
    """Windows of a span of time that hold anything, oldest first; none begins before the span."""
    found: set[Window] = set()
    for table in ("inference", "feedback"):
        time = TIME_COLUMN[table]
        rows = records.scan(table, columns=[time], endpoint=endpoint, since=since, until=until)
        found.update(holding(moment, granularity) for moment in rows[time].unique().to_pylist())
    return [Window(max(window.start, since), window.end) for window in sorted(found)]


def due(closed_until: datetime, granularity: timedelta, watermark: datetime) -> Iterator[Window]:
    """The windows after `closed_until` that end by the watermark, oldest first."""
    while (window := _next(closed_until, granularity)).end <= watermark:
        yield window
        closed_until = window.end


def holding(moment: datetime, granularity: timedelta) -> Window:
    """The window that holds a moment; none is shorter than a second."""
    return Window.holding(moment, timedelta(seconds=max(1, int(granularity.total_seconds()))))


def _again(
    late: LateRecords | None, windows: Iterable[Window], until: datetime, granularity: timedelta
) -> list[Window]:
    """Windows of before that records came to since. (Those of records past their retention stay as they are: what is
    kept of them could not be computed again.)"""
    found = {holding(moment, granularity) for moment in (late.starts if late is not None else ())}
    return sorted(window for window in found.difference(windows) if window.end <= until)


def _longer(windows: Iterable[Window], granularities: Iterable[timedelta], until: datetime) -> list[Window]:
    """Longer windows that end now, or are closed again, with one of these windows in them; shorter ones first."""
    found = {holding(window.start, length) for window in windows for length in granularities}
    return sorted((w for w in found if w.end <= until), key=lambda w: (w.end - w.start, w.start))


def _closed(endpoint: str, window: Window, revision: int, *, longer: bool = False) -> WindowClosed:
    return WindowClosed(endpoint=endpoint, start=window.start, end=window.end, revision=revision, longer=longer)


def _next(closed_until: datetime, granularity: timedelta) -> Window:
    """The window that begins there; a shorter one where the grid of a new granularity has to be met first."""
    return Window(closed_until, holding(closed_until, granularity).end)
