"""Writes how right a window's answers were into its rows of `profile_metrics`, when it closes and whenever something
more is said of it.

The window's `:table` rows get the columns that Databricks has for it; rows `quality.NAME` hold the other measures. All
of them are measured anew and put in the place of those before, so that doing it twice changes nothing.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from noria.domain.errors import Conflict
from noria.domain.events import WindowClosed, WindowJudged
from noria.domain.monitor import Window
from noria.domain.quality import Calibrated
from noria.evaluation.profile import TABLE, Row
from noria.monitoring.rows import Place, granularity
from noria.ports import ComputeEngine, JobSpec, RecordStore, StateStore, Steps, Where
from noria.settings import Endpoint, Project, Task
from noria.tables import PROFILE_METRICS

COLUMNS = (
    "accuracy_score", "precision", "recall", "f1_score", "roc_auc_score", "log_loss", "confusion_matrix",
)  # fmt: skip
"""Of the `:table` row, measured from labels."""
_BY_CLASS = ("precision", "recall", "f1_score", "roc_auc_score")
MONITOR = "monitor:"
"""What the name begins with under which the monitors write an endpoint's rows."""
_TRIES = 5
Group = tuple[str, str, str]
LOG_TYPE, INPUT = "QUALITY", "INPUT"
"""`log_type` of what was measured, and of what was observed."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Measures the quality of windows.

    Attributes:
        job: What a JobSpec calls `bootstrap.quality_job.window_quality`.
        tables: Where the job finds the tables.
    """

    state: StateStore
    records: RecordStore
    compute: ComputeEngine
    project: Project
    job: str
    tables: str
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def measure(self, event: WindowClosed | WindowJudged, step: Steps) -> None:
        """Measure a window that closed, or that more was said of."""
        step("measure the quality", self._measure, event)

    def _measure(self, event: WindowClosed | WindowJudged) -> Mapping[str, Any]:
        endpoint = self.project.endpoints.get(event.endpoint)
        if endpoint is None:
            return {}
        return {"rows": self._replace(event.endpoint, endpoint, Window(event.start, event.end))}

    def _replace(self, name: str, endpoint: Endpoint, window: Window) -> int:
        """Measure a window and write it down; returns how many rows it has."""
        before = self._rows(name, window)
        result = self.compute.run(JobSpec(self.job, self._arguments(name, endpoint, window, before)))
        self._keep(name, window, result["calibrated"])
        measured = [row for row in result["rows"] if row["column_name"] != TABLE]
        of_table = {_group(row): row for row in result["rows"] if row["column_name"] == TABLE}
        with self._writing:
            self._put(name, window, of_table, measured)
        return len(result["rows"])

    def _put(self, name: str, window: Window, of_table: Mapping[Group, Row], measured: Sequence[Row]) -> None:
        """Write down what was measured. If the monitors wrote the window's rows between the look at them and their
        replacement, both are done again."""
        for _ in range(_TRIES):
            seen = self.records.last_version("profile_metrics", f"{MONITOR}{name}")
            now, new = self._rows(name, window), dict(of_table)
            start = _start(name, window, now)
            tables = [_labelled(row, new.pop(_group(row), {})) for row in now if row["column_name"] == TABLE]
            tables += [start | {"log_type": INPUT} | _place(row) | _labelled(row, row) for row in new.values()]
            self._write(name, window, {"column_name": TABLE}, tables)
            self._write(name, window, {"log_type": LOG_TYPE}, [start | row | _place(row) for row in measured])
            if self.records.last_version("profile_metrics", f"{MONITOR}{name}") == seen:
                return
        raise Conflict(f"The windows of {name} are computed all the time.", "The worker tries again.")

    def _arguments(self, name: str, endpoint: Endpoint, window: Window, before: Sequence[Row]) -> dict[str, Any]:
        slices: dict[str, list[str]] = {}
        for key, value in sorted({(row["slice_key"], row["slice_value"]) for row in before if row["slice_key"]}):
            if _tells_answers_apart(key):
                slices.setdefault(key, []).append(value)
        return {
            "tables": self.tables,
            "endpoint": name,
            "start": window.start.isoformat(),
            "end": window.end.isoformat(),
            "classifies": endpoint.task is Task.CLASSIFICATION,
            "slices": slices,
            "known": {
                kept.id.removeprefix(f"{name}:"): {
                    "classes": list(kept.classes),
                    "corners": list(kept.corners),
                    "rows": kept.rows,
                    "tried_at": kept.tried_at.isoformat(),
                }
                for kept in self.state.find(Calibrated, endpoint=name)
            },
        }

    def _keep(self, name: str, window: Window, learnt: Mapping[str, Mapping[str, Any]]) -> None:
        """Remember what was learnt of calibrations."""
        if not learnt:
            return
        with self.state.note() as note:
            for model, each in learnt.items():
                note.put(
                    Calibrated(
                        id=f"{name}:{model}",
                        endpoint=name,
                        classes=tuple(each["classes"]),
                        corners=tuple(each["corners"]),
                        rows=each["rows"],
                        tried_at=window.end,
                    )
                )

    def _rows(self, name: str, window: Window) -> list[Row]:
        """What the profile table has of the window."""
        found = self.records.scan("profile_metrics", endpoint=name, since=window.start, until=window.end)
        length = granularity(window.end - window.start)
        return [row for row in found.to_pylist() if row["granularity"] == length]

    def _write(self, name: str, window: Window, equal: Mapping[str, str], rows: Sequence[Row]) -> None:
        """Put rows in the place of those before. Replacements are numbered one after the other; one whose number
        somebody else took meanwhile gets the next."""
        where = Where(
            endpoint=name,
            since=window.start,
            until=window.end,
            equal={"granularity": granularity(window.end - window.start), **equal},
        )
        if not rows and not any(all(row[k] == v for k, v in equal.items()) for row in self._rows(name, window)):
            return
        table, writer = pa.Table.from_pylist(list(rows), schema=PROFILE_METRICS), f"quality:{name}"
        for _ in range(_TRIES):
            number = self.records.last_version("profile_metrics", writer) + 1
            if self.records.replace("profile_metrics", table, where, writer, number):
                return
        raise Conflict(f"The quality of {name} is written by others all the time.", "The worker tries again.")


def _start(name: str, window: Window, rows: Sequence[Row]) -> Row:
    """The columns that every row of what was measured begins with."""
    place = Place(endpoint=name, window=window).columns()
    versions = [row["monitor_version"] for row in rows if row["monitor_version"] is not None]
    return place | {"monitor_version": max(versions, default=place["monitor_version"]), "log_type": LOG_TYPE}


def _group(row: Row) -> Group:
    """What a row is of: model, slice and its value, empty for the whole."""
    return row["model_id"], row.get("slice_key") or "", row.get("slice_value") or ""


def _place(row: Row) -> Row:
    """The same as the table keeps it."""
    model, key, value = _group(row)
    return {"model_id": model, "slice_key": key or None, "slice_value": value if key else None}


def _labelled(row: Row, measured: Row) -> Row:
    """A `:table` row with what was measured from labels, or without if there is nothing any more."""
    columns = {name: measured.get(name) for name in COLUMNS}
    for name in _BY_CLASS:
        by_class: Any = columns[name]
        if by_class is not None:
            columns[name] = by_class | {"one_vs_all": list(dict(by_class["one_vs_all"]).items())}
    return row | columns


def _tells_answers_apart(key: str) -> bool:
    """Whether a slice is one by which answers can be told apart here."""
    return key == "requester" or key.startswith("metadata.")
