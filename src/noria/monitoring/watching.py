"""What each drift monitor watches: which values of a record it reads, and the part of the baseline they belong to."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from noria.domain.monitor import MonitorKind, Moved
from noria.evaluation.baseline import Baseline, Reference
from noria.evaluation.drift import Drift, drift
from noria.evaluation.topics import TextCells
from noria.evaluation.wording import risen
from noria.monitoring.reading import Record
from noria.settings import MonitorName

MOST_MOVED = 3
"""Cells, classes or words that an alert names."""
_EXAMPLES = 3
_EXAMPLE_LENGTH = 280

Seen = tuple[Any, str]
"""A value and the text that it came with."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One drift monitor of an endpoint.

    Attributes:
        name: As in the project file.
        kind: What sort of values it watches.
        column: Name of the values in the tables.
        read: A record and the champion's `model/version` → the values in it.
        reference: What they are compared with.
    """

    name: MonitorName
    kind: MonitorKind
    column: str
    read: Callable[[Record, str], Iterator[Seen]]
    reference: Reference[Any]

    def values(self, records: Iterable[Record], champion: str) -> list[Seen]:
        """The values in these records."""
        return [seen for record in records for seen in self.read(record, champion)]

    @property
    def data_type(self) -> str:
        """Of the column, as the tables name it."""
        return "double" if self.kind is MonitorKind.NUMERIC_DRIFT else "string"

    def drift(self, now: ArrayLike, before: ArrayLike) -> Drift:
        """The classic effect sizes between two counts."""
        return drift(now, before, self.reference.cells)

    def moved(self, values: Sequence[Seen], most: int = MOST_MOVED) -> tuple[Moved, ...]:
        """What changed most against the reference, with examples of how it is now."""
        if isinstance(self.reference.cells, TextCells):
            return _words_moved(self.reference.cells, [text for _, text in values], most)
        return _cells_moved(self.reference, values, most)


def watched(baseline: Baseline, watch: Iterable[str]) -> tuple[Watched, ...]:
    """The drift monitors that are on and that the baseline knows something to compare with."""
    references: Mapping[MonitorName, Reference[Any] | None] = {
        MonitorName.TEXT: baseline.text,
        MonitorName.LENGTH: baseline.length,
        MonitorName.PREDICTION: baseline.prediction,
    }
    named = [name for name in MonitorName if name in set(watch)]
    known = ((name, reference) for name in named if (reference := references.get(name)) is not None)
    return tuple(Watched(name, *_DRIFT[name], reference) for name, reference in known if reference.counts.sum())


def _texts(record: Record, _champion: str) -> Iterator[Seen]:
    return ((text, text) for text in record.asked)


def _lengths(record: Record, _champion: str) -> Iterator[Seen]:
    return ((len(text), text) for text in record.asked)


def _predictions(record: Record, champion: str) -> Iterator[Seen]:
    """A candidate may well answer otherwise: only the champion's answers are compared with its own baseline."""
    if record.model != champion:
        return iter(())
    asked = record.asked if len(record.asked) == len(record.said) else [""] * len(record.said)
    return zip(record.said, asked, strict=True)


_DRIFT: Mapping[MonitorName, tuple[MonitorKind, str, Callable[[Record, str], Iterator[Seen]]]] = {
    MonitorName.TEXT: (MonitorKind.TEXT_DRIFT, "input", _texts),
    MonitorName.LENGTH: (MonitorKind.NUMERIC_DRIFT, "input_length", _lengths),
    MonitorName.PREDICTION: (MonitorKind.CATEGORICAL_DRIFT, "prediction", _predictions),
}


def _words_moved(cells: TextCells, texts: Sequence[str], most: int) -> tuple[Moved, ...]:
    return tuple(
        Moved(", ".join(r.words), r.share_before, r.share_now, examples(texts[i] for i in r.texts))
        for r in risen(cells, texts, most)
    )


def _cells_moved(reference: Reference[Any], values: Sequence[Seen], most: int) -> tuple[Moved, ...]:
    placed = reference.cells.assign([value for value, _ in values])
    counts = np.bincount(placed, minlength=len(reference.counts))
    before, now = reference.counts / max(reference.counts.sum(), 1), counts / max(counts.sum(), 1)
    order = [i for i in np.argsort(-np.abs(now - before), kind="stable") if now[i] != before[i]][:most]
    names = reference.cells.names
    return tuple(
        Moved(
            names[i],
            float(before[i]),
            float(now[i]),
            examples(text for (_, text), cell in zip(values, placed, strict=True) if cell == i),
        )
        for i in order
    )


def examples(texts: Iterable[str]) -> tuple[str, ...]:
    """A few different texts, cut short; they were redacted before they were written."""
    found: dict[str, None] = {}
    for text in texts:
        if text.strip():
            found[text[:_EXAMPLE_LENGTH]] = None
        if len(found) == _EXAMPLES:
            break
    return tuple(found)
