"""Summaries of a column that stay small whatever comes, merge in any order and are plain bytes.

| what | how | error |
|---|---|---|
| quantiles | KLL, k = 200 (Karnin, Lang & Liberty 2016) | 1.65% of the ranks, with 99% confidence |
| distinct values | exact up to 500, then HyperLogLog with 4,096 registers | 1.6% (standard error) |
| frequent values | Misra-Gries, exact up to 256 values | at most rows / 257 too few; more for long texts |

Distinct and frequent values are not taken from `datasketches`: its sketches take one value at a time, and what they
estimate depends on the order. These are equal for any partition of the values (distinct) and as long as they are exact
(frequent); docs/decisions/0020 has the numbers.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping

import msgspec
import numpy as np
import pyarrow as pa
from datasketches import kll_doubles_sketch
from numpy.typing import NDArray

from noria.evaluation.arrays import Column, Floats, Ints, texts

Hashes = NDArray[np.uint64]

KLL_K = 200
REGISTERS = 2**12
EXACT = 500
"""So many distinct values are counted exactly: their hashes take less room than the registers."""
FREQUENT = 256
ROOM = 16_000
"""Characters that frequent values may take together."""
ITEM = 200
"""Characters that are kept of a value."""
_WORD = 8
_SHORT = 256
_RANKS = 52


# --- quantiles -------------------------------------------------------------------------------------------------------


def quantile_sketch(values: Floats) -> bytes:
    """A KLL sketch of numbers; empty for none. Sorted ones take a third of the time."""
    if not values.size:
        return b""
    sketch = kll_doubles_sketch(KLL_K)
    sketch.update(values)
    return bytes(sketch.serialize())


def merge_quantiles(sketches: Iterable[bytes]) -> bytes:
    """The sketch of all values together."""
    held = [raw for raw in sketches if raw]
    if len(held) < 2:
        return held[0] if held else b""
    whole = kll_doubles_sketch.deserialize(held[0])
    for raw in held[1:]:
        whole.merge(kll_doubles_sketch.deserialize(raw))
    return bytes(whole.serialize())


def quantiles(sketch: bytes, ranks: Floats) -> list[float]:
    """Values at ranks from 0 to 1; none of nothing."""
    if not sketch:
        return []
    return [float(q) for q in kll_doubles_sketch.deserialize(sketch).get_quantiles(ranks)]


# --- distinct values -------------------------------------------------------------------------------------------------


def distinct_sketch(hashes: Hashes) -> bytes:
    """Of the hashes of values: the sorted hashes themselves while they are few, else registers."""
    rising = np.sort(hashes)
    repeated = rising[1:] == rising[:-1]
    if rising.size - np.count_nonzero(repeated) > EXACT:
        return _registers(rising).tobytes()
    return bytes(np.concatenate([rising[:1], rising[1:][~repeated]]).tobytes())


def merge_distinct(sketches: Iterable[bytes]) -> bytes:
    """The sketch of all values together; the same bytes for any partition and order."""
    held = [raw for raw in sketches if raw]
    exact = [np.frombuffer(raw, np.uint64) for raw in held if not _is_dense(raw)]
    few = distinct_sketch(np.concatenate(exact)) if exact else b""
    dense = [raw for raw in held if _is_dense(raw)]
    if not dense:
        return few
    if few and not _is_dense(few):
        few = _registers(np.frombuffer(few, np.uint64)).tobytes()
    return bytes(np.maximum.reduce([np.frombuffer(raw, np.uint8) for raw in (*dense, few) if raw]).tobytes())


def distinct(sketch: bytes) -> int:
    """How many different values there were."""
    return round(_estimate(np.frombuffer(sketch, np.uint8))) if _is_dense(sketch) else len(sketch) // _WORD


def _is_dense(sketch: bytes) -> bool:
    return len(sketch) == REGISTERS


def _registers(rising: Hashes) -> NDArray[np.uint8]:
    """The most leading zeros, and one more, of the rest of all hashes that begin with a register's number.

    Of rising hashes the first with that number has them.
    """
    starts = np.searchsorted(rising, np.arange(REGISTERS, dtype=np.uint64) << np.uint64(_RANKS))
    least = rising[np.minimum(starts, rising.size - 1)]
    held = (starts < rising.size) & (least >> np.uint64(_RANKS) == np.arange(REGISTERS, dtype=np.uint64))
    rest = (least & np.uint64(2**_RANKS - 1)).astype(np.float64)
    return np.where(held, _RANKS + 1 - np.frexp(rest)[1], 0).astype(np.uint8)


def _estimate(registers: NDArray[np.uint8]) -> float:
    """The improved raw estimator, which needs no correction for few or many values (Ertl 2017, algorithm 6)."""
    held = np.bincount(registers, minlength=_RANKS + 2)
    total = REGISTERS * _tau(1 - held[_RANKS + 1] / REGISTERS)
    for rank in range(_RANKS, 0, -1):
        total = (total + held[rank]) / 2
    total += REGISTERS * _sigma(held[0] / REGISTERS)
    return REGISTERS * REGISTERS / (2 * math.log(2) * total)


def _sigma(x: float) -> float:
    if x == 1:
        return math.inf
    power, total = 1.0, x
    while True:
        x *= x
        before, total = total, total + x * power
        power *= 2
        if total == before:
            return total


def _tau(x: float) -> float:
    if x in (0, 1):
        return 0.0
    power, total = 1.0, 1 - x
    while True:
        x = math.sqrt(x)
        power /= 2
        before, total = total, total - (1 - x) ** 2 * power
        if total == before:
            return total / 3


# --- hashes ----------------------------------------------------------------------------------------------------------


def hash_numbers(values: Floats) -> Hashes:
    """64 bits for each number; zero has no sign."""
    return _mix((values + 0.0).view(np.uint64))


def hash_texts(values: Column) -> Hashes:
    """64 bits for each text, eight bytes at a time over all texts; long ones by BLAKE2."""
    column = texts(values)
    if isinstance(column, pa.ChunkedArray):
        return np.concatenate([*(hash_texts(part) for part in column.chunks), np.empty(0, np.uint64)])
    if not len(column):
        return np.empty(0, np.uint64)
    _, bounds, content = column.buffers()
    ends = np.frombuffer(bounds, np.int64)[column.offset : column.offset + len(column) + 1]
    data = np.frombuffer(content, np.uint8)[ends[0] : ends[-1]] if content is not None else np.empty(0, np.uint8)
    return _hash_bytes(data, ends - ends[0])


def _hash_bytes(data: NDArray[np.uint8], ends: Ints) -> Hashes:
    starts, sizes = ends[:-1], np.diff(ends)
    padded = np.concatenate([data, np.zeros(_WORD, np.uint8)])
    words = np.ndarray((len(padded) - _WORD + 1,), "<u8", padded, strides=(1,))
    hashes = _mix(sizes.astype(np.uint64))
    rows = np.flatnonzero((sizes > 0) & (sizes <= _SHORT))
    at = 0
    while rows.size:
        left = np.minimum(sizes[rows] - at, _WORD).astype(np.uint64)
        word = words[starts[rows] + at] & (~np.uint64(0) >> ((np.uint64(_WORD) - left) * np.uint64(8)))
        hashes[rows] = _mix(hashes[rows] ^ word)
        at += _WORD
        rows = rows[sizes[rows] > at]
    for row in np.flatnonzero(sizes > _SHORT).tolist():
        digest = hashlib.blake2b(data[starts[row] : ends[row + 1]].tobytes(), digest_size=_WORD).digest()
        hashes[row] = np.frombuffer(digest, "<u8")[0]
    return hashes


def _mix(bits: Hashes) -> Hashes:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014): every bit of the result depends on every bit."""
    mixed = bits + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


