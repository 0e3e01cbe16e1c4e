"""Values turned into counts: frozen cells that a reference decides once and that every later value falls into.

Counts merge by addition, so one machine and a cluster compute the same thing and each value is read once. No value is
refused: what is missing, infinite, empty, unknown or of another type has a cell of its own or falls into the last.
Texts have cells in `evaluation/topics.py`.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from noria.evaluation.arrays import Column, floats, is_column, number, text, texts
from noria.evaluation.arrays import Floats as Floats
from noria.evaluation.arrays import Ints as Ints

T = TypeVar("T")
Arrays = Mapping[str, NDArray[Any]]
"""Named arrays without objects, the way `.npz` files keep them."""

MISSING = "missing"
OTHER = "other"
_OFTEN, _LEARNING, _FEW = 5, 5, 250
_ROUNDING = 1e-9
"""Of a step: a score that is on the grid but for rounding stays there."""


class Cells(Protocol):
    """What every kind of cells can do. Values are a sequence, an array or a column of Arrow, which is fastest."""

    @property
    def size(self) -> int:
        """How many cells there are."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """What a person calls each cell."""
        ...

    @property
    def groupings(self) -> tuple[Ints, ...]:
        """Coarser views in which evidence is looked for too: each gives the group of every cell."""
        ...

    @property
    def ordered(self) -> int:
        """So many of the first cells are in rising order; 0 where there is none."""
        ...

    def assign(self, values: Any) -> Ints:
        """The cell of each value."""
        ...

    def count(self, values: Any) -> Ints:
        """How many of the values fall into each cell."""
        ...

    def to_arrays(self) -> Arrays:
        """Everything that the cells consist of."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class NumericBins:
    """Bins with about equally many values of the reference in each, and a cell for what is no number.

    A value that the reference holds so often that it fills a bin gets one to itself.

    Attributes:
        edges: Rising, shape (B - 1,); a value equal to an edge lies above it. The outer bins have no end.
        centres: Mean of the reference in each bin, shape (B,).
    """

    edges: Floats
    centres: Floats

    @classmethod
    def fit(cls, values: Iterable[object] | Column, bins: int = 10) -> Self:
        """Bins at the quantiles of a reference."""
        known = numbers(values)
        known = np.sort(known[np.isfinite(known)])  # what follows is cheaper then
        if not known.size:
            return cls(np.empty(0), np.zeros(1))
        quantiles = np.quantile(known, np.arange(1, bins) / bins, method="inverted_cdf")
        often, times = np.unique(quantiles, return_counts=True)
        edges = np.unique(np.concatenate([often, _next(often[times > 1])]))
        placed = np.searchsorted(edges, known, side="right")
        rows = np.bincount(placed, minlength=edges.size + 1)
        sums = np.bincount(placed, known, minlength=edges.size + 1)
        ends = np.append(edges, edges[-1])
        return cls(edges, np.where(rows > 0, sums / np.maximum(rows, 1), ends))

    @property
    def size(self) -> int:
        return int(self.edges.size) + 2

    @property
    def names(self) -> tuple[str, ...]:
        if not self.edges.size:
            return ("any number", MISSING)
        inner = [_span(low, high) for low, high in zip(self.edges[:-1], self.edges[1:], strict=True)]
        return (f"below {self.edges[0]:g}", *inner, f"{self.edges[-1]:g} or more", MISSING)

    @property
    def groupings(self) -> tuple[Ints, ...]:
        return ()

    @property
    def ordered(self) -> int:
        return self.edges.size + 1

    def assign(self, values: Iterable[object] | Column) -> Ints:
        found = numbers(values)
        missing = self.edges.size + 1
        return np.where(np.isnan(found), missing, np.searchsorted(self.edges, found, side="right")).astype(np.int64)

    def count(self, values: Iterable[object] | Column) -> Ints:
        return tally(self.assign(values), self.size)

    def to_arrays(self) -> Arrays:
        return {"edges": self.edges, "centres": self.centres}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The bins that `to_arrays` described."""
        return cls(arrays["edges"], arrays["centres"])


@dataclass(frozen=True, slots=True, eq=False)
class Categories:
    """The values that the reference holds, and one cell for all others.

    Attributes:
        known: Most frequent first.
    """

    known: tuple[str, ...]

    @classmethod
    def fit(cls, values: Iterable[object] | Column, most: int = 50) -> Self:
        """The most frequent values of a reference; ties by name."""
        if is_column(values):
            found = texts(values).drop_null().value_counts()
            seen = dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True))
        else:
            seen = Counter(text(value) for value in values if value is not None)
        return cls(tuple(sorted(seen, key=lambda value: (-seen[value], value))[:most]))

    @classmethod
    def learnt(cls, values: Sequence[object], most: int = 50) -> tuple[Self, Ints]:
        """Cells from some values of a reference, and counts of the others (`apart`)."""
        chosen, counted = apart(values)
        cells = cls.fit(chosen, most)
        return cells, cells.count(counted)

    @property
    def size(self) -> int:
        return len(self.known) + 1

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.known, OTHER)

    @property
    def groupings(self) -> tuple[Ints, ...]:
        return ()

    @property
    def ordered(self) -> int:
        return 0

    def assign(self, values: Iterable[object] | Column) -> Ints:
        if is_column(values):
            found = pc.index_in(texts(values), pa.array(self.known, pa.large_string()), skip_nulls=True)
            return np.asarray(pc.fill_null(found, len(self.known)).to_numpy()).astype(np.int64)
        place = {value: cell for cell, value in enumerate(self.known)}
        return np.array([place.get(text(value), len(place)) for value in values], np.int64)

    def count(self, values: Iterable[object] | Column) -> Ints:
        return tally(self.assign(values), self.size)

    def to_arrays(self) -> Arrays:
        return {"known": pack(self.known)}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The categories that `to_arrays` described."""
        return cls(unpack(arrays["known"]))


