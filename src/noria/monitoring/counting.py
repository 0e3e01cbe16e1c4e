"""The states of an endpoint's windows, from its records: in this process where they are few, by an engine where they
are many.

A window of some megabytes takes less time than a child process takes to begin, so it is computed at once, and no
training run or long scan holds it up; large spans go to an engine that is only for monitors, a part of the table at a
time.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.domain.monitor import Window
from noria.evaluation.arrays import Ints
from noria.evaluation.baseline import Baseline
from noria.evaluation.cells import NumericBins
from noria.evaluation.observations import Scorer, observe
from noria.evaluation.operations import FLAGS, NUMBERS
from noria.evaluation.sketches import Hashes, hash_texts
from noria.evaluation.states import ColumnState
from noria.evaluation.texts import MEASURES
from noria.monitoring.computing import COLUMNS, Key, Plan, added, compute, plan_windows
from noria.monitoring.gathering import PART_BYTES, Progress, gather
from noria.monitoring.slicing import Frequent, columns_of, values_of
from noria.ports import ComputeEngine, Part, RecordStore
from noria.settings import Endpoint, Monitors, Task
from noria.settings.monitors import column_of

AT_ONCE_BYTES = 32 << 20
"""Up to so many bytes on disk are computed in this process."""
_ID, _TIME = "databricks_request_id", "request_time"
_WHO = [_ID, _TIME, "requester", "model_name", "model_version", "route", "metadata"]

Scorers = Callable[[Collection[str]], Mapping[str, Scorer]]
"""Names of columns → what measures texts for them, by the measure's name."""
Told = Callable[[Progress], None]
"""Is told how far a count is."""


def no_scorers(columns: Collection[str]) -> Mapping[str, Scorer]:  # noqa: ARG001
    """No scorers but the measures that are built in."""
    return {}


