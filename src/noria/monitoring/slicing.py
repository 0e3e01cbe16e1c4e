"""By what profile and drift are told apart besides models: who asked, what metadata say, a column of few values.

Only the most frequent values of a window have slices of their own, so that a million of them don't become a million
rows; the rest is `:other`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.evaluation.arrays import texts
from noria.settings.monitors import METADATA

ALL = ""
"""The slice that is everything."""
OTHER = ":other"
_MOST = 100_000
"""Different values that are counted; beyond it the rarest are forgotten now and then."""
_OF_REQUESTS = ("requester", "model")


def values_of(key: str, records: pa.Table, items: pa.Table) -> tuple[pa.Array, pa.Array]:
    """The value of a slice for each record and each item; null where there is none.

    A record whose items differ has the first one's value.
    """
    owner = items["record"].to_numpy()
    if key in _OF_REQUESTS or key.startswith(METADATA):
        mine = records[key] if key in _OF_REQUESTS else _metadata(records["metadata"], key.removeprefix(METADATA))
        mine = _text(mine)
        return mine, mine.take(pa.array(owner))
    theirs = _text(items[key]) if key in items.column_names else pa.nulls(items.num_rows, pa.string())
    first = np.full(records.num_rows, -1)
    first[owner[::-1]] = np.arange(len(owner))[::-1]
    place = pa.array(first, pa.int64(), mask=first < 0)
    return theirs.take(place), theirs


def columns_of(slices: Iterable[str]) -> list[str]:
    """The observed columns that slices need beyond what is known of every request."""
    return [key for key in slices if key not in _OF_REQUESTS and not key.startswith(METADATA)]


class Frequent:
    """Counts the values of slices in each window.

    Args:
        most: How many of them are told apart.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: dict[tuple[str, str], Counter[str]] = {}

    def add(self, key: str, window: str, values: pa.Array) -> None:
        """Count values of a slice in a window."""
        counted = self._counts.setdefault((key, window), Counter())
        found = values.drop_null().value_counts()
        counted.update(dict(zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True)))
        if len(counted) > 2 * _MOST:
            self._counts[key, window] = Counter(dict(_ranked(counted)[:_MOST]))

    def values(self, keys: Sequence[str]) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """Slice → start of the window → its most frequent values; ties by name."""
        found: dict[str, dict[str, Sequence[str]]] = {key: {} for key in keys}
        for (key, window), counted in self._counts.items():
            found[key][window] = [value for value, _ in _ranked(counted)[: self._most]]
        return found


def _ranked(counted: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))


def _text(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    found = pc.cast(texts(values), pa.string())
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _metadata(values: pa.ChunkedArray, key: str) -> pa.Array:
    return pc.map_lookup(values.combine_chunks(), pa.scalar(key), "first")
