"""One row of the `profile_metrics` table for one column of one window, from its raw values.

Quantiles are KLL sketches, distinct counts HyperLogLog, frequent items a bounded sketch: constant in size whatever
comes.
A column that is empty, all null, constant or full of NaN and infinities gets a row that says so.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from datasketches import frequent_items_error_type, frequent_strings_sketch, hll_sketch, kll_doubles_sketch

from noria.evaluation.cells import Floats, numbers

Row = dict[str, Any]
"""Column of `profile_metrics` → value; what is absent is null."""

KLL_K = 200
"""Rank error of the quantiles: 1.65% with 99% confidence."""
HLL_LOG_K = 12
"""Standard error of distinct counts: 1.6%."""
QUANTILES: Floats = np.linspace(0, 1, 101)
"""The table's `quantiles` are the percentiles 0, 1, … 100."""
_FREQUENT_LOG_K = 10
_FREQUENT_ITEMS = 20
_ITEM_LENGTH = 200


def profile_numbers(name: str, values: Sequence[object]) -> Row:
    """A numeric column. Infinities count in min, max and quantiles; average and deviation are of the finite values."""
    found = numbers(values)
    nulls = sum(value is None for value in values)
    known = found[~np.isnan(found)]
    row = _row(name, "double", found.size, nulls) | _shares(found.size, nan=found.size - known.size - nulls)
    row |= {"num_zeros": int((found == 0).sum()), "percent_zeros": _percent(int((found == 0).sum()), found.size)}
    return row | _spread(known) | _distinct(known.tolist(), found.size)


def profile_texts(name: str, values: Sequence[str | None]) -> Row:
    """A column of texts: how long they are in characters, and those that occur more than once."""
    texts = [value for value in values if value is not None]
    row = _row(name, "string", len(values), len(values) - len(texts))
    return row | _lengths(texts) | _distinct(texts, len(values)) | {"frequent_items": _frequent(texts, least=2)}


def profile_categories(name: str, values: Sequence[str | None]) -> Row:
    """A column of few different values and how often each occurs."""
    return profile_texts(name, values) | {"frequent_items": _frequent([v for v in values if v is not None], least=1)}


def profile_table(columns: Mapping[str, Sequence[object]]) -> Row:
    """The row `:table` for all columns together: how many rows, and which columns hold anything."""
    rows = max((len(values) for values in columns.values()), default=0)
    held = [name for name, values in columns.items() if any(value is not None for value in values)]
    return {"column_name": ":table", "count": rows, "non_null_columns": held}


def _row(name: str, data_type: str, count: int, nulls: int) -> Row:
    return {
        "column_name": name,
        "data_type": data_type,
        "count": count,
        "num_nulls": nulls,
        "percent_null": _percent(nulls, count),
    }


def _shares(count: int, *, nan: int) -> Row:
    return {"num_nan": nan, "percent_nan": _percent(nan, count)}


def _spread(known: Floats) -> Row:
    """Average, deviation, extremes and quantiles of what is no NaN; nothing if that is nothing."""
    if not known.size:
        return {}
    sketch = kll_doubles_sketch(KLL_K)
    sketch.update(known)
    finite = known[np.isfinite(known)]
    return {
        "avg": float(finite.mean()) if finite.size else None,
        "stddev": float(finite.std(ddof=1)) if finite.size > 1 else None,
        "min": float(known.min()),
        "max": float(known.max()),
        "quantiles": [float(q) for q in sketch.get_quantiles(QUANTILES)],
        "median": float(sketch.get_quantile(0.5)),
    }


def _lengths(texts: Sequence[str]) -> Row:
    found = [len(text) for text in texts]
    if not found:
        return {}
    shortest, longest, mean = float(min(found)), float(max(found)), math.fsum(found) / len(found)
    return {"min_length": shortest, "max_length": longest, "avg_length": mean}


def _distinct(values: Iterable[object], count: int) -> Row:
    sketch = hll_sketch(HLL_LOG_K)
    for value in values:
        sketch.update(f"={_clean(value)}")  # the sketch ignores empty texts
    distinct = round(sketch.get_estimate())
    return {"distinct_count": distinct, "percent_distinct": min(_percent(distinct, count), 100.0)}


def _frequent(texts: Sequence[str], least: int) -> list[Mapping[str, object]]:
    sketch = frequent_strings_sketch(_FREQUENT_LOG_K)
    for text in texts:
        sketch.update(_clean(text)[:_ITEM_LENGTH])
    found = sketch.get_frequent_items(frequent_items_error_type.NO_FALSE_NEGATIVES)
    often = sorted(((item, int(times)) for item, times, *_ in found if times >= least), key=lambda p: (-p[1], p[0]))
    return [{"item": item, "count": times} for item, times in often[:_FREQUENT_ITEMS]]


def _clean(value: object) -> str:
    """A text without halves of characters, which the sketches' UTF-8 can't hold."""
    return str(value).encode("utf-8", "replace").decode()


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0
