"""How a group of entries becomes the bytes of one row of a spool, and comes back, however much of it is left.

The bytes are MessagePack: the first entry's number, then `(kind, CRC-32, entry)` for each, so that a flipped bit
costs one entry and not its neighbours, and a row that turns up in a wrong place is known as such.
"""

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from noria.domain.inference import Entry, Feedback, Intent, Outcome
from noria.ports import Poison

Packed = tuple[int, int, bytes]
"""Kind, CRC-32 and MessagePack of one entry."""
Numbered = tuple[int, Entry | Poison]
"""An entry with its sequence number; Poison with its last."""
Row = tuple[int, int, bytes]
"""Numbers of a group's first and last entry, and its bytes."""

MISSING: Final = "missing from the spool, or unreadable"
"""The reason of Poison that stands for rows of which nothing, or nothing true, can be read."""

_KINDS: Final = (Intent, Outcome, Feedback)
_KIND_OF: Final = {kind: number for number, kind in enumerate(_KINDS)}
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODERS: Final[tuple[msgspec.msgpack.Decoder[Entry], ...]] = tuple(msgspec.msgpack.Decoder(kind) for kind in _KINDS)
_GROUP: Final = msgspec.msgpack.Decoder(tuple[int, list[Packed]])
_LONGEST: Final = 1 << 16
"""No group has so many entries; a row that says so is damaged."""
_ID_DIGITS: Final = 24


def pack(entry: Entry) -> Packed:
    """An entry as bytes with their checksum."""
    body = _ENCODER.encode(entry)
    return _KIND_OF[type(entry)], zlib.crc32(body), body


def pack_group(first: int, items: Sequence[Packed]) -> bytes:
    """A group of entries, numbered from `first`, as the bytes of a row."""
    return _ENCODER.encode((first, items))


def new_id() -> str:
    """An identity for a spool: 32 hex digits, of which the last 8 are the checksum of the others."""
    digits = os.urandom(_ID_DIGITS // 2).hex()
    return f"{digits}{zlib.crc32(digits.encode()):08x}"


def is_id(text: object) -> bool:
    """Whether that is a spool's identity, unharmed."""
    return isinstance(text, str) and text[_ID_DIGITS:] == f"{zlib.crc32(text[:_ID_DIGITS].encode()):08x}"


def is_sound(row: Sequence[Any]) -> bool:
    """Whether a row's numbers can be true."""
    first, last = row[0], row[1]
    return isinstance(first, int) and isinstance(last, int) and 0 < first <= last < first + _LONGEST


def entries(rows: Iterable[Sequence[Any]], after: int) -> Iterator[tuple[list[Numbered], int]]:
    """The entries of rows in order, from the one that follows `after`, with the size of each row.

    What is missing between rows, undecodable, or in a wrong place, is Poison in its place, with the bytes that are
    left of it.
    """
    expected, stray = after + 1, b""
    for row, following in _with_next(row for row in rows if is_sound(row)):
        first, last, blob = row
        end = min(last, following[0] - 1) if following else last
        found = _unpack(first, end, blob)
        if found is None or found[-1][0] < expected:
            stray += blob if isinstance(blob, bytes) else b""
            continue
        if first > expected:
            found.insert(0, (first - 1, Poison(expected, first - 1, MISSING, stray)))
        yield [entry for entry in found if entry[0] >= expected], len(blob)
        expected, stray = found[-1][0] + 1, b""


def ends_of(rows: Iterable[Sequence[Any]]) -> Iterator[int | None]:
    """The last number of each row; for one that doesn't say, what lies before the next; None if that isn't known."""
    for row, following in _with_next(iter(rows)):
        if is_sound(row):
            yield row[1]
        else:
            yield following[0] - 1 if following else None


def _with_next(rows: Iterator[Sequence[Any]]) -> Iterator[tuple[Sequence[Any], Sequence[Any] | None]]:
    """Each row with the one that follows it."""
    row = next(rows, None)
    while row is not None:
        following = next(rows, None)
        yield row, following
        row = following


def _unpack(first: int, last: int, blob: object) -> list[Numbered] | None:
    """The entries of one row; None if it belongs elsewhere."""
    if not isinstance(blob, bytes):
        return [(last, Poison(first, last, "undecodable group: not bytes"))]
    try:
        noted, group = _GROUP.decode(blob)
    except msgspec.MsgspecError as error:
        return [(last, Poison(first, last, f"undecodable group: {error}", blob))]
    if noted != first or not group:
        return None
    return [(number, _entry(number, *item)) for number, item in enumerate(group, first)]


def _entry(number: int, kind: int, checksum: int, body: bytes) -> Entry | Poison:
    try:
        if zlib.crc32(body) == checksum:
            return _DECODERS[kind].decode(body)
        return Poison(number, number, "checksum mismatch", body)
    except (msgspec.MsgspecError, IndexError, ValueError) as error:
        return Poison(number, number, f"undecodable entry: {error}", body)
