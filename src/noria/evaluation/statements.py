"""What was said of answers, without repeats: a caller who sends the same feedback again says nothing new.

Rows of one `feedback_id` on one answer are one statement as long as they say the same; one that says something else
takes the place of what was said before.
"""

from collections.abc import Iterable
from typing import Any

Row = dict[str, Any]
Key = tuple[str, str]
"""The answer, and the id of what was said of it."""
_SAID = ("label", "score", "comment")


def statements(rows: Iterable[Row]) -> list[Row]:
    """The rows that say something new, oldest first.

    Args:
        rows: With `feedback_id`, `request_id`, `feedback_time`, and what of `label`, `score` and `comment` is compared.
    """
    told: dict[Key, tuple[Any, ...]] = {}
    new = []
    for row in sorted(rows, key=_order):
        said = tuple(row.get(column) for column in _SAID)
        if told.get(_key(row)) != said:
            told[_key(row)] = said
            new.append(row)
    return new


def newest(rows: Iterable[Row]) -> list[Row]:
    """One row for each feedback: the newest of what was said, oldest first."""
    last: dict[Key, Row] = {}
    for row in statements(rows):
        last.pop(_key(row), None)
        last[_key(row)] = row
    return list(last.values())


def _key(row: Row) -> Key:
    return row["request_id"], row["feedback_id"]


def _order(row: Row) -> tuple[Any, ...]:
    return row["feedback_time"], row["feedback_id"] or ""
