"""Which windows are over: once everything up to a moment is in the tables, all windows that end before it are closed.

Windows follow one another without a hole, also after an outage and when the project file changes their length.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from noria.domain.events import WindowClosed
from noria.domain.monitor import Window, WindowCursor
from noria.ports import RecordStore, StateStore
from noria.settings import Project
from noria.tables import TIME_COLUMN

CATCH_UP = 24
"""Up to so many windows are closed one by one; of more, only those that hold anything are told to the loop."""
MOST_AT_ONCE = 200
"""Windows told to the loop in one transaction."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Closes windows and tells the loop."""

    state: StateStore
    records: RecordStore

    def close_due(self, project: Project, watermark: datetime) -> int:
        """Close every endpoint's windows that are over; returns how many the loop was told of.

        Args:
            project: The project in service.
            watermark: Every request that arrived, and all feedback that came, before this is in the tables.
        """
        return sum(
            self._close(name, endpoint.monitors.window, watermark) for name, endpoint in project.endpoints.items()
        )

    def _close(self, endpoint: str, granularity: timedelta, watermark: datetime) -> int:
        cursor = self.state.get(WindowCursor, endpoint)
        windows: list[Window]
        if cursor is None:
            windows, until = [], _holding(watermark, granularity).start
        elif _next(cursor.closed_until, granularity).end > watermark:
            return 0
        else:
            windows, until = self._over(endpoint, cursor.closed_until, granularity, watermark)
        with self.state.note() as note:
            for window in windows:
                note.emit(WindowClosed(endpoint=endpoint, start=window.start, end=window.end))
            note.put(WindowCursor(id=endpoint, closed_until=until))
        return len(windows)

    def _over(
        self, endpoint: str, closed_until: datetime, granularity: timedelta, watermark: datetime
    ) -> tuple[list[Window], datetime]:
        """Windows to tell the loop of, and how far that closes the endpoint."""
        until = _holding(watermark, granularity).start
        if (until - closed_until) / granularity <= CATCH_UP:
            return list(due(closed_until, granularity, watermark)), until
        moments = self._moments(endpoint, closed_until, until)
        held = {_holding(moment, granularity) for moment in moments}
        windows = [Window(max(w.start, closed_until), w.end) for w in sorted(held)]
        if len(windows) > MOST_AT_ONCE:
            windows = windows[:MOST_AT_ONCE]
            until = windows[-1].end
        return windows, until

    def _moments(self, endpoint: str, since: datetime, until: datetime) -> set[datetime]:
        """When anything happened."""
        found: set[datetime] = set()
        for table in ("inference", "feedback"):
            time = TIME_COLUMN[table]
            rows = self.records.scan(table, columns=[time], endpoint=endpoint, since=since, until=until)
            found.update(rows[time].unique().to_pylist())
        return found


def due(closed_until: datetime, granularity: timedelta, watermark: datetime) -> Iterator[Window]:
    """The windows after `closed_until` that end by the watermark, oldest first."""
    while (window := _next(closed_until, granularity)).end <= watermark:
        yield window
        closed_until = window.end


def _next(closed_until: datetime, granularity: timedelta) -> Window:
    """The window that begins there; a shorter one where the grid of a new granularity has to be met first."""
    return Window(closed_until, _holding(closed_until, granularity).end)


def _holding(moment: datetime, granularity: timedelta) -> Window:
    return Window.holding(moment, timedelta(seconds=max(1, int(granularity.total_seconds()))))
