"""What the records of a span of time come to: a state of each column for each window, model and slice.

A pure function of the records. Those of a part are read once, batch by batch; states of parts add up, so any split of
the same records gives the same counts. All models together (`*`) are the sum of each.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.domain.monitor import Window
from noria.evaluation.arrays import Ints, texts
from noria.evaluation.baseline import Baseline
from noria.evaluation.cells import Cells
from noria.evaluation.faults import FaultGrid
from noria.evaluation.observations import NEEDED, Observations, Scorer, observe
from noria.evaluation.states import ColumnState, merged
from noria.evaluation.topics import TextCells
from noria.monitoring.slicing import ALL, OTHER, values_of
from noria.settings import Task
from noria.settings.monitors import FAULTS

TABLE = ":table"
"""The column that stands for whole rows."""
EVERYONE = "*"
"""What stands for all models together."""
COLUMNS = list(NEEDED)
"""Columns of the inference table that are read."""
WORDS = frozenset({"request_id", "request_time", "model", "route", "requester", "metadata", "outcome", "record"})
"""Observed columns that name things; they are no measures."""
_KEEP = 16
"""States of one key that wait to be added up: merging many at once is cheaper than one by one."""


class Key(NamedTuple):
    """What a state is of. `slice_key` and `slice_value` are empty for the whole."""

    window: Window
    model: str
    slice_key: str
    slice_value: str
    column: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is computed of an endpoint's records; JSON-able, so that any machine can do it.

    Attributes:
        task: What the endpoint does.
        windows: Start and end of each window, in order and apart from one another, ISO 8601.
        columns: Observed columns that are wanted; None for all that cost next to nothing.
        slices: Key of each slice → the values of it that are told apart, in each window that is named (by its start);
            all others are `:other`.
        types: What features are known to be (`double` or `string`), by column.
        baseline: Path of the baseline file whose cells values are counted in; empty for none.
        distinct: Whether the records are known to be of different requests; else each id is remembered.
        left_out: Ids of requests that are counted elsewhere: the table holds them more than once.
    """

    task: Task
    windows: Sequence[tuple[str, str]]
    columns: Sequence[str] | None = None
    slices: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    baseline: str = ""
    distinct: bool = False
    left_out: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Plan":
        """What `to_json` gave."""
        windows = [(since, until) for since, until in values["windows"]]
        return cls(**{**values, "task": Task(values["task"]), "windows": windows})


def plan_windows(windows: Iterable[Window]) -> list[tuple[str, str]]:
    """Windows as a plan names them."""
    return [(window.start.isoformat(), window.end.isoformat()) for window in windows]


def compute(
    batches: Iterable[pa.Table],
    plan: Plan,
    baseline: Baseline | None = None,
    scorers: Mapping[str, Scorer] | None = None,
) -> dict[Key, ColumnState]:
    """The states of each model and slice in each window; `totals` adds those of all models.

    Args:
        batches: Rows of the inference table with `COLUMNS`, some at a time; those outside all windows are left out, and
            so is a request that came before.
        plan: What is wanted of them.
        baseline: Whose cells values are counted in; by default the plan's file is read.
        scorers: What measures texts besides, or instead of, the measures of that name.
    """
    work = _Work(plan, baseline if baseline is not None else _file(plan.baseline), scorers)
    for batch in batches:
        work.add(batch)
    return work.states()


def compute_observed(observed: Iterable[Observations], plan: Plan, baseline: Baseline | None) -> dict[Key, ColumnState]:
    """`compute` of what was observed before: of different requests, in the plan's windows."""
    work = _Work(plan, baseline)
    for each in observed:
        work.count(each)
    return work.states()


def totals(states: Mapping[Key, ColumnState]) -> dict[Key, ColumnState]:
    """The states with those of all models together beside them."""
    parts: dict[Key, list[ColumnState]] = {}
    for key, state in states.items():
        parts.setdefault(key._replace(model=EVERYONE), []).append(state)
    return dict(states) | {key: found[0] if len(found) == 1 else merged(found) for key, found in parts.items()}


