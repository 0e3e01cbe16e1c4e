"""The columns of data frames in recorded requests: what a model was given besides, or instead of, a text.

Reads `dataframe_split` and `dataframe_records`, named tensors (`inputs`), rows (`instances`, `input`); a CSV or Parquet
body was recorded as `dataframe_split`, a CSV's values as text. Nothing here raises.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

PREFIX = "feature."
"""What the names of these columns begin with where they stand beside others."""
MOST_FEATURES = 256
"""Columns that are kept where nobody says which: callers choose names, and memory is bounded."""
LONGEST_NAME = 200
_EXACT = 1e15
"""Whole numbers below it are exact as doubles."""
_TEXT = "text"
_ROWS = ("dataframe_records", "instances", "inputs", "input")


def features(request: Any) -> dict[str, Sequence[Any]]:
    """Column → its value in each row of a parsed request; the column `text` is left out, it is read as a text.

    Rows that lack a column have None there. A request that holds no data frame has no columns.
    """
    if not isinstance(request, dict):
        return {}
    if "dataframe_split" in request:
        return _split(request["dataframe_split"])
    for key in _ROWS:
        if isinstance(value := request.get(key), dict | list):
            return _columns(value) if isinstance(value, dict) else _records(value)
    return {}


def _split(frame: Any) -> dict[str, Sequence[Any]]:
    if not isinstance(frame, dict) or not isinstance(rows := frame.get("data"), list):
        return {}
    if not isinstance(names := frame.get("columns"), list):
        return {}
    lists = [row if isinstance(row, list) else [] for row in rows]
    return {
        name: [row[place] if place < len(row) else None for row in lists]
        for place, name in enumerate(map(str, names))
        if _kept(name)
    }


def _columns(frame: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """Named tensors, or one row as an object."""
    return {name: value if isinstance(value, list) else [value] for name, value in frame.items() if _kept(name)}


def _records(rows: list[Any]) -> dict[str, Sequence[Any]]:
    objects = [row if isinstance(row, dict) else {} for row in rows]
    names = dict.fromkeys(name for row in objects for name in row if _kept(name))
    if "role" in names:
        return {}  # messages of a chat
    return {name: [row.get(name) for row in objects] for name in names}


def _kept(name: str) -> bool:
    return name != _TEXT and len(name) <= LONGEST_NAME


class FeatureColumns:
    """Features of many requests as columns of equal length, built row after row.

    Args:
        wanted: Names to keep, without the prefix; None for all, up to `MOST_FEATURES` of them.
    """

    def __init__(self, wanted: Collection[str] | None = None) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in wanted or ()}
        self._all = wanted is None

    def add(self, start: int, found: Mapping[str, Sequence[Any]]) -> None:
        """Put a request's features at its rows, which begin at `start`."""
        for name, values in found.items():
            column = self._columns.get(name)
            if column is None:
                if not self._all or len(self._columns) == MOST_FEATURES:
                    continue
                column = self._columns[name] = []
            column.extend([None] * (start - len(column)))
            column.extend(values)

    def arrays(self, rows: int, types: Mapping[str, pa.DataType]) -> dict[str, pa.Array]:
        """Every column with its prefix, `rows` long.

        Args:
            rows: How many there are.
            types: What a column is known to be, by its name with the prefix, `double` or `string`; of others, one that
                holds nothing but numbers is double.
        """
        made = {}
        for name, values in sorted(self._columns.items()):
            values = values[:rows] + [None] * (rows - len(values))
            made[PREFIX + name] = typed(values, types.get(PREFIX + name))
        return made


def typed(values: Sequence[Any], wanted: pa.DataType | None = None) -> pa.Array:
    """JSON values as doubles if all are numbers, else as text; a list or an object is no value, and null.

    Args:
        values: Of one column.
        wanted: `pa.float64()` or `pa.string()`, where it is known what the column is: in a column of numbers, what is
            no number is NaN.
    """
    if wanted is None:
        wanted = pa.float64() if all(map(_may_be_number, values)) else pa.string()
    read = _number if pa.types.is_floating(wanted) else _text
    return pa.array(
        [None if value is None or isinstance(value, list | dict) else read(value) for value in values], wanted
    )


def _number(value: Any) -> float:
    """A plain JSON value as a number, also where it was written as text."""
    try:
        return float(value)
    except ValueError:
        return math.nan
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _text(value: Any) -> str:
    """A plain JSON value as text, whole numbers without a point."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    return str(value)


def _may_be_number(value: Any) -> bool:
    return not isinstance(value, str | bool)
