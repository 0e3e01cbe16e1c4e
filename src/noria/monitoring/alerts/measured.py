"""What a closed window's rows of the tables say about the statistic that a rule watches."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from noria.domain.alert import SliceMoved
from noria.ports import RecordStore
from noria.settings import Against, AlertRule
from noria.settings.alerts import DRIFT_STATISTICS, PROFILE_STATISTICS, QUALITY, percentile
from noria.settings.monitors import column_of

ALL_MODELS, TABLE = "*", ":table"
MOST_SLICES = 3
_DRIFT_TYPE = {Against.BASELINE: "BASELINE", Against.PREVIOUS: "CONSECUTIVE"}
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """A value of one window: of which `model/version` (`*` for all), on how many records."""

    value: float
    model: str
    rows: int


@dataclass(slots=True)
class Window:
    """One window's rows of profile_metrics and drift_metrics, read when the first rule asks for them.

    Attributes:
        records: The tables.
        endpoint: Endpoint.
        start: Of the window.
        end: Of the window.
        champion: `model/version` that answers; drift is its own.
    """

    records: RecordStore
    endpoint: str
    start: datetime
    end: datetime
    champion: str
    _rows: dict[str, Sequence[Row]] = field(default_factory=dict)

    def value(self, rule: AlertRule) -> Measured | None:
        """The statistic that a rule watches, in its slice; None if the window has none."""
        key, _, value = rule.slice.partition("=")
        for rows, statistic in self._candidates(rule):
            mine = [r for r in rows if (r["slice_key"] or "", str(r["slice_value"] or "")) == (key, value)]
            for row in mine:
                if (found := _number(row, statistic)) is not None:
                    return Measured(found, row["model_id"] or ALL_MODELS, self._count(row))
        return None

    def slices(self, rule: AlertRule) -> tuple[SliceMoved, ...]:
        """The slices in which the statistic is furthest on the wrong side."""
        if rule.slice or rule.metric is None:
            return ()
        for rows, statistic in self._candidates(rule):
            found = {
                (row["slice_key"], str(row["slice_value"])): SliceMoved(
                    row["slice_key"], str(row["slice_value"]), statistic, number, self._count(row)
                )
                for row in rows
                if row["slice_key"] and (number := _number(row, statistic)) is not None
            }
            if found:
                worst = sorted(found.values(), key=lambda s: s.now, reverse=rule.above is not None)
                return tuple(worst[:MOST_SLICES])
        return ()

    def _candidates(self, rule: AlertRule) -> Iterable[tuple[Sequence[Row], str]]:
        """Rows that may hold the statistic, and its column, the likeliest first."""
        metric = rule.metric or ""
        column, _, statistic = metric.rpartition(".")
        column = TABLE if column == "table" else column_of(column)
        if statistic in DRIFT_STATISTICS:
            yield self._drift(column, rule.against), statistic
        elif statistic in PROFILE_STATISTICS or percentile(statistic) is not None:
            yield self._profile(column), statistic
        if metric.startswith(QUALITY):
            yield self._profile(TABLE), metric.removeprefix(QUALITY)
            yield self._profile(metric), "avg"

    def _profile(self, column: str) -> list[Row]:
        """All versions' rows first: what callers get is what all versions give them."""
        found = [r for r in self._of("profile_metrics") if r["column_name"] == column]
        return sorted(found, key=lambda r: self._nearness(r, (ALL_MODELS, self.champion)))

    def _drift(self, column: str, against: Against) -> list[Row]:
        """The champion's rows first, since the baseline is its own."""
        found = [
            r
            for r in self._of("drift_metrics")
            if column in (r["column_name"], r["monitor"]) and r["drift_type"] == _DRIFT_TYPE[against]
        ]
        return sorted(found, key=lambda r: self._nearness(r, (self.champion, ALL_MODELS)))

    @staticmethod
    def _nearness(row: Row, wanted: tuple[str, str]) -> tuple[int, int]:
        model = row["model_id"] or ALL_MODELS
        return wanted.index(model) if model in wanted else len(wanted), -(row["monitor_version"] or 0)

    def _of(self, table: str) -> Sequence[Row]:
        if table not in self._rows:
            rows = self.records.scan(table, endpoint=self.endpoint, since=self.start, until=self.end).to_pylist()
            mine = {"start": self.start, "end": self.end}
            models = {ALL_MODELS, self.champion}
            self._rows[table] = [r for r in rows if r["window"] == mine and (r["model_id"] or ALL_MODELS) in models]
        return self._rows[table]

    def _count(self, row: Row) -> int:
        """Records behind a row; drift rows don't say, so the window's are counted."""
        said = row.get("count")
        if said is None:
            table = (r for r in self._profile(TABLE) if not r["slice_key"])
            said = next((r["count"] for r in table), 0)
        return int(said or 0)


def _number(row: Row, statistic: str) -> float | None:
    """The statistic's value in a row; None if it has none, or none that can be compared.

    A row of no records is no data, whatever its numbers: nothing came, so nothing can be said of it.
    """
    if row.get("count") == 0:
        return None
    rank = percentile(statistic)
    found: Any = row.get(statistic)
    if rank is not None:
        quantiles = row.get("quantiles") or ()
        found = quantiles[rank] if len(quantiles) == 101 else None
    if isinstance(found, Mapping):  # a test's statistic; a measure of several classes: their plain average
        found = found.get("statistic", found.get("macro"))
    if isinstance(found, bool) or not isinstance(found, int | float) or math.isnan(found):
        return None
    return float(found)