def added(many: Iterable[Mapping[Key, ColumnState]]) -> dict[Key, ColumnState]:
    """The states of several parts, added up."""
    waiting: dict[Key, list[ColumnState]] = {}
    for states in many:
        for key, state in states.items():
            _put(waiting, key, state)
    return {key: _sum(found) for key, found in waiting.items()}


def to_json(states: Mapping[Key, ColumnState]) -> list[list[str]]:
    """States as JSON values."""
    return [
        [key.window.start.isoformat(), key.window.end.isoformat(), *key[1:], b64encode(state.to_bytes()).decode()]
        for key, state in states.items()
    ]


def from_json(values: Iterable[Sequence[str]]) -> dict[Key, ColumnState]:
    """What `to_json` gave."""
    return {
        Key(Window(*map(datetime.fromisoformat, (since, until))), *key): ColumnState.from_bytes(b64decode(raw))
        for since, until, *key, raw in values
    }


class _Work:
    """Batches being added up."""

    def __init__(self, plan: Plan, baseline: Baseline | None, scorers: Mapping[str, Scorer] | None = None) -> None:
        self.plan = plan
        self.scorers = scorers
        known = baseline.references if baseline is not None else {}
        self.cells: dict[str, Cells] = {name: FaultGrid() for name in FAULTS}
        self.cells |= {name: reference.cells for name, reference in known.items()}
        self.windows = [Window(*map(datetime.fromisoformat, window)) for window in plan.windows]
        self.starts = _microseconds(window.start for window in self.windows)
        self.ends = _microseconds(window.end for window in self.windows)
        self.types = {name: pa.float64() if kind == "double" else pa.string() for name, kind in plan.types.items()}
        self.seen: set[str] = set(plan.left_out)
        self.waiting: dict[Key, list[ColumnState]] = {}

    def add(self, batch: pa.Table) -> None:
        """Count a batch in."""
        batch = self._new(batch)
        if not batch.num_rows:
            return
        self.count(observe(batch, self.plan.task, self.plan.columns, types=self.types, scorers=self.scorers))

    def count(self, found: Observations) -> None:
        """Count what was observed in; everything of it is new and in a window."""
        if not found.records.num_rows:
            return
        records, items = found.records, found.items
        times = pc.cast(records["request_time"], pa.int64()).to_numpy()
        window = np.searchsorted(self.starts, times, side="right") - 1
        model = records["model"].combine_chunks().dictionary_encode()
        owner = items["record"].to_numpy()
        models = model.dictionary.to_pylist()
        place = window * len(models) + model.indices.to_numpy(zero_copy_only=False)
        cells = {name: _once(each, items, name) for name, each in self.cells.items()}
        for key in (ALL, *self.plan.slices):
            mine, theirs, values = self._sliced(key, records, items, owner, window)
            for table, at, value in ((records, place, mine), (items, place[owner], theirs)):
                self._count(key, table, at * len(values) + value, models, values, cells)

    def states(self) -> dict[Key, ColumnState]:
        """What it has come to."""
        return {key: _sum(found) for key, found in self.waiting.items()}

    def _new(self, batch: pa.Table) -> pa.Table:
        """The rows that are in a window and that weren't seen before."""
        times = pc.cast(batch["request_time"], pa.int64())
        place = np.searchsorted(self.starts, pc.fill_null(times, -1).to_numpy(), side="right") - 1
        inside = (place >= 0) & (pc.fill_null(times, -1).to_numpy() < self.ends[np.maximum(place, 0)])
        if self.plan.distinct and not self.seen:
            return batch if inside.all() else batch.filter(pa.array(inside))
        keep = inside.copy()
        for row, name in enumerate(batch["databricks_request_id"].to_pylist()):
            if inside[row] and name is not None:
                keep[row] = name not in self.seen
                if not self.plan.distinct:
                    self.seen.add(name)
        return batch if keep.all() else batch.filter(pa.array(keep))

    def _sliced(
        self, key: str, records: pa.Table, items: pa.Table, owner: Ints, window: Ints
    ) -> tuple[Ints, Ints, list[str]]:
        """Which value each record and each item has, as numbers, and the values."""
        if key == ALL:
            return np.zeros(records.num_rows, np.int64), np.zeros(items.num_rows, np.int64), [""]
        mine, theirs = values_of(key, records, items)
        known = self.plan.slices[key]
        names = [*sorted({value for values in known.values() for value in values} - {OTHER}), OTHER]
        allowed = np.zeros((len(self.windows), len(names)), bool)
        at = {name: number for number, name in enumerate(names)}
        for number, each in enumerate(self.windows):
            for value in known.get(each.start.isoformat(), ()):
                allowed[number, at[value]] = True

        def numbered(values: pa.Array, places: Ints) -> Ints:
            found = pc.fill_null(pc.index_in(values, pa.array(names, pa.string())), len(names) - 1)
            codes: Ints = found.to_numpy(zero_copy_only=False).astype(np.int64)
            return np.where(allowed[places, codes], codes, len(names) - 1) if len(codes) else codes

        return numbered(mine, window), numbered(theirs, window[owner]), names

    def _count(
        self, key: str, table: pa.Table, group: Ints, models: list[str], values: list[str], cells: Mapping[str, Cells]
    ) -> None:
        """A state of each column for each group of rows."""
        of_records = "request_time" in table.column_names
        for number, rows in grouped(table, group):
            place, value = divmod(number, len(values))
            window, model = divmod(place, len(models))
            start = Key(self.windows[window], models[model], key, values[value], TABLE)
            if of_records:
                _put(self.waiting, start, ColumnState(name=TABLE, count=rows.num_rows))
            for name in rows.column_names:
                if name not in WORDS:
                    state = ColumnState.of(name, rows[name], cells.get(name))
                    _put(self.waiting, start._replace(column=name), state)


