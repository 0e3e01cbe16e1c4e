"""The drift table's rows for the charts, read again only when a monitor has folded in another window."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

log = logging.getLogger("noria.api.console")

KEEP_S = 15.0
"""Rows are read again after this even if no monitor moved: a window's rows may be written after its evidence."""

Rows = Sequence[Mapping[str, Any]]
ReadDrift = Callable[[str], Rows]
"""Endpoint → its rows of the table drift_metrics, oldest first."""


class History:
    """Remembers the rows of each endpoint. Safe to call from any thread."""

    def __init__(self, read_drift: ReadDrift, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._read, self._monotonic = read_drift, monotonic
        self._kept: dict[str, tuple[object, float, Rows]] = {}
        self._lock = threading.Lock()

    def rows(self, endpoint: str, monitors: Sequence[Mapping[str, Any]]) -> tuple[Rows, str]:
        """The rows of an endpoint and, where they can't be read, why not.

        Args:
            endpoint: Its name.
            monitors: As in the endpoint's status.
        """
        moved = tuple((m["id"], m["folded_until"], m["rows"]) for m in monitors)
        with self._lock:
            kept = self._kept.get(endpoint)
            if kept and kept[0] == moved and self._monotonic() - kept[1] < KEEP_S:
                return kept[2], ""
            try:
                found = self._read(endpoint)
            except Exception as error:  # a table that can't be read must not take the page with it
                log.warning("The drift table of %s can't be read: %s", endpoint, error)
                return (kept[2] if kept else ()), "The drift table can't be read; the log says why."
            self._kept[endpoint] = (moved, self._monotonic(), found)
            return found, ""
