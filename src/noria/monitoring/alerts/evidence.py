"""What shows an alert's cause: the slices that moved most, and records of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from noria.domain.alert import Example, SliceMoved
from noria.domain.endpoint import Role
from noria.domain.monitor import MonitorState
from noria.evaluation.payloads import inputs
from noria.ports import RecordStore
from noria.tables import INFERENCE

MOST = 3
"""Slices and records that an alert shows."""
LONGEST = 280
"""Characters of a record that it shows."""
_ID, _TIME, _REQUEST = "databricks_request_id", "request_time", "request"
_MOMENT = timedelta(microseconds=1)
_ERRORS = "error"
"""A record's measure that is no column of the log: its status says it."""


@dataclass(frozen=True, slots=True)
class Showing:
    """Looks into the tables for what shows a cause."""

    records: RecordStore

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

        What the log holds is redacted already.
        """
        by = "status_code" if column == _ERRORS else column if _is_number(column) else ""
        columns = [_ID, _TIME, "route", *([by] if by else [])]
        rows = self.records.scan("inference", columns=columns, endpoint=endpoint, since=since, until=until)
        rows = rows.filter(pc.not_equal(pc.fill_null(rows["route"], ""), Role.SHADOW.value))
        if by:
            rows = rows.filter(pc.is_valid(rows[by]))
        if not rows.num_rows:
            return ()
        order = [(by or _TIME, "descending" if highest or not by else "ascending"), (_ID, "ascending")]
        chosen = rows.take(pc.select_k_unstable(rows, min(MOST, rows.num_rows), order)).to_pylist()
        return tuple(self._example(endpoint, row, by if by != "status_code" else "") for row in chosen)

    def _example(self, endpoint: str, row: dict[str, Any], by: str) -> Example:
        """One record with its text."""
        at = row[_TIME]
        found = self.records.scan(
            "inference", columns=[_ID, _REQUEST], endpoint=endpoint, since=at, until=at + _MOMENT
        ).to_pylist()
        body = next((r[_REQUEST] for r in found if r[_ID] == row[_ID]), "") or ""
        text = " ".join(_last(inputs(body)).split())
        value = float(row[by]) if by and row[by] is not None else None
        return Example(row[_ID], text if len(text) <= LONGEST else text[: LONGEST - 1] + "…", value)


def _last(texts: Sequence[str]) -> str:
    return texts[-1] if texts else ""


def _is_number(column: str) -> bool:
    found = INFERENCE.get_field_index(column)
    if found < 0:
        return False
    kind = INFERENCE.field(found).type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
