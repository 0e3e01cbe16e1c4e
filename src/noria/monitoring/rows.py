"""Rows of the profile and drift tables, from states."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from noria.domain.monitor import MonitorState, Window
from noria.evaluation.drift import drift_row, table_deltas
from noria.evaluation.profile import TABLE, Row, profile, profile_table
from noria.evaluation.states import ColumnState

BASELINE = "BASELINE"
"""The `drift_type` of rows that compare with the baseline."""
_MOST_E = 700.0
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
INPUT = "INPUT"
"""The `log_type` of profiles of what the log holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a row belongs."""

    endpoint: str
    window: Window
    model: str = "*"
    version: int = 1
    slice_key: str = ""
    slice_value: str = ""

    def columns(self) -> Row:
        """The columns that every row of the monitoring tables begins with; null slices for the whole."""
        return {
            "window": as_struct(self.window),
            "endpoint": self.endpoint,
            "model_id": self.model,
            "granularity": granularity(self.window.end - self.window.start),
            "monitor_version": self.version,
            "slice_key": self.slice_key or None,
            "slice_value": self.slice_value if self.slice_key else None,
        }


def profile_rows(place: Place, states: Iterable[ColumnState], commit: int) -> Iterator[Row]:
    """The `profile_metrics` rows of one model or slice in a window.

    Args:
        place: Where they belong.
        states: Of its columns, that of `:table` among them.
        commit: Version of the inference table that the records were read from.
    """
    known = {state.name: state for state in states}
    rows = known.pop(TABLE, None)
    start = place.columns() | {"log_type": INPUT, "logging_table_commit_version": commit}
    yield start | profile_table(known.values(), rows.count if rows else None)
    for state in known.values():
        yield start | profile(state)


def evidence_columns(state: MonitorState) -> Row:
    """What a drift row says of a monitor's evidence so far."""
    return {
        "rows_seen": state.rows,
        "log_e": state.log_e,
        "log_threshold": state.log_threshold,
        "e_value": math.exp(min(state.log_e, _MOST_E)),
    }


def compared(place: Place, monitor: str | None, now: ColumnState, before: ColumnState, cells: Any, **more: Any) -> Row:
    """A `drift_metrics` row: a column of a window beside another state of it.

    Args:
        place: Where it belongs.
        monitor: The monitor that watches the column; None for none.
        now: The window's.
        before: The reference's or an earlier window's.
        cells: What both were counted in; None if they were not, or not in the same.
        more: Further columns.
    """
    about = {"monitor": monitor, "column_name": now.name, "data_type": now.data_type}
    mean = {"mean": now.mean} if now.finite else {}
    return place.columns() | about | drift_row(now, before, cells) | mean | more


def table_row(place: Place, now: Mapping[str, ColumnState], before: Mapping[str, ColumnState], window: Window) -> Row:
    """The row of a whole window beside the one before it: how many rows, and which columns came and went."""
    rows, rows_before = (states[TABLE].count if TABLE in states else 0 for states in (now, before))
    held, held_before = ([s for name, s in states.items() if name != TABLE] for states in (now, before))
    about = {"column_name": TABLE, "drift_type": "CONSECUTIVE", "window_cmp": as_struct(window)}
    return place.columns() | about | table_deltas(held, held_before, rows, rows_before)


def as_struct(window: Window) -> Row:
    """A window as the tables keep it."""
    return {"start": window.start, "end": window.end}


def granularity(length: timedelta) -> str:
    """A window's length the way Databricks writes it: `1 hour`, `5 minutes`."""
    seconds = max(1, int(length.total_seconds()))
    size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0)
    return f"{seconds // size} {unit}{'s' if seconds != size else ''}"
