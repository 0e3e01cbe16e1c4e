"""Rows of the `profile_metrics` table, from states: one for each column of a window, and one for the window itself.

A column that is empty, all null, constant, or full of NaN and infinities gets a row that says so. What has no meaning
for a column stays null.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from noria.evaluation.arrays import BOOLEAN, NUMBER, STRING, Floats
from noria.evaluation.sketches import distinct, frequent, quantiles
from noria.evaluation.states import ColumnState

Row = dict[str, Any]
"""Column of the table → value; what is absent is null."""

TABLE = ":table"
"""The name of the row for a whole window."""
QUANTILES: Floats = np.linspace(0, 1, 101)
"""The table's `quantiles` are the percentiles 0, 1, … 100."""
_MEDIAN = 50
_FREQUENT_ITEMS = 20
_LABEL = 40


def profile(state: ColumnState) -> Row:
    """A column's row. Infinities count in min, max and quantiles; average and deviation are of the finite values."""
    row: Row = {
        "column_name": state.name,
        "data_type": state.data_type,
        "count": state.count,
        "num_nulls": state.nulls,
        "percent_null": percent(state.nulls, state.count),
        "distinct_count": distinct(state.hll),
        "percent_distinct": percent_distinct(state),
    }
    if state.data_type == NUMBER:
        row |= {"num_nan": state.nans, "percent_nan": percent(state.nans, state.count)}
        row |= {"num_zeros": state.zeros, "percent_zeros": percent(state.zeros, state.count)}
    if state.data_type in (STRING, BOOLEAN):
        row["frequent_items"] = _frequent(state)
    return row | _spread(state) | _lengths(state)


def profile_table(states: Iterable[ColumnState], rows: int | None = None) -> Row:
    """The row `:table` for all columns together: how many rows, and which columns hold anything.

    Args:
        states: Of one window's columns.
        rows: How many there were; None: as many as the longest column has.
    """
    known = list(states)
    count = max((state.count for state in known), default=0) if rows is None else rows
    return {"column_name": TABLE, "count": count, "non_null_columns": non_null_columns(known)}


def non_null_columns(states: Iterable[ColumnState]) -> list[str]:
    """The columns that hold anything."""
    return [state.name for state in states if state.count > state.nulls]


def percent(part: int, whole: int) -> float:
    """A share of 100; 0 of nothing."""
    return 100 * part / whole if whole else 0.0


def percent_distinct(state: ColumnState) -> float:
    """Different values for 100 rows; an estimate may not say more than one for each."""
    return min(percent(distinct(state.hll), state.count), 100.0)


def _spread(state: ColumnState) -> Row:
    """Average, deviation, extremes and quantiles of what is no NaN; nothing if that is nothing."""
    if state.low > state.high:
        return {}
    percentiles = quantiles(state.kll, QUANTILES)
    return {
        "avg": state.mean if state.finite else None,
        "stddev": _deviation(state),
        "min": state.low,
        "max": state.high,
        "quantiles": [state.low, *percentiles[1:-1], state.high] if percentiles else None,
        "median": percentiles[_MEDIAN] if percentiles else None,
    }


def _deviation(state: ColumnState) -> float | None:
    if state.finite < 2 or math.isinf(state.m2):
        return None
    return math.sqrt(state.m2 / (state.finite - 1))


def _lengths(state: ColumnState) -> Row:
    if not state.texts:
        return {}
    mean = state.characters / state.texts
    return {"min_length": float(state.shortest), "max_length": float(state.longest), "avg_length": mean}


def _frequent(state: ColumnState) -> list[Mapping[str, object]]:
    """The values that occur most; of many or long ones only those that occur more than once."""
    found = frequent(state.items)
    short = state.characters <= _LABEL * state.texts
    least = 1 if short and not found.error and len(found.items) <= _FREQUENT_ITEMS else 2
    often = sorted(((item, times) for item, times in found.items.items() if times >= least), key=_most)
    return [{"item": item, "count": times} for item, times in often[:_FREQUENT_ITEMS]]


def _most(pair: tuple[str, int]) -> tuple[int, str]:
    return -pair[1], pair[0]
