"""Rows of the profile and drift tables for one window."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa

from noria.domain.monitor import MonitorState, Window
from noria.evaluation.arrays import readable
from noria.evaluation.drift import Drift
from noria.evaluation.profile import Row, profile, profile_table
from noria.evaluation.states import ColumnState
from noria.monitoring.reading import Record
from noria.settings import Task
from noria.tables import DRIFT_METRICS, PROFILE_METRICS

VERSION = 1
"""`monitor_version`: raised when what a row means changes."""
_MOST_E = 700.0
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a row belongs."""

    endpoint: str
    window: Window
    model: str = "*"

    def columns(self) -> Row:
        """The columns that every row of both tables begins with."""
        return {
            "window": as_struct(self.window),
            "endpoint": self.endpoint,
            "model_id": self.model,
            "granularity": granularity(self.window.end - self.window.start),
            "monitor_version": VERSION,
        }


def profile_table_of(place: Place, records: Sequence[Record], task: Task, commit: int) -> pa.Table:
    """The `profile_metrics` rows of a window: of all versions together (`*`) and, if there are several, of each.

    Args:
        place: Endpoint and window.
        records: Of that window.
        task: What the endpoint does: classes are counted, free answers are measured by length.
        commit: Version of the inference table that the records were read from.
    """
    models = sorted({record.model for record in records})
    parts = {"*": records}
    if len(models) > 1:
        parts |= {model: [record for record in records if record.model == model] for model in models}
    start = {"log_type": "INPUT", "logging_table_commit_version": commit}
    rows = [
        place.columns() | {"model_id": model} | start | row
        for model, part in parts.items()
        for row in _profiles(part, task)
    ]
    return pa.Table.from_pylist(rows, schema=PROFILE_METRICS)


def _profiles(records: Sequence[Record], task: Task) -> Iterable[Row]:
    asked = [text for record in records for text in record.asked]
    said = [text for record in records for text in record.said]
    answers = "prediction" if task is Task.CLASSIFICATION else "output"
    columns = {"input": _texts(asked), answers: _texts(said)} | {
        name: pa.array([record.numbers[name] for record in records], pa.float64())
        for name in (records[0].numbers if records else ())
    }
    states = [ColumnState.of(name, values) for name, values in columns.items()]
    yield profile_table(states, len(records))
    if records:
        yield from map(profile, states)


def _texts(values: Iterable[str]) -> pa.Array:
    return pa.array([readable(value) for value in values], pa.large_string())


@dataclass(frozen=True, slots=True)
class Column:
    """What a drift row is about: the monitor, and the name and type of what it compares."""

    monitor: str
    column_name: str
    data_type: str


def against_baseline(place: Place, about: Column, drift: Drift, state: MonitorState, **more: Any) -> Row:
    """A `drift_metrics` row of a window against the baseline, with the evidence so far.

    Args:
        place: Endpoint, window and the champion whose baseline it is.
        about: What is compared.
        drift: The effect sizes.
        state: The monitor after the window.
        more: Further columns.
    """
    evidence = {
        "rows_seen": state.rows,
        "log_e": state.log_e,
        "log_threshold": state.log_threshold,
        "e_value": math.exp(min(state.log_e, _MOST_E)),
    }
    return place.columns() | asdict(about) | asdict(drift) | evidence | {"drift_type": "BASELINE"} | more


def against_window(place: Place, about: Column, drift: Drift, before: Window, **more: Any) -> Row:
    """A `drift_metrics` row of a window against the one before it."""
    what = {"drift_type": "CONSECUTIVE", "window_cmp": as_struct(before)}
    return place.columns() | asdict(about) | asdict(drift) | what | more


def drift_table_of(rows: Sequence[Row]) -> pa.Table:
    """Rows as the `drift_metrics` table keeps them."""
    return pa.Table.from_pylist(list(rows), schema=DRIFT_METRICS)


def as_struct(window: Window) -> Row:
    """A window as the tables keep it."""
    return {"start": window.start, "end": window.end}


def granularity(length: timedelta) -> str:
    """A window's length the way Databricks writes it: `1 hour`, `5 minutes`."""
    seconds = max(1, int(length.total_seconds()))
    size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0)
    return f"{seconds // size} {unit}{'s' if seconds != size else ''}"
