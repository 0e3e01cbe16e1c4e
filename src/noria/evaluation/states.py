"""What is kept of one column of one window: numbers, counts in frozen cells and small sketches, all of which merge.

Months are sums of days, a cluster's windows sums of its parts, and whatever the split and the order: counts, cells,
extremes and distinct values are the same to the last bit, means to rounding, quantiles within what their sketch
promises.

Cells hold only what is a value of the reference's kind: nulls, NaN, and texts where the reference has numbers are told
by `nulls`, `nans` and `data_type`. They are no evidence, so a column that vanishes or changes its type raises no alarm
by itself.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Self, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.domain.errors import InvalidData, StorageCorrupted
from noria.evaluation.arrays import (
    BOOLEAN,
    NUMERIC,
    STRING,
    VOID,
    Column,
    Floats,
    Ints,
    data_type,
    decoded,
    floats,
    plain,
    texts,
)
from noria.evaluation.cells import Cells, NumericBins, numbers, tally
from noria.evaluation.sketches import (
    distinct_sketch,
    frequent_sketch,
    hash_numbers,
    hash_texts,
    merge_distinct,
    merge_frequent,
    merge_quantiles,
    quantile_sketch,
)

_FORMAT = 1
_Counted: TypeAlias = tuple[Any, Ints]
"""Different values, and how often each occurs."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ColumnState:
    """A column of a window.

    Attributes:
        name: Of the column.
        data_type: `double`, `string`, `boolean`, `date` or `timestamp`; `void` if everything is null.
        count: Rows, nulls among them.
        nulls: Rows without a value.
        nans: Values that are not a number though their type is one.
        zeros: Values that are zero.
        finite: Values that the mean is of; infinities are not.
        mean: Of the finite values; 0 if there are none. Of booleans the share of true; of dates and timestamps
            seconds since 1970.
        m2: Sum of the squared distances from the mean.
        low: Least number, infinities included; infinity if there is none.
        high: Greatest, likewise; minus infinity if there is none.
        texts: Values that are texts.
        shortest: Least length of a text, in characters; 0 if there is none.
        longest: Greatest length.
        characters: Sum of the lengths.
        cells: Values in each cell of the baseline, shape (K,); empty without a baseline.
        kll: Sketch of the numbers' quantiles; infinities count.
        hll: Sketch of the distinct values.
        items: Sketch of the frequent texts.
    """

    name: str
    data_type: str = VOID
    count: int = 0
    nulls: int = 0
    nans: int = 0
    zeros: int = 0
    finite: int = 0
    mean: float = 0.0
    m2: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    texts: int = 0
    shortest: int = 0
    longest: int = 0
    characters: int = 0
    cells: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    kll: bytes = b""
    hll: bytes = b""
    items: bytes = b""

    @classmethod
    def of(cls, name: str, values: Column, cells: Cells | None = None) -> Self:
        """The state of a column's values, whatever they are.

        Args:
            name: Of the column.
            values: A column of any type; numbers, texts and booleans are read without a loop in Python.
            cells: The baseline's; None if there is none.
        """
        column = plain(values)
        kind, nulls = data_type(column.type), column.null_count
        facts: dict[str, Any] = {"data_type": kind, "count": len(column), "nulls": nulls}
        known = column.drop_null() if nulls else column
        if kind == VOID or not len(known):
            counted: _Counted = np.empty(0), np.empty(0, np.int64)
        elif kind in NUMERIC:
            counted = _of_numbers(floats(known), kind, facts)
        else:
            counted = _of_texts(_valid(texts(known)), facts)
        if cells is not None:
            facts["cells"] = _in_cells(cells, *counted)
        return cls(name=name, **facts)

    def merge(self, other: "ColumnState") -> "ColumnState":
        """The state of both's values together."""
        return merged([self, other])

    def agrees(self, other: "ColumnState") -> bool:
        """Whether both are of the same values, as far as states tell.

        Sketches of quantiles and of frequent texts don't count, since chance and the order have a part in them, and
        moments count to rounding.
        """
        exact = all(getattr(self, name) == getattr(other, name) for name in _EXACT)
        moments = (self.mean, self.m2), (other.mean, other.m2)
        return exact and np.array_equal(self.cells, other.cells) and np.allclose(*moments, rtol=1e-9, atol=0)

    def to_bytes(self) -> bytes:
        """The state as the tables keep it: MessagePack."""
        facts = [getattr(self, name) for name in _FACTS]
        return msgspec.msgpack.encode([_FORMAT, *facts, self.cells.astype("<i8").tobytes()])

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """The state that `to_bytes` wrote.

        Raises:
            StorageCorrupted: It isn't one.
        """
        try:
            number, *facts, cells = msgspec.msgpack.decode(raw)
            if number != _FORMAT:
                raise ValueError(f"its format is {number!r}")
            known = dict(zip(_FACTS, facts, strict=True))
            return cls(**known, cells=np.frombuffer(cells, "<i8").astype(np.int64))
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            raise StorageCorrupted(
                f"A monitor's state of a window can't be read: {error}.",
                "Compute the window again from its records.",
            ) from error


_FACTS = tuple(name for name in ColumnState.__slots__ if name != "cells")
_EXACT = tuple(name for name in _FACTS if name not in {"mean", "m2", "kll", "items"})


