"""What each monitor of an endpoint watches: which column, of whom, and what it is compared with."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from noria.domain.monitor import MonitorKind, Moved
from noria.evaluation.baseline import Baseline, Reference
from noria.evaluation.cells import Categories, NumericBins
from noria.evaluation.topics import TextCells
from noria.evaluation.wording import risen
from noria.monitoring.computing import EVERYONE
from noria.monitoring.keeping import FAULT, SCORE, SCORES
from noria.settings import MonitorName, Monitors
from noria.settings.monitors import FAULTS, FEATURE, JUDGE, column_of

MOST_MOVED = 3
"""Cells, classes or words that an alert names."""
_EXAMPLES = 3
_EXAMPLE_LENGTH = 280
_KINDS: Mapping[type, MonitorKind] = {
    TextCells: MonitorKind.TEXT_DRIFT,
    NumericBins: MonitorKind.NUMERIC_DRIFT,
    Categories: MonitorKind.CATEGORICAL_DRIFT,
}

Seen = tuple[Any, str]
"""A value and the text that it came with."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One monitor of an endpoint.

    Attributes:
        name: As in the project file.
        kind: What sort of values it watches.
        column: Name of the values in the tables.
        reference: Their cells, and the counts that they are compared with.
        floor: Average of what is good that was promised, 0 to 1; for monitors that bet.
    """

    name: str
    kind: MonitorKind
    column: str
    reference: Reference[Any]
    floor: float | None = None

    def moved(self, values: Sequence[Seen], most: int = MOST_MOVED) -> tuple[Moved, ...]:
        """What changed most against the reference, with examples of how it is now."""
        if isinstance(self.reference.cells, TextCells):
            return _words_moved(self.reference.cells, [text for _, text in values], most)
        return _cells_moved(self.reference, values, most)


def watched(baseline: Baseline | None, monitors: Monitors) -> tuple[Watched, ...]:
    """The monitors that are on and that there is something to compare with, or a promise to hold."""
    found = (_watched(name, baseline or Baseline(references={}), monitors) for name in monitors.watch)
    return tuple(each for each in found if each is not None)


def _watched(name: str, baseline: Baseline, monitors: Monitors) -> Watched | None:
    column = column_of(name)
    promised = monitors.floors.get(column, baseline.floors.get(column))
    if name == MonitorName.QUALITY:
        return None if promised is None else Watched(str(name), MonitorKind.QUALITY, SCORE, SCORES, promised)
    if name.startswith(JUDGE):
        return None if promised is None else Watched(str(name), MonitorKind.QUALITY, column, SCORES, promised)
    reference = baseline.references.get(column)
    if column in FAULTS:
        grid = reference or FAULT
        return None if promised is None else Watched(str(name), MonitorKind.SCORE, column, grid, 1 - promised)
    if reference is None or not reference.counts.sum():
        return None
    return Watched(str(name), _KINDS[type(reference.cells)], column, reference)


def asked_by(column: str, champion: str) -> str:
    """Whose values of a column are compared: what callers send is the same for all models, what comes back is not.

    A candidate may well answer otherwise: only the champion's answers are compared with its own baseline.
    """
    return EVERYONE if column.startswith(("input", FEATURE)) else champion


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
