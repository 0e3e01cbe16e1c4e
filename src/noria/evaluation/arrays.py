"""Columns as Arrow keeps them, read as numbers or as texts: vectorised, and whatever their type is.

Numbers of every type are doubles; dates and times are seconds since 1970, durations seconds. A text counts as a number
where it is written as one. Everything has a text: whole numbers without a point, `true` and `false`, nested values the
way Python writes them.
"""

import math
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Column: TypeAlias = pa.Array | pa.ChunkedArray

NUMBER, BOOLEAN, DATE, TIMESTAMP, STRING, VOID = "double", "boolean", "date", "timestamp", "string", "void"
"""The `data_type` of a column; `void` holds nothing but nulls."""
NUMERIC = frozenset({NUMBER, BOOLEAN, DATE, TIMESTAMP})
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY = 86_400.0
_TEXT = pa.large_string()


def is_column(values: object) -> bool:
    """Whether values are a column of Arrow."""
    return isinstance(values, pa.Array | pa.ChunkedArray)


def plain(values: Column) -> Column:
    """A column without dictionaries and extension types; texts have long offsets, so that no amount is too much."""
    kind = values.type
    if isinstance(kind, pa.BaseExtensionType):
        return plain(values.cast(kind.storage_type))
    if pa.types.is_dictionary(kind):
        return plain(pc.cast(values, kind.value_type))
    if pa.types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(values))
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return pc.cast(values, _TEXT)
    return pc.cast(values, pa.large_binary()) if _is_binary(kind) else values


def data_type(kind: pa.DataType) -> str:
    """What the tables call a type."""
    if pa.types.is_null(kind):
        return VOID
    if pa.types.is_boolean(kind):
        return BOOLEAN
    if pa.types.is_date(kind):
        return DATE
    if pa.types.is_timestamp(kind):
        return TIMESTAMP
    return NUMBER if _is_number(kind) else STRING


def floats(values: Column) -> Floats:
    """Values as doubles; NaN for what is null or no number."""
    column = plain(values)
    kind = column.type
    if pa.types.is_boolean(kind):
        column = pc.cast(column, pa.uint8())
    elif pa.types.is_temporal(kind):
        return _seconds(column)
    elif pa.types.is_large_string(kind):
        return _written(column)
    elif not (_is_number(kind) or pa.types.is_null(kind)):
        return np.full(len(column), math.nan)
    return _doubles(column)


def texts(values: Column) -> Column:
    """Values as texts, in a column of `large_string`."""
    column = plain(values)
    if column.type == _TEXT:
        return column
    if pa.types.is_large_binary(column.type):
        return decoded(column)
    try:
        return pc.cast(column, _TEXT)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):  # nested values, and the rarer of the other types
        return pa.array([None if v is None else readable(str(v)) for v in column.to_pylist()], _TEXT)


def decoded(values: Column) -> pa.Array:
    """Bytes, or texts that are no UTF-8, as texts with a sign in place of what can't be read."""
    raw = pc.cast(values, pa.large_binary()).to_pylist()
    return pa.array([None if v is None else v.decode("utf-8", "replace") for v in raw], _TEXT)


def text(value: Any) -> str:
    """One value of Python as `texts` would write it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | float | np.bool_ | np.floating):
        return str(texts(pa.array([value.item() if isinstance(value, np.generic) else value]))[0])
    return str(value)


def readable(value: str) -> str:
    """A text without halves of characters, which UTF-8 can't hold."""
    return value.encode("utf-8", "replace").decode()


def listed(values: Iterable[Any]) -> list[Any]:
    """Values as a list of Python."""
    return list(values.to_pylist() if isinstance(values, pa.Array | pa.ChunkedArray) else values)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind) or pa.types.is_binary_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_duration(kind)
        or pa.types.is_time(kind)
    )


def _doubles(column: Column) -> Floats:
    found = pc.cast(column, pa.float64(), safe=False)
    if found.null_count:
        found = pc.fill_null(found, math.nan)
    return np.asarray(found.to_numpy(zero_copy_only=False) if isinstance(found, pa.Array) else found.to_numpy())


def _seconds(column: Column) -> Floats:
    kind = column.type
    if pa.types.is_date(kind):
        return _doubles(pc.cast(pc.cast(column, pa.date32()), pa.int32())) * _DAY
    width = pa.int32() if pa.types.is_time32(kind) else pa.int64()
    return _doubles(pc.cast(column, width)) / _UNITS[kind.unit]


def _written(column: Column) -> Floats:
    """The numbers that texts are; each different text is read once."""
    known = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    coded = known.dictionary_encode()
    read = np.array([*(number(word) for word in coded.dictionary.to_pylist()), math.nan])
    places: Ints = pc.fill_null(coded.indices, len(read) - 1).to_numpy(zero_copy_only=False)
    return np.asarray(read[places])


def number(value: object) -> float:
    """One value of Python as a number; NaN for what is none."""
    try:
        return float(value)  # type: ignore[arg-type]  # whatever it is, float() says whether it is a number
    except (TypeError, ValueError, OverflowError):
        return math.nan
