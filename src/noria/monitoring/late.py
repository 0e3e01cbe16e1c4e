"""Which closed windows something was said of since the last look: labels may come weeks after the answers.

Windows that are still open are left to their own closing, which measures what is known by then.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow.compute as pc

from noria.domain.events import WindowJudged
from noria.domain.monitor import Window, WindowCursor
from noria.domain.quality import FeedbackCursor
from noria.monitoring.judged import windows_of
from noria.ports import RecordStore, StateStore
from noria.settings import Monitors, Project

LONGER_EVERY = timedelta(hours=1)
"""Longer windows, summed from many, are measured again at most so often."""


@dataclass(frozen=True, slots=True)
class LateLabels:
    """Finds the windows, and tells the loop."""

    state: StateStore
    records: RecordStore

    def look(self, project: Project, watermark: datetime) -> int:
        """Tell the loop of every closed window that something was said of; returns of how many.

        Args:
            project: The project in service.
            watermark: All feedback that came before this is in the tables.
        """
        return sum(self._look(name, endpoint.monitors, watermark) for name, endpoint in project.endpoints.items())

    def _look(self, name: str, monitors: Monitors, watermark: datetime) -> int:
        cursor = self.state.get(FeedbackCursor, name)
        closed = self.state.get(WindowCursor, name)
        if cursor is None or closed is None:
            with self.state.note() as note:
                note.put(FeedbackCursor(id=name, seen_until=watermark, longer_until=watermark))
            return 0
        if watermark <= cursor.seen_until:
            return 0
        due = watermark - cursor.longer_until >= LONGER_EVERY
        windows = self._windows(name, [monitors.window], cursor.seen_until, watermark)
        if due:
            windows |= self._windows(name, monitors.granularities, cursor.longer_until, watermark)
        over = sorted(window for window in windows if window.end <= closed.closed_until)
        with self.state.note() as note:
            for window in over:
                note.emit(WindowJudged(endpoint=name, start=window.start, end=window.end, at=watermark))
            longer = watermark if due else cursor.longer_until
            note.put(FeedbackCursor(id=name, seen_until=watermark, longer_until=longer))
        return len(over)

    def _windows(self, name: str, lengths: Iterable[timedelta], since: datetime, until: datetime) -> set[Window]:
        """The windows of requests that something was said of in a span of time."""
        lengths = tuple(lengths)
        if not lengths:
            return set()
        found = self.records.scan("feedback", columns=["request_id"], endpoint=name, since=since, until=until)
        ids = pc.unique(found["request_id"]).to_pylist()
        return {window for length in lengths for window in windows_of(ids, length)}