@dataclass(frozen=True, slots=True)
class ScoreGrid:
    """Scores from 0 to 1 rounded up to a grid, so that a mean and bets on it can be had from counts.

    Up, because a score that counts as more than it was can only make evidence for a fall smaller. What lies outside
    is clipped; what is no number counts as 1.

    Attributes:
        steps: Of the grid; cell k holds what lies above (k - 1)/steps, up to k/steps.
    """

    steps: int = 200

    @property
    def size(self) -> int:
        return self.steps + 1

    @property
    def values(self) -> Floats:
        """What a score in each cell counts as, shape (steps + 1,)."""
        return np.arange(self.steps + 1) / self.steps

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{value:g}" for value in self.values)

    @property
    def groupings(self) -> tuple[Ints, ...]:
        return ()

    @property
    def ordered(self) -> int:
        return self.size

    def assign(self, values: Iterable[object] | Column) -> Ints:
        found = np.nan_to_num(numbers(values), nan=1.0, posinf=1.0, neginf=0.0)
        return np.ceil(np.clip(found, 0, 1) * self.steps - _ROUNDING).astype(np.int64)

    def count(self, values: Iterable[object] | Column) -> Ints:
        return tally(self.assign(values), self.size)

    def to_arrays(self) -> Arrays:
        return {"steps": np.array([self.steps])}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The grid that `to_arrays` described."""
        return cls(int(arrays["steps"][0]))


def apart(values: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    """The values of a reference that choose categories, and those that are counted.

    Every fifth chooses (of few every other) and the rest are counted: counts of the very values that chose say that
    others hardly ever come. In a long-tailed column with 500 rows 93% of unchanged streams alarmed then, 1% do so now.
    Where each value came five times or more, hardly any is still to come, and all of them do both.
    """
    column: Any = values
    times = (
        column.value_counts().field("counts").to_pylist() if is_column(values) else Counter(map(str, values)).values()
    )
    if len(values) and min(times) >= _OFTEN:
        return values, values
    step = _LEARNING if len(values) >= _FEW else 2
    if is_column(values):
        chooses = np.arange(len(values)) % step == 0
        return column.filter(pa.array(chooses)), column.filter(pa.array(~chooses))
    return values[::step], [value for row, value in enumerate(values) if row % step]


def tally(cells: Ints, number: int, times: Ints | None = None) -> Ints:
    """How often each of a number of cells occurs; each value counts once, or as often as told."""
    return np.bincount(cells, times, number).astype(np.int64)


def numbers(values: Iterable[object] | Column) -> Floats:
    """Values as floats; NaN for what is no number."""
    if is_column(values):
        return floats(values)
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
        return values.astype(np.float64, copy=False)
    return np.fromiter((number(value) for value in values), np.float64)


def pack(texts: Iterable[str]) -> NDArray[np.uint8]:
    """Texts as an array of bytes, so that a file of arrays can keep them."""
    return np.frombuffer(json.dumps(list(texts)).encode(), np.uint8)


def unpack(array: NDArray[Any]) -> tuple[str, ...]:
    """The texts that `pack` wrote."""
    return tuple(json.loads(array.tobytes()))


def _span(low: float, high: float) -> str:
    return f"{low:g}" if high == _next(low) else f"{low:g} to {high:g}"


def _next(number: Any) -> Any:
    """The next larger floating-point number of each; infinity after the largest."""
    with np.errstate(over="ignore"):
        return np.nextafter(number, math.inf)
