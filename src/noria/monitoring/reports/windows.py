"""The monitoring tables' rows of an endpoint in a span of time, window by window."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from noria.domain.endpoint import Role
from noria.domain.monitor import Window
from noria.evaluation.profile import profile
from noria.evaluation.states import ColumnState, merged
from noria.monitoring.rows import granularity
from noria.ports import RecordStore
from noria.settings import Monitors

MOST_SHOWN = 400
"""Windows that are drawn: the newest. Sums and shares are of all of them."""
MOST_MIXED = 8
"""Values of a column of few values that are named; the rest is `other`."""
TABLE, EVERYONE, QUALITY = ":table", "*", "quality."
_MEDIAN, _HIGH = 50, 95
_PERCENTILES = (50, 95, 99)
_PROFILE = [
    "window", "model_id", "granularity", "monitor_version", "slice_key", "column_name", "data_type", "count",
    "num_nulls", "avg", "quantiles", "min", "max", "frequent_items", "low", "high",
]  # fmt: skip
_SHARE = 0.999

Row = Mapping[str, Any]
Rows = Sequence[Row]
Said = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What profile_metrics says of all records of an endpoint, in windows of one length.

    Attributes:
        granularity: Length of the windows, as the table writes it; empty if there are none.
        windows: Start and end of each, oldest first.
        columns: Column → its row in each window that has one, oldest first.
        versions: Versions of the monitors that the rows were written with.
    """

    granularity: str
    windows: Sequence[Window]
    columns: Mapping[str, Rows]
    versions: Collection[int]

    @property
    def shown(self) -> Sequence[Window]:
        """The windows that are drawn."""
        return self.windows[-MOST_SHOWN:]

    @property
    def records(self) -> int:
        """Requests in all of them."""
        return sum(row["count"] or 0 for row in self.columns.get(TABLE, ()))

    def totals(self) -> Said:
        """Numbers of the whole span: `requests`, and for each column of numbers `avg`, `sum` and `count`."""
        found: Said = {"requests": self.records}
        for name, rows in self.columns.items():
            known = [(row["avg"], _known(row)) for row in rows if row["avg"] is not None and _known(row)]
            if known:
                number, total = sum(n for _, n in known), sum(avg * n for avg, n in known)
                found[name] = {"avg": total / number, "sum": total, "count": number}
        return found

    def traffic(self) -> list[Said]:
        """Requests of each window, and how many of them failed."""
        errors = {row["window"]["start"]: row for row in self.columns.get("error", ())}
        found = []
        for row in self._drawn(TABLE):
            failed = errors.get(row["window"]["start"])
            share = (failed["avg"] or 0.0) if failed is not None else 0.0
            count = row["count"] or 0
            found.append(_span(row) | {"count": count, "errors": round(share * count)})
        return found

    def series(self, names: Collection[str]) -> dict[str, list[Said]]:
        """Columns of numbers over the windows; one that holds nothing is left out."""
        found = {name: [_numbers(row) for row in self._drawn(name) if row["avg"] is not None] for name in names}
        return {name: rows for name, rows in found.items() if rows}

    def measures(self, but: Collection[str]) -> list[Said]:
        """Every other column of numbers: how it began, how it is, and all in between."""
        found = []
        for name in sorted(self.columns):
            rows = [] if name.startswith((":", QUALITY)) or name in but else self.series([name]).get(name, [])
            if rows:
                averages = [row["avg"] for row in rows]
                low, high = min(averages), max(averages)
                of_shares = all(_is_share(row["min"]) and _is_share(row["max"]) for row in rows)
                found.append(
                    {"column": name, "first": averages[0], "last": averages[-1], "low": low, "high": high}
                    | {"share": of_shares, "averages": averages}
                )
        return found

    def mix(self) -> dict[str, list[Said]]:
        """Columns of few values → value, share in the first and in the second half of the span."""
        found = {}
        for name in ("prediction", "input_language", "output_language"):
            halves = [_counted(half) for half in _halves(self.columns.get(name, ()))]
            if halves and any(halves):
                found[name] = _shares(*halves)
        return found

    def quality(self) -> dict[str, list[Said]]:
        """Measures of answers by the window of their requests, with the intervals that the table knows."""
        names = [name for name in self.columns if name.startswith(QUALITY)]
        return self.series(names)

    def _drawn(self, name: str) -> Rows:
        since = self.shown[0].start if self.windows else None
        return [row for row in self.columns.get(name, ()) if since is None or row["window"]["start"] >= since]


@dataclass(frozen=True, slots=True)
class DriftRows:
    """Rows of drift_metrics, oldest first, and the versions of the monitors that wrote them."""

    rows: Rows
    versions: Collection[int]


def read_profile(records: RecordStore, endpoint: str, since: datetime, until: datetime, settings: Monitors) -> Profile:
    """Rows of all records and all versions, in the endpoint's own windows."""
    rows = _scan(records, "profile_metrics", _PROFILE, endpoint, since, until)
    rows = rows.filter(pc.equal(rows["model_id"], EVERYONE))
    rows = rows.filter(pc.equal(pc.fill_null(rows["slice_key"], ""), ""))
    rows, length = _of_one_length(rows, settings.window)
    listed: Rows = rows.to_pylist()
    windows = sorted({Window(row["window"]["start"], row["window"]["end"]) for row in listed})
    columns: dict[str, list[Row]] = {}
    for row in listed:
        columns.setdefault(row["column_name"], []).append(row)
    versions = {row["monitor_version"] for row in listed if row["monitor_version"] is not None}
    return Profile(granularity=length, windows=windows, columns=columns, versions=versions)


