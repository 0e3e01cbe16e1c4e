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
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Arrays = Mapping[str, NDArray[Any]]
"""Named arrays without objects, the way `.npz` files keep them."""

MISSING = "missing"
OTHER = "other"


class Cells(Protocol):
    """What every kind of cells can do."""

    @property
    def names(self) -> tuple[str, ...]:
        """What a person calls each cell."""
        ...

    @property
    def groupings(self) -> tuple[Ints, ...]:
        """Coarser views in which evidence is looked for too: each gives the group of every cell."""
        ...

    def assign(self, values: Sequence[Any]) -> Ints:
        """The cell of each value."""
        ...

    def count(self, values: Sequence[Any]) -> Ints:
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
    def fit(cls, values: Iterable[object], bins: int = 10) -> Self:
        """Bins at the quantiles of a reference."""
        known = numbers(values)
        known = known[np.isfinite(known)]
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
    def names(self) -> tuple[str, ...]:
        if not self.edges.size:
            return ("any number", MISSING)
        inner = [_span(low, high) for low, high in zip(self.edges[:-1], self.edges[1:], strict=True)]
        return (f"below {self.edges[0]:g}", *inner, f"{self.edges[-1]:g} or more", MISSING)

    @property
    def groupings(self) -> tuple[Ints, ...]:
        return ()

    def assign(self, values: Iterable[object]) -> Ints:
        found = numbers(values)
        missing = self.edges.size + 1
        return np.where(np.isnan(found), missing, np.searchsorted(self.edges, found, side="right")).astype(np.int64)

    def count(self, values: Iterable[object]) -> Ints:
        return tally(self.assign(values), self.edges.size + 2)

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
    def fit(cls, values: Iterable[object], most: int = 50) -> Self:
        """The most frequent values of a reference; ties by name."""
        seen = Counter(str(value) for value in values if value is not None)
        return cls(tuple(sorted(seen, key=lambda value: (-seen[value], value))[:most]))

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.known, OTHER)

    @property
    def groupings(self) -> tuple[Ints, ...]:
        return ()

    def assign(self, values: Iterable[object]) -> Ints:
        place = {value: cell for cell, value in enumerate(self.known)}
        return np.array([place.get(str(value), len(place)) for value in values], np.int64)

    def count(self, values: Iterable[object]) -> Ints:
        return tally(self.assign(values), len(self.known) + 1)

    def to_arrays(self) -> Arrays:
        return {"known": pack(self.known)}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The categories that `to_arrays` described."""
        return cls(unpack(arrays["known"]))


def tally(cells: Ints, number: int) -> Ints:
    """How often each of a number of cells occurs."""
    return np.bincount(cells, minlength=number).astype(np.int64)


def numbers(values: Iterable[object]) -> Floats:
    """Values as floats; NaN for what is no number."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
        return values.astype(np.float64)
    return np.fromiter((_number(value) for value in values), np.float64)


def pack(texts: Iterable[str]) -> NDArray[np.uint8]:
    """Texts as an array of bytes, so that a file of arrays can keep them."""
    return np.frombuffer(json.dumps(list(texts)).encode(), np.uint8)


def unpack(array: NDArray[Any]) -> tuple[str, ...]:
    """The texts that `pack` wrote."""
    return tuple(json.loads(array.tobytes()))


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # whatever it is, float() says whether it is a number
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _span(low: float, high: float) -> str:
    return f"{low:g}" if high == _next(low) else f"{low:g} to {high:g}"


def _next(number: Any) -> Any:
    """The next larger floating-point number of each; infinity after the largest."""
    with np.errstate(over="ignore"):
        return np.nextafter(number, math.inf)
