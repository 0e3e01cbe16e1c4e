"""The baselines of model versions, beside the models in the registry.

A trainer leaves one with each version. What the training data can't know (latency, cost, what answers are like) comes
from the version's first records, and so does everything where no trainer left anything or the project file asks for
it; or from a span of the past. Once made, a baseline stays: what comes later is compared with how it began.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.domain.endpoint import Role
from noria.domain.errors import UnknownModel
from noria.domain.inference import OutcomeKind
from noria.domain.monitor import Watch
from noria.evaluation.arrays import STRING, Floats, data_type, floats
from noria.evaluation.baseline import FILE, FLOOR_CONFIDENCE, Baseline, Reference
from noria.evaluation.cells import Categories, NumericBins
from noria.evaluation.faults import FaultGrid
from noria.evaluation.observations import Scorer, observe
from noria.evaluation.quality import wilson
from noria.evaluation.topics import TextCells
from noria.monitoring.computing import COLUMNS, WORDS
from noria.ports import ModelRegistry, RecordStore
from noria.settings import Endpoint, Monitors, Span
from noria.settings.monitors import CATEGORIES, FAULTS, TEXTS

FOLDER = "baseline"
_COMPLETED = "completed.npz"
_KEPT = 16
_MOST = 20_000
"""Records of a span of the past that a baseline is made from: more hardly make it better."""
_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Baselines:
    """Reads and keeps baselines; those in use stay in memory."""

    registry: ModelRegistry
    _known: dict[tuple[str, str, str], Baseline] = field(default_factory=dict)

    def of(self, model: str, version: str, monitors: Monitors | None = None) -> Baseline | None:
        """The baseline of a version; None if it has none.

        Args:
            model: Registered model.
            version: Version of it.
            monitors: What the project file says of them; by default the baseline is the trainer's.

        Raises:
            StorageCorrupted: It has one that can't be read.
            RegistryUnavailable: The registry can't be asked.
        """
        name = file_of(monitors)
        known = self._known.get((model, version, name))
        if known is not None:
            return known
        try:
            folder = self.registry.download(self.registry.version(model, version), FOLDER)
        except (UnknownModel, FileNotFoundError):
            return None
        for each in (name, FILE) if name == _COMPLETED else (name,):
            if (path := folder / each).is_file():
                return self._remember((model, version, name), Baseline.from_bytes(path.read_bytes()))
        return None

    def keep(self, model: str, version: str, baseline: Baseline, monitors: Monitors | None = None) -> None:
        """Make it the version's baseline."""
        name = file_of(monitors)
        self.registry.attach(self.registry.version(model, version), {name: baseline.to_bytes()}, FOLDER)
        self._remember((model, version, name), baseline)

    def _remember(self, key: tuple[str, str, str], baseline: Baseline) -> Baseline:
        while len(self._known) >= _KEPT:
            self._known.pop(next(iter(self._known)))
        self._known[key] = baseline
        return baseline


def file_of(monitors: Monitors | None) -> str:
    """The file that holds the baseline which the project file asks for."""
    source = monitors.baseline if monitors is not None else "training"
    if isinstance(source, Span):
        return f"span-{source.since:%Y%m%dT%H%M%SZ}-{source.until:%Y%m%dT%H%M%SZ}.npz"
    return "first.npz" if source == "first" else _COMPLETED


def from_traffic(
    records: RecordStore,
    watch: Watch,
    endpoint: Endpoint,
    monitors: Monitors,
    columns: list[str] | None,
    scorers: Mapping[str, Scorer] | None = None,
) -> Baseline | None:
    """A baseline from what a version answered; None until there are enough records.

    Topics, bins and classes are learnt from some records and counted on the others. Nobody promised an accuracy: of
    `quality` there is no floor.

    Args:
        records: The tables.
        watch: Which version.
        endpoint: Its endpoint's settings.
        monitors: Those of its monitors, which say which records and how many.
        columns: Observed columns that are wanted.
        scorers: What measures texts besides, or instead of, the measures of that name.
    """
    rows = _records(records, watch, monitors)
    if rows is None:
        return None
    newest = pc.max(rows["request_time"]).as_py()
    since = monitors.baseline.until if isinstance(monitors.baseline, Span) else newest + _MOMENT
    found = observe(rows, endpoint.task, columns, scorers=scorers)
    references: dict[str, Reference[Any]] = {}
    floors: dict[str, float] = {}
    everyone = np.arange(found.records.num_rows)
    for table, owner in ((found.records, everyone), (found.items, found.items["record"].to_numpy())):
        for name in (name for name in table.column_names if name not in WORDS):
            column = table[name]
            if column.null_count == len(column):
                continue
            references[name] = _reference(name, column, owner, since)
            if name in FAULTS:
                floors[name] = _at_most(floats(column.drop_null()))
    return Baseline(references=references, floors=floors, rows=rows.num_rows, complete=True)


def _reference(name: str, column: pa.ChunkedArray, owner: Any, since: datetime) -> Reference[Any]:
    """Cells learnt from some records, and the counts of the others: counts of what chose the cells would flatter."""
    if name in FAULTS:
        return Reference.of(name, FaultGrid(), column, since)
    words = name in CATEGORIES or data_type(column.type) == STRING
    learns = owner % (5 if words and name not in TEXTS and len(column) >= 250 else 2) == 0
    learnt, counted = column.filter(pa.array(learns)).drop_null(), column.filter(pa.array(~learns))
    if name in TEXTS:
        return Reference.of(name, TextCells.fit(learnt.to_pylist()), counted, since)
    return Reference.of(name, Categories.fit(learnt) if words else NumericBins.fit(learnt), counted, since)


def _at_most(faults: Floats) -> float:
    """The share of faults that can be promised: what was seen, with its uncertainty."""
    good = math.floor(float((1 - np.clip(np.nan_to_num(faults), 0, 1)).sum()))
    return 1 - wilson(good, faults.size, FLOOR_CONFIDENCE).low


def _records(records: RecordStore, watch: Watch, monitors: Monitors) -> pa.Table | None:
    """What the baseline is made from: all records until enough are answered, or those of a span of the past."""
    if isinstance(span := monitors.baseline, Span):
        rows = records.query(f"{_select(watch)} AND {_between(span)} ORDER BY request_time LIMIT {_MOST}")
        return rows if rows.num_rows >= monitors.baseline_records else None
    answered = f"outcome = '{OutcomeKind.ANSWERED.value}'"
    enough = monitors.baseline_records
    first = records.query(f"{_select(watch, 'request_time')} AND {answered} ORDER BY request_time LIMIT {enough}")
    if first.num_rows < enough:
        return None
    last = first["request_time"][-1].as_py()
    return records.query(
        f"{_select(watch)} AND request_time <= '{last.isoformat()}' ORDER BY request_time LIMIT {_MOST}"
    )


def _select(watch: Watch, columns: str = ", ".join(COLUMNS)) -> str:
    """The beginning of a query for a version's records; shadows are left out."""
    wanted = {"endpoint": watch.endpoint, "model_name": watch.model, "model_version": watch.version}
    where = " AND ".join(f"{column} = '{value.replace(chr(39), chr(39) * 2)}'" for column, value in wanted.items())
    return f"SELECT {columns} FROM inference WHERE {where} AND route <> '{Role.SHADOW.value}'"  # noqa: S608 - quoted


def _between(span: Span) -> str:
    return f"request_time >= '{span.since.isoformat()}' AND request_time < '{span.until.isoformat()}'"
