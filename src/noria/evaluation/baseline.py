"""What a version's traffic is compared with: for each column cells and the counts of its reference, and the averages
that were promised.

Made by the trainer or from records, and kept as one small file beside the model. Once made a reference stays as it is:
counts in other cells can't be added up.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Generic, Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from noria.domain.errors import StorageCorrupted
from noria.evaluation.arrays import is_column, readable
from noria.evaluation.cells import Categories, Cells, Ints, NumericBins, ScoreGrid, apart
from noria.evaluation.faults import FaultGrid
from noria.evaluation.quality import wilson
from noria.evaluation.states import ColumnState
from noria.evaluation.topics import TextCells
from noria.settings import MonitorName

C = TypeVar("C", bound=Cells)

FILE = "baseline.npz"
"""What the file that a trainer leaves is called beside a model."""
FLOOR_CONFIDENCE = 0.99
"""The floor lies below the true accuracy with half of what is left to certainty: 99.5 per cent."""
_FORMAT = 2
_KINDS: Mapping[str, Any] = {
    "texts": TextCells,
    "numbers": NumericBins,
    "categories": Categories,
    "scores": ScoreGrid,
    "faults": FaultGrid,
}
_FIRST_FORMAT = {
    "text": ("input", "texts"),
    "length": ("input_length", "numbers"),
    "prediction": ("prediction", "categories"),
}
"""Names of the first format → column and kind of today."""


@dataclass(frozen=True, eq=False)
class Reference(Generic[C]):
    """Cells and how many rows of the reference fall into each.

    Attributes:
        since: End of the records that it was made from, if it was made from the traffic: what came before is no
            evidence, for the reference holds it already.
        kept: What else is known of those rows, the bytes of their ColumnState; empty in files of the first format.
    """

    cells: C
    counts: Ints
    since: datetime | None = None
    kept: bytes = b""

    @classmethod
    def of(cls, name: str, cells: C, values: Any, since: datetime | None = None) -> "Reference[C]":
        """The reference of values, a column of Arrow or whatever makes one."""
        state = ColumnState.of(name, values if is_column(values) else pa.array(values), cells)
        return cls(cells, state.cells, since, state.to_bytes())

    def state(self, name: str) -> ColumnState:
        """What is known of the reference's rows."""
        if self.kept:
            return ColumnState.from_bytes(self.kept)
        return ColumnState(name=name, count=int(self.counts.sum()), cells=self.counts)

    @cached_property
    def digest(self) -> str:
        """Identity of the cells: counts with the same digest add up."""
        found = hashlib.sha256(_kind(self.cells).encode())
        for name, array in sorted(self.cells.to_arrays().items()):
            found.update(name.encode() + np.ascontiguousarray(array).tobytes())
        return found.hexdigest()[:16]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Baseline:
    """The references of one model version.

    Attributes:
        references: Column → its reference.
        floors: Promised averages: of `quality` at least that, of columns where less is better at most that. What is
            known only with uncertainty is promised with it.
        rows: Rows that were counted.
        complete: Whether the columns that only traffic shows have been added.
    """

    references: Mapping[str, Reference[Any]]
    floors: Mapping[str, float] = field(default_factory=dict)
    rows: int = 0
    complete: bool = False

    @classmethod
    def fit(
        cls,
        fit_texts: Sequence[str],
        count_texts: Sequence[str],
        predictions: Sequence[str] | None = None,
        correct: Sequence[bool] | None = None,
        seed: int = 0,
    ) -> Self:
        """Learn cells from one part of a reference and count the other: counting what was learnt from flatters.

        The more texts are counted, the smaller the changes that can be found: 1,000 find a tenth of the traffic on a
        new topic, 2,500 a twentieth, 25,000 a fiftieth.

        Args:
            fit_texts: Texts to learn topics and bins from.
            count_texts: Other texts of the same kind, held out.
            predictions: What the model says to held-out texts; None where answers are free text.
            correct: Whether it is right, on labelled held-out rows; None if nobody knows.
            seed: For the topics.
        """
        text, length = TextCells.fit(fit_texts, seed), NumericBins.fit(lengths(fit_texts))
        references: dict[str, Reference[Any]] = {
            "input": Reference.of("input", text, _texts(count_texts)),
            "input_length": Reference.of("input_length", length, pa.array(lengths(count_texts), pa.float64())),
        }
        if predictions is not None:
            chosen, counted = apart(predictions)
            references["prediction"] = Reference.of("prediction", Categories.fit(chosen), _texts(counted))
        right = [] if correct is None else list(correct)
        floors = {MonitorName.QUALITY.value: wilson(sum(right), len(right), FLOOR_CONFIDENCE).low} if right else {}
        return cls(references=references, floors=floors, rows=len(count_texts))

    @property
    def text(self) -> Reference[TextCells]:
        """What is asked."""
        return self.references["input"]

    @property
    def length(self) -> Reference[NumericBins]:
        """How long that is, in characters."""
        return self.references["input_length"]

    @property
    def prediction(self) -> Reference[Categories] | None:
        """What the model answers; None where answers are free text."""
        return self.references.get("prediction")

    @property
    def floor(self) -> float | None:
        """Promised accuracy, 0 to 1; None if it was not measured."""
        return self.floors.get(MonitorName.QUALITY)

    def completed(self, more: "Baseline") -> "Baseline":
        """With the columns and promises that another baseline knows besides; what is known already stays."""
        return replace(
            self,
            references={**more.references, **self.references},
            floors={**more.floors, **self.floors},
            rows=self.rows or more.rows,
            complete=True,
        )

    def to_bytes(self) -> bytes:
        """The baseline as a compressed file of arrays (`.npz`)."""
        arrays: dict[str, NDArray[Any]] = {}
        columns = []
        for number, (name, reference) in enumerate(self.references.items()):
            arrays |= {f"{number}.{key}": array for key, array in reference.cells.to_arrays().items()}
            arrays[f"{number}.counts"] = reference.counts
            arrays[f"{number}.state"] = np.frombuffer(reference.kept, np.uint8)
            since = None if reference.since is None else reference.since.isoformat()
            columns.append({"name": name, "kind": _kind(reference.cells), "since": since})
        facts = {"format": _FORMAT, "columns": columns, "floors": dict(self.floors), "rows": self.rows}
        raw = json.dumps(facts | {"complete": self.complete}).encode()
        file = io.BytesIO()
        np.savez_compressed(file, allow_pickle=False, facts=np.frombuffer(raw, np.uint8), **arrays)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """The baseline that `to_bytes` wrote, today or in the first format; objects are never unpickled.

        Raises:
            StorageCorrupted: It isn't one.
        """
        try:
            with np.load(io.BytesIO(raw), allow_pickle=False) as file:
                arrays = dict(file.items())
            facts = json.loads(arrays["facts"].tobytes())
            if facts["format"] == 1:
                floors = {} if facts["floor"] is None else {MonitorName.QUALITY.value: facts["floor"]}
                return cls(references=_first_format(arrays), floors=floors, rows=facts["rows"])
            if facts["format"] != _FORMAT:
                raise ValueError(f"its format is {facts['format']!r}")
            references = {
                column["name"]: _reference(column["kind"], arrays, f"{number}.", column["since"])
                for number, column in enumerate(facts["columns"])
            }
            return cls(references=references, floors=facts["floors"], rows=facts["rows"], complete=facts["complete"])
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise StorageCorrupted(
                f"A monitor baseline can't be read: {error}.", "Train the version again, or remove the file."
            ) from error


def lengths(texts: Sequence[str]) -> list[int]:
    """Characters of each text."""
    return [len(text) for text in texts]


def _kind(cells: Cells) -> str:
    return next(kind for kind, known in _KINDS.items() if type(cells) is known)


def _first_format(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Reference[Any]]:
    return {
        column: _reference(kind, arrays, f"{name}.")
        for name, (column, kind) in _FIRST_FORMAT.items()
        if f"{name}.counts" in arrays
    }


def _reference(kind: str, arrays: Mapping[str, NDArray[Any]], prefix: str, since: str | None = None) -> Reference[Any]:
    own = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
    end = None if since is None else datetime.fromisoformat(since)
    kept = own["state"].tobytes() if "state" in own else b""
    return Reference(_KINDS[kind].from_arrays(own), own["counts"], end, kept)


def _texts(values: Sequence[str]) -> pa.Array:
    return pa.array([None if value is None else readable(str(value)) for value in values], pa.string())
