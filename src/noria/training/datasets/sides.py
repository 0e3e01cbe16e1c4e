"""Which rows are kept, and on which side: what is learnt from, and what nothing is ever learnt from.

Which side a text falls on depends on the text alone (or on its group alone, where the project keeps groups together).
So a row that was held out once is held out in every later run, whatever is added meanwhile. Where two rows on different
sides are nearly the same, the later one is left out: a version is never judged on what it has nearly learnt.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import blake2b

from noria.evaluation.near import Neighbours, normalised
from noria.training.sources import Row

MIN_CLASS_ROWS = 5
"""A label with fewer rows in all is left out: nothing can be learnt of it, and it is often a slip of the pen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Rows on their sides.

    Attributes:
        train: To learn from.
        holdout: To judge on.
        near: Rows left out because a row before them on the same side with the same label is nearly the same.
        crossing: Rows left out because a row before them on the other side is nearly the same.
        frozen: Rows left out because they are, exactly or nearly, in the endpoint's own held-out file.
    """

    train: list[Row]
    holdout: list[Row]
    near: int
    crossing: int
    frozen: int


def held_out(text: str, share: float) -> bool:
    """Whether a text is on the held-out side; it depends on nothing but the text and the share."""
    digest = blake2b(normalised(text).encode(errors="surrogatepass"), digest_size=8, person=b"noria-holdout").digest()
    return int.from_bytes(digest) < share * 2**64


def latest(rows: Iterable[Row]) -> tuple[list[Row], int, int]:
    """Each text once, with what was said of it last; also how many rows fell away and how many texts had changed label.

    Rows are given oldest first, and keep the place and the unit that their text had first.
    """
    kept: dict[str, Row] = {}
    changed: set[str] = set()
    total = 0
    for row in rows:
        total += 1
        key = normalised(row.key)
        before = kept.get(key)
        if before is not None and before.label != row.label:
            changed.add(key)
        kept[key] = row if before is None else replace(row, unit=before.unit)
    return list(kept.values()), total - len(kept), len(changed)


def without_rare(rows: Sequence[Row]) -> tuple[list[Row], dict[str, int]]:
    """The rows without those whose label is too rare, and what was left out; answers in words are never rare."""
    counts = Counter(row.label for row in rows if not row.messages)
    rare = {label: count for label, count in sorted(counts.items()) if count < MIN_CLASS_ROWS}
    return [row for row in rows if row.messages or row.label not in rare], rare


def split(rows: Sequence[Row], share: float, by: str, frozen: Sequence[str] = ()) -> Sides:
    """Put rows on their sides.

    Args:
        rows: Each text once, oldest first.
        share: Share to hold out.
        by: `text`, `group` (rows of one unit stay together) or `time` (the newest records are held out).
        frozen: Texts that a person holds out; neither side may hold one.
    """
    after, first = _cut(rows, share) if by == "time" else None, len(frozen)
    neighbours = Neighbours([*frozen, *(row.key for row in rows)])
    for place in range(first):
        neighbours.add(place)
    exact = {normalised(text) for text in frozen}
    kept: dict[int, tuple[Row, bool]] = {}
    left: Counter[str] = Counter()
    for place, row in enumerate(rows, first):
        side = _side(row, share, by, after)
        near = ["frozen" if other < first else _likeness((row, side), kept[other]) for other in neighbours.of(place)]
        why = "frozen" if normalised(row.key) in exact else next(filter(None, near), "")
        if why:
            left[why] += 1
            continue
        neighbours.add(place)
        kept[place] = (row, side)
    return Sides(
        train=[row for row, held in kept.values() if not held],
        holdout=[row for row, held in kept.values() if held],
        near=left["near"],
        crossing=left["crossing"],
        frozen=left["frozen"],
    )


def _likeness(later: tuple[Row, bool], before: tuple[Row, bool]) -> str:
    """Why a row is left out because of one before it that it is near; empty to keep it: what two people call by two
    names is worth learning from."""
    if later[1] != before[1]:
        return "crossing"
    return "near" if later[0].label == before[0].label else ""


def _side(row: Row, share: float, by: str, after: datetime | None) -> bool:
    if after is not None and row.time is not None:
        return row.time > after
    return held_out(row.unit if by == "group" and row.unit else row.key, share)


def _cut(rows: Sequence[Row], share: float) -> datetime | None:
    """The time of the newest record to learn from."""
    times = sorted(row.time for row in rows if row.time is not None)
    return times[max(0, int(len(times) * (1 - share)) - 1)] if times else None