def merged(states: Iterable[ColumnState]) -> ColumnState:
    """The state of all values together; the order doesn't matter.

    Cells that differ in number come from different baselines: the whole then has none.

    Raises:
        InvalidData: There is no state, or they are of different columns.
    """
    parts = list(states)
    names = {part.name for part in parts}
    if len(names) != 1:
        raise InvalidData(
            f"States of {', '.join(sorted(names)) or 'no column'} can't be merged.", "Merge states of one column."
        )
    count, mean, m2 = reduce(_chan, ((part.finite, part.mean, part.m2) for part in parts))
    held = [part for part in parts if part.texts]
    return ColumnState(
        name=parts[0].name,
        data_type=_wider(parts),
        **{fact: sum(getattr(part, fact) for part in parts) for fact in _SUMS},
        finite=count,
        mean=mean,
        m2=m2,
        low=min(part.low for part in parts),
        high=max(part.high for part in parts),
        shortest=min((part.shortest for part in held), default=0),
        longest=max((part.longest for part in held), default=0),
        cells=_added(parts),
        kll=merge_quantiles(part.kll for part in parts),
        hll=merge_distinct(part.hll for part in parts),
        items=merge_frequent(part.items for part in parts),
    )


_SUMS = ("count", "nulls", "nans", "zeros", "texts", "characters")


def _of_numbers(found: Floats, kind: str, facts: dict[str, Any]) -> _Counted:
    """Facts of numbers; the different numbers in rising order. Sorting first makes all that follows cheaper."""
    rising = np.sort(found)
    rising = rising[: np.searchsorted(rising, math.nan)]
    finite = rising[np.searchsorted(rising, -math.inf, side="right") : np.searchsorted(rising, math.inf)]
    count, mean, m2 = _moments(finite)
    zero = np.searchsorted(rising, 0, side="right") - np.searchsorted(rising, 0)
    facts |= {"nans": found.size - rising.size, "zeros": int(zero), "finite": count, "mean": mean, "m2": m2}
    if not rising.size:
        return rising, np.empty(0, np.int64)
    facts |= {"low": float(rising[0]), "high": float(rising[-1])}
    first = np.flatnonzero(np.concatenate([[True], rising[1:] != rising[:-1]]))
    different = rising if first.size == rising.size else rising[first]
    times = np.diff(np.append(first, rising.size))
    facts["hll"] = distinct_sketch(hash_numbers(different))
    if kind == BOOLEAN:
        facts["items"] = frequent_sketch(texts(pa.array(different == 1)), times)
    else:
        facts["kll"] = quantile_sketch(rising)
    return different, times


def _valid(known: Column) -> Column:
    """Texts that are UTF-8: files of others may hold what isn't."""
    try:
        known.validate(full=True)
    except pa.ArrowInvalid:
        return decoded(known)
    return known


def _of_texts(known: Column, facts: dict[str, Any]) -> _Counted:
    """Facts of texts; the different texts."""
    found = known.value_counts()
    different, times = found.field("values"), found.field("counts").to_numpy()
    sizes = pc.utf8_length(different).to_numpy().astype(np.int64)
    facts |= {
        "texts": len(known),
        "shortest": int(sizes.min()),
        "longest": int(sizes.max()),
        "characters": int(sizes @ times),
        "hll": distinct_sketch(hash_texts(different)),
        "items": frequent_sketch(different, times),
    }
    return different, times


def _in_cells(cells: Cells, different: Any, times: Ints) -> Ints:
    """How many values fall into each cell. Numbers rise, so that in bins only the edges have to be found."""
    if isinstance(cells, NumericBins) and isinstance(different, np.ndarray):
        seen = np.concatenate([[0], times.cumsum()])
        below = seen[np.searchsorted(different, cells.edges)]
        return np.diff(np.concatenate([[0], below, seen[[-1, -1]]])).astype(np.int64)
    if cells.ordered:
        found = numbers(different)
        known = ~np.isnan(found)
        return tally(cells.assign(found[known]), cells.size, times[known])
    column = pa.array(different) if isinstance(different, np.ndarray) else different
    return tally(cells.assign(texts(column)), cells.size, times)


def _moments(values: Floats) -> tuple[int, float, float]:
    """Count, mean and sum of squares about the mean of rising values; infinity where a double is too small for it."""
    if not values.size:
        return 0, 0.0, 0.0
    if values[0] == values[-1]:
        return values.size, float(values[0]), 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(values.mean())
        if not math.isfinite(mean):
            mean = float((values / values.size).sum())
        away = values - mean
        return values.size, mean, float(np.square(away, out=away).sum())


def _chan(one: tuple[int, float, float], other: tuple[int, float, float]) -> tuple[int, float, float]:
    """Moments of two parts together (Chan, Golub & LeVeque 1979)."""
    (n, mean, m2), (k, mean_of_other, m2_of_other) = one, other
    if not n or not k:
        return one if n else other
    both = n + k
    apart = mean_of_other - mean
    middle = mean + apart * (k / both) if math.isfinite(apart) else mean * (n / both) + mean_of_other * (k / both)
    return both, middle, m2 + m2_of_other + apart * apart * (n / both) * k


def _wider(parts: list[ColumnState]) -> str:
    """The type that all values have; where they differ, everything is at least a text."""
    kinds = {part.data_type for part in parts} - {VOID}
    return kinds.pop() if len(kinds) == 1 else STRING if kinds else VOID


def _added(parts: list[ColumnState]) -> Ints:
    sizes = {part.cells.size for part in parts if part.count - part.nulls or part.cells.size}
    if len(sizes) != 1 or not max(sizes):
        return np.empty(0, np.int64)
    return np.asarray(np.sum([part.cells for part in parts if part.cells.size], axis=0, dtype=np.int64))