def read_drift(records: RecordStore, endpoint: str, since: datetime, until: datetime, settings: Monitors) -> DriftRows:
    """Rows of the endpoint's own windows, slices included, newest last."""
    rows = _scan(records, "drift_metrics", None, endpoint, since, until)
    listed: Rows = _of_one_length(rows, settings.window)[0].to_pylist()
    ends = sorted({row["window"]["end"] for row in listed})[-MOST_SHOWN:]
    drawn = [row for row in listed if row["window"]["end"] >= ends[0]] if ends else []
    return DriftRows(drawn, {row["monitor_version"] for row in drawn if row["monitor_version"] is not None})


def read_spread(
    records: RecordStore, endpoint: str, since: datetime, until: datetime, length: str, names: Sequence[str]
) -> dict[str, Said]:
    """Percentiles of columns over a whole span, from the sum of its windows' states: no record is read again.

    Args:
        records: The tables.
        endpoint: Whose windows.
        since: From when on.
        until: Until when.
        length: Of the windows, as the tables write it.
        names: Columns of numbers; one that holds nothing is left out.
    """
    columns = ["window", "model_id", "granularity", "slice_key", "column_name", "summed", "state"]
    rows = records.scan("monitor_states", columns=columns, endpoint=endpoint, since=since, until=until)
    mine = pc.is_in(rows["column_name"], pa.array(names))
    mine = pc.and_(mine, pc.not_equal(rows["model_id"], EVERYONE))  # everyone is the sum of each, where it is kept
    for column, value in (("granularity", length), ("slice_key", "")):
        mine = pc.and_(mine, pc.equal(pc.fill_null(rows[column], ""), value))
    states: dict[str, list[ColumnState]] = {}
    for row in rows.filter(mine).select(["column_name", "state"]).to_pylist():
        states.setdefault(row["column_name"], []).append(ColumnState.from_bytes(row["state"]))
    found = {name: profile(merged(parts)).get("quantiles") for name, parts in states.items()}
    return {name: {f"p{p}": q[p] for p in _PERCENTILES} for name, q in found.items() if q}


def requests_recorded(records: RecordStore, endpoint: str, since: datetime, until: datetime) -> int:
    """Requests in the log that somebody saw the answer of; one that the table holds twice counts once."""
    rows = records.scan(
        "inference", columns=["databricks_request_id", "route"], endpoint=endpoint, since=since, until=until
    )
    seen = rows.filter(pc.not_equal(pc.fill_null(rows["route"], ""), str(Role.SHADOW)))
    return int(pc.count_distinct(seen["databricks_request_id"]).as_py())


def _scan(
    records: RecordStore, table: str, columns: Sequence[str] | None, endpoint: str, since: datetime, until: datetime
) -> pa.Table:
    rows = records.scan(table, columns=columns, endpoint=endpoint, since=since, until=until)
    order = pc.sort_indices(pc.struct_field(rows["window"], "start"))
    return rows.take(order)


def _of_one_length(rows: pa.Table, window: timedelta) -> tuple[pa.Table, str]:
    """The rows of the endpoint's own windows; of the length that the newest have, if it was changed since."""
    if not rows.num_rows:
        return rows, ""
    lengths = set(rows["granularity"].to_pylist())
    own = granularity(window)
    length = own if own in lengths else rows["granularity"][-1].as_py()
    return rows.filter(pc.equal(rows["granularity"], length)), length


def _span(row: Row) -> Said:
    return {"start": row["window"]["start"].isoformat(), "end": row["window"]["end"].isoformat()}


def _known(row: Row) -> int:
    return int((row["count"] or 0) - (row["num_nulls"] or 0))


def _numbers(row: Row) -> Said:
    """What is drawn of a window's numbers."""
    quantiles = row["quantiles"] or ()
    at = {"p50": _MEDIAN, "p95": _HIGH}
    found = {name: quantiles[place] if len(quantiles) > place else None for name, place in at.items()}
    others = {name: row[name] for name in ("avg", "min", "max", "low", "high")}
    return _span(row) | {"count": _known(row)} | others | found


def _is_share(value: Any) -> bool:
    return value is None or 0 <= value <= 1


def _halves(rows: Rows) -> tuple[Rows, Rows] | tuple[()]:
    middle = len(rows) // 2
    return (rows[:middle], rows[middle:]) if rows else ()


def _counted(rows: Rows) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in rows:
        for item in row["frequent_items"] or ():
            found[item["item"]] += item["count"]
    return found


def _shares(before: Counter[str], after: Counter[str]) -> list[Said]:
    """The most frequent values with their shares in both halves; nothing came before a single window."""
    most = [value for value, _ in (before + after).most_common(MOST_MIXED)]
    sums = max(before.total(), 1), max(after.total(), 1)
    found: list[Said] = [{"value": v, "before": before[v] / sums[0], "now": after[v] / sums[1]} for v in most]
    if before.total() + after.total() > sum(before[v] + after[v] for v in most):
        rest = {half: max(1 - sum(row[half] for row in found), 0.0) for half in ("before", "now")}
        found.append({"value": "other", **rest})
    return found
