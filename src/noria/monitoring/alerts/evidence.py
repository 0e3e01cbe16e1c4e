"""What shows an alert's cause: the slices that moved most, and records of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from noria.domain.alert import Example, SliceMoved
from noria.domain.endpoint import Role
from noria.domain.monitor import MonitorState
from noria.evaluation.observations import NEEDED, observe
from noria.evaluation.payloads import inputs
from noria.ports import RecordStore
from noria.settings import Task
from noria.tables import INFERENCE

MOST = 3
"""Slices and records that an alert shows."""
LONGEST = 280
"""Characters of a record that it shows."""
_READ = 200
"""Newest records whose bodies are read for it."""
_ID, _TIME, _REQUEST, _STATUS, _TEXT = "databricks_request_id", "request_time", "request", "status_code", "text"
_MOMENT = timedelta(microseconds=1)
_ERRORS = "error"
"""A record's measure that is no column of the log: its status says it."""


@dataclass(frozen=True, slots=True)
class Showing:
    """Looks into the tables for what shows a cause.

    Attributes:
        records: The tables.
        task: Endpoint → what it does.
    """

    records: RecordStore
    task: Callable[[str], Task]

    def slices(self, state: MonitorState) -> tuple[SliceMoved, ...]:
        """The slices in which a monitor's column moved most in its newest window, by the Jensen–Shannon distance."""
        since = state.folded_until - timedelta(days=1)
        columns = ["window", "slice_key", "slice_value", "monitor", "drift_type", "js_distance", "rows_seen"]
        rows = self.records.scan(
            "drift_metrics", columns=columns, endpoint=state.endpoint, since=since, until=state.folded_until
        ).to_pylist()
        mine = [r for r in rows if r["slice_key"] and r["monitor"] == state.monitor and r["drift_type"] == "BASELINE"]
        newest = max((r["window"]["start"] for r in mine), default=None)
        found = {
            (r["slice_key"], r["slice_value"]): SliceMoved(
                r["slice_key"], str(r["slice_value"]), "js_distance", r["js_distance"], int(r["rows_seen"] or 0)
            )
            for r in mine
            if r["window"]["start"] == newest and r["js_distance"] is not None
        }
        return tuple(sorted(found.values(), key=lambda s: s.now, reverse=True)[:MOST])

    def examples(
        self, endpoint: str, since: datetime, until: datetime, column: str, *, highest: bool
    ) -> tuple[Example, ...]:
        """Records of a span of time that show a measure: those with its highest (or lowest) values, else the newest.

        What the log holds is redacted already. Of what has to be read from bodies the newest are looked at.
        """
        by = _STATUS if column == _ERRORS else column if _is_number(column) else ""
        columns = [_ID, _TIME, "route", *([by] if by else [])]
        rows = self.records.scan("inference", columns=columns, endpoint=endpoint, since=since, until=until)
        rows = rows.filter(pc.not_equal(pc.fill_null(rows["route"], ""), Role.SHADOW.value))
        if by:
            rows = rows.filter(pc.is_valid(rows[by]))
            return self._named(endpoint, _top(rows, by, MOST, highest=highest), "" if by == _STATUS else by)
        newest = _top(rows, _TIME, _READ, highest=True)
        return self._observed(endpoint, newest, column, highest=highest) or self._named(endpoint, newest[:MOST], "")

    def _observed(
        self, endpoint: str, newest: Sequence[dict[str, Any]], column: str, *, highest: bool
    ) -> tuple[Example, ...]:
        """Of some records those with the highest (or lowest) values of what has to be read from their bodies."""
        if not newest:
            return ()
        since, until = newest[-1][_TIME], newest[0][_TIME] + _MOMENT
        rows = self.records.scan("inference", columns=list(NEEDED), endpoint=endpoint, since=since, until=until)
        seen = observe(rows, self.task(endpoint), [column, "input"])
        ids, items = seen.records["request_id"], seen.items
        if column not in items.column_names or not pa.types.is_floating(items[column].type):
            return ()
        shown = pa.table({_ID: ids.take(items["record"]), _TEXT: items["input"], column: items[column]})
        shown = shown.filter(pc.is_valid(shown[column]))
        return tuple(
            Example(row[_ID], _cut(row[_TEXT] or ""), row[column]) for row in _top(shown, column, MOST, highest=highest)
        )

    def _named(self, endpoint: str, rows: Sequence[dict[str, Any]], by: str) -> tuple[Example, ...]:
        """These records with their texts."""
        found = []
        for row in rows:
            at = row[_TIME]
            same = self.records.scan(
                "inference", columns=[_ID, _REQUEST], endpoint=endpoint, since=at, until=at + _MOMENT
            ).to_pylist()
            body = next((r[_REQUEST] for r in same if r[_ID] == row[_ID]), "") or ""
            found.append(Example(row[_ID], _cut(_last(inputs(body))), float(row[by]) if by else None))
        return tuple(found)


def _top(rows: pa.Table, by: str, most: int, *, highest: bool) -> list[dict[str, Any]]:
    """The rows with the highest (or lowest) values of a column."""
    if not rows.num_rows:
        return []
    order = [(by, "descending" if highest else "ascending"), (_ID, "ascending")]
    found: list[dict[str, Any]] = rows.take(pc.select_k_unstable(rows, min(most, rows.num_rows), order)).to_pylist()
    return found


def _cut(text: str) -> str:
    shown = " ".join(text.split())
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"


def _last(texts: Sequence[str]) -> str:
    return texts[-1] if texts else ""


def _is_number(column: str) -> bool:
    found = INFERENCE.get_field_index(column)
    if found < 0:
        return False
    kind = INFERENCE.field(found).type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