@dataclass(frozen=True, slots=True)
class Counting:
    """Computes windows.

    Attributes:
        records: The tables.
        engine: What computes large spans; None: this process.
        scorers: Columns that are wanted → the installed scorers that measure them, for what is computed here.
    """

    records: RecordStore
    engine: ComputeEngine | None = None
    scorers: Scorers = no_scorers

    def states(
        self,
        name: str,
        endpoint: Endpoint,
        monitors: Monitors,
        windows: Sequence[Window],
        baseline: Baseline | None,
        told: Told = lambda _: None,
    ) -> dict[Key, ColumnState]:
        """The states of each model and slice in each of the windows.

        Args:
            name: The endpoint's.
            endpoint: Its settings.
            monitors: Those of its monitors.
            windows: In order.
            baseline: Whose cells values are counted in; None for none.
            told: Is told how far it is.
        """
        parts = self.records.parts("inference", name, windows[0].start, windows[-1].end, PART_BYTES)
        plan = Plan(
            task=endpoint.task,
            windows=plan_windows(windows),
            columns=wanted(endpoint.task, monitors, baseline),
            types=_types(baseline),
        )
        if self.engine is None or sum(part.size for part in parts) <= AT_ONCE_BYTES:
            if monitors.slices:
                plan = replace(plan, slices=self._survey(parts, plan, monitors)[0])
            return compute(self._told(parts, told), plan, baseline, self.scorers(plan.columns or ()))
        slices, twice = self._survey(parts, replace(plan, distinct=True), monitors)
        return self._spread(
            self.engine, name, parts, replace(plan, slices=slices, distinct=True), twice, baseline, told
        )

    def _spread(
        self,
        engine: ComputeEngine,
        name: str,
        parts: Sequence[Part],
        plan: Plan,
        twice: Sequence[str],
        baseline: Baseline | None,
        told: Told,
    ) -> dict[Key, ColumnState]:
        """The states of many parts, one at a time; requests that the table holds more than once are computed here."""
        found = gather(engine, self.records, name, replace(plan, left_out=twice), baseline, told)
        if not twice:
            return found
        names = pa.array(twice, pa.string())
        batches = (batch.filter(pc.is_in(batch[_ID], names)) for batch in self._read(parts, COLUMNS))
        return added(
            [found, compute(batches, replace(plan, distinct=False), baseline, self.scorers(plan.columns or ()))]
        )

    def _survey(
        self, parts: Sequence[Part], plan: Plan, monitors: Monitors
    ) -> tuple[Mapping[str, Mapping[str, Sequence[str]]], Sequence[str]]:
        """The values of slices that are told apart in each window and, if the plan takes records to be distinct, the
        ids that occur more than once."""
        needed = columns_of(monitors.slices)
        frequent, hashes = Frequent(monitors.slice_values), []
        starts = np.array([datetime.fromisoformat(start).timestamp() for start, _ in plan.windows]) * 1e6
        for batch in self._read(parts, COLUMNS if needed else _WHO):
            if plan.distinct:
                hashes.append(hash_texts(pc.fill_null(batch[_ID], "")))
            if not monitors.slices:
                continue
            found = observe(batch, plan.task, needed)
            place: Ints = np.searchsorted(starts, _times(found.records), side="right") - 1
            owner = found.items["record"].to_numpy()
            for key in monitors.slices:
                of_records, of_items = values_of(key, found.records, found.items)
                values, at = (of_items, place[owner]) if key in needed else (of_records, place)
                for window in np.unique(at[at >= 0]):
                    frequent.add(key, plan.windows[window][0], values.filter(pa.array(at == window)))
        return frequent.values(monitors.slices), self._twice(parts, hashes)

    def _twice(self, parts: Sequence[Part], hashes: Sequence[Hashes]) -> list[str]:
        """Ids that occur more than once."""
        if not hashes:
            return []
        together = np.concatenate(hashes)
        together.sort()  # in place: there may be millions of them
        again = np.unique(together[1:][together[1:] == together[:-1]])
        if not again.size:
            return []
        found: set[str] = set()
        for batch in self._read(parts, [_ID]):
            names = batch[_ID].drop_null()
            found.update(names.filter(pa.array(np.isin(hash_texts(names), again))).to_pylist())
        return sorted(found)

    def _read(self, parts: Iterable[Part], columns: list[str]) -> Iterator[pa.Table]:
        return chain.from_iterable(self.records.read(part, columns) for part in parts)

    def _told(self, parts: Sequence[Part], told: Told) -> Iterator[pa.Table]:
        rows = 0
        for number, part in enumerate(parts, 1):
            for batch in self.records.read(part, COLUMNS):
                rows += batch.num_rows
                yield batch
            told(Progress(number, len(parts), rows))


def wanted(task: Task, monitors: Monitors, baseline: Baseline | None = None) -> list[str]:
    """The observed columns of an endpoint: all measures of what is asked and answered, how requests went, what is
    watched, and what the baseline knows."""
    answers = "prediction" if task is Task.CLASSIFICATION else "output"
    sides = ("input",) if task is Task.CLASSIFICATION else ("input", "output")
    measures = [f"{side}_{m.name}" for m in MEASURES.values() for side in sides if side in m.of]
    known = list(baseline.references) if baseline is not None else []
    watched = [column_of(name) for name in monitors.watch if name != "quality"]
    several = [
        *NUMBERS,
        *FLAGS,
        "input",
        answers,
        "confidence",
        *measures,
        *known,
        *watched,
        *columns_of(monitors.slices),
    ]
    return list(dict.fromkeys(several))


def _types(baseline: Baseline | None) -> dict[str, str]:
    """What features are known to be."""
    known = baseline.references.items() if baseline is not None else ()
    return {
        name: "double" if isinstance(reference.cells, NumericBins) else "string"
        for name, reference in known
        if name.startswith("feature.")
    }


def _times(records: pa.Table) -> Ints:
    found: Ints = pc.fill_null(pc.cast(records[_TIME], pa.int64()), -1).to_numpy()
    return found
