"""What tells the records after a change from those before it: a classifier's view of an alarm, which explains and never
alarms."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from noria.domain.monitor import MonitorState, Window
from noria.evaluation.explain import MOST_ROWS, Explanation, explain
from noria.evaluation.observations import NEEDED, observe
from noria.ports import RecordStore
from noria.settings import Task
from noria.tables import INFERENCE

MOST_WINDOWS = 48
"""Windows of each side that are read at the most, those next to the change first."""
_NEAR = 1.0
"""Evidence within a factor e of its lowest is near it."""
_TEXTS = ("input", "output", "prediction")


@dataclass(frozen=True, slots=True)
class Apart:
    """Two spans of records, and what tells them apart.

    Attributes:
        since: When the evidence began to rise: start of the first window after it was last near its lowest.
        found: None if there are too few records on one side.
    """

    since: datetime
    found: Explanation | None


def told_apart(
    records: RecordStore, task: Task, monitor: MonitorState, trail: Sequence[Mapping[str, Any]]
) -> Apart | None:
    """The records since a monitor's evidence began to rise, beside those before.

    Args:
        records: The tables.
        task: What the endpoint does.
        monitor: Whose column and texts are looked at.
        trail: Its rows of drift_metrics against the baseline, oldest first.

    Returns:
        None if its evidence has risen since its first window, or never: then nothing lies before.
    """
    windows = [Window(row["window"]["start"], row["window"]["end"]) for row in trail]
    turn = _turn([row["log_e"] for row in trail])
    if turn is None:
        return None
    columns = [monitor.column, *_TEXTS]
    before = _items(records, task, monitor.endpoint, reversed(windows[:turn]), columns)
    now = _items(records, task, monitor.endpoint, windows[turn:], columns)
    shared = [name for name in dict.fromkeys(columns) if name in now.column_names and name in before.column_names]
    return Apart(windows[turn].start, explain(now.select(shared), before.select(shared)))


def _turn(evidence: Sequence[float]) -> int | None:
    """The first window after that in which the evidence was last near its lowest: until a change it wanders."""
    near = min(evidence, default=0.0) + _NEAR
    at = next((i for i in reversed(range(len(evidence))) if evidence[i] <= near), -1)
    return at + 1 if 0 <= at < len(evidence) - 1 else None


def _items(
    records: RecordStore, task: Task, endpoint: str, windows: Iterable[Window], columns: Sequence[str]
) -> pa.Table:
    """Items of as many windows as it takes to have enough of them."""
    found: list[pa.Table] = []
    for number, window in enumerate(windows):
        rows = records.scan("inference", columns=list(NEEDED), endpoint=endpoint, since=window.start, until=window.end)
        if rows.num_rows:
            found.append(observe(rows, task, columns).items)
        if number + 1 == MOST_WINDOWS or sum(each.num_rows for each in found) >= MOST_ROWS:
            break
    empty = observe(INFERENCE.empty_table(), task, columns).items
    return pa.concat_tables([empty, *found], promote_options="default")