def grouped(table: pa.Table, group: Ints) -> Iterator[tuple[int, pa.Table]]:
    """The rows of each group, sorted once."""
    if not len(group):
        return
    if (group == group[0]).all():
        yield int(group[0]), table
        return
    order = np.argsort(group, kind="stable")
    there, begins = np.unique(group[order], return_index=True)
    in_order = table.take(pa.array(order))
    for number, begin, end in zip(there, begins, [*begins[1:], len(group)], strict=True):
        yield int(number), in_order.slice(begin, end - begin)


class _Once:
    """Cells of texts in which each different text of a batch is placed once, however many groups it is counted in."""

    def __init__(self, cells: TextCells, values: pa.ChunkedArray) -> None:
        self._cells = cells
        self._known = texts(pc.unique(values.drop_null()))
        self._placed = cells.assign(self._known)
        self.size, self.names, self.groupings, self.ordered = cells.size, cells.names, cells.groupings, 0
        self.to_arrays = cells.to_arrays

    def assign(self, values: Any) -> Ints:
        found = pc.index_in(texts(values), self._known)
        return np.asarray(self._placed[found.to_numpy(zero_copy_only=False)])

    def count(self, values: Any) -> Ints:
        return np.bincount(self.assign(values), minlength=self.size).astype(np.int64)


def _once(cells: Cells, items: pa.Table, name: str) -> Cells:
    if isinstance(cells, TextCells) and name in items.column_names:
        return _Once(cells, items[name])
    return cells


def _put(waiting: dict[Key, list[ColumnState]], key: Key, state: ColumnState) -> None:
    found = waiting.setdefault(key, [])
    found.append(state)
    if len(found) == _KEEP:
        waiting[key] = [merged(found)]


def _sum(found: list[ColumnState]) -> ColumnState:
    return found[0] if len(found) == 1 else merged(found)


def _file(path: str) -> Baseline | None:
    from pathlib import Path

    return Baseline.from_bytes(Path(path).read_bytes()) if path else None


def _microseconds(moments: Iterable[datetime]) -> Ints:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return np.array([round((moment - epoch).total_seconds() * 1e6) for moment in moments], np.int64)