# --- frequent values -------------------------------------------------------------------------------------------------


class Frequent(msgspec.Struct, frozen=True):
    """The most frequent values.

    Attributes:
        items: Value → how often it occurred, at least, most frequent first.
        error: It may have been so many times more; 0 if the counts are exact and complete.
    """

    items: dict[str, int]
    error: int = 0


def frequent_sketch(uniques: Column, times: Ints) -> bytes:
    """Of different texts and how often each occurs."""
    if not len(uniques):
        return b""
    keep, lost = np.arange(len(times)), 0
    if len(times) > FREQUENT:
        lost = int(np.partition(times, -FREQUENT - 1)[-FREQUENT - 1])
        keep = np.flatnonzero(times > lost)
    counts: dict[str, int] = {}
    for word, number in zip(uniques.take(pa.array(keep)).to_pylist(), (times[keep] - lost).tolist(), strict=True):
        counts[word[:ITEM]] = counts.get(word[:ITEM], 0) + number
    return _packed(counts, lost)


def merge_frequent(sketches: Iterable[bytes]) -> bytes:
    """The sketch of all values together (Agarwal et al. 2012)."""
    held = [raw for raw in sketches if raw]
    if len(held) < 2:
        return held[0] if held else b""
    counts: dict[str, int] = {}
    parts = [frequent(raw) for raw in held]
    for part in parts:
        for word, number in part.items.items():
            counts[word] = counts.get(word, 0) + number
    return _packed(counts, sum(part.error for part in parts))


def frequent(sketch: bytes) -> Frequent:
    """What a sketch holds."""
    return msgspec.msgpack.decode(sketch, type=Frequent) if sketch else Frequent({})


def _packed(counts: Mapping[str, int], error: int) -> bytes:
    """As many of the most frequent as there is room for; the first that isn't kept is taken off all of them."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    sizes = np.cumsum([len(word) for word, _ in ranked])
    room = min(FREQUENT, int(np.searchsorted(sizes, ROOM, side="right")))
    lost = ranked[room][1] if len(ranked) > room else 0
    kept = {word: number - lost for word, number in ranked[:room] if number > lost}
    return msgspec.msgpack.encode(Frequent(kept, error + lost))
