"""Scorers of texts, found by name (entry points `noria.scorers`), as measures that `evaluation` can take."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache

from noria.adapters.plugins import load, names
from noria.domain.errors import InvalidProject
from noria.ports import TextScorer
from noria.settings.monitors import SCORERS

_AT_ONCE = 1000
"""Texts that a scorer gets at a time."""

Scores = Callable[[Sequence[str | None]], Sequence[float | None]]


def scorers(wanted: Collection[str]) -> Mapping[str, Scores]:
    """The installed scorers that columns are wanted of, by what they measure; no other is loaded.

    Args:
        wanted: Names of columns, such as `output_toxicity`.

    Raises:
        MissingExtra: One can't be loaded.
    """
    measures = {column.removeprefix("input_").removeprefix("output_") for column in wanted}
    return {name: _measuring(name) for name in sorted(measures & installed())}


def installed() -> frozenset[str]:
    """What installed scorers measure."""
    return names(SCORERS)


def _measuring(name: str) -> Scores:
    def measure(texts: Sequence[str | None]) -> Sequence[float | None]:
        known = [text for text in texts if text is not None]
        found = iter([score for start in range(0, len(known), _AT_ONCE) for score in _scored(name, known, start)])
        return [None if text is None else next(found) for text in texts]

    return measure


def _scored(name: str, texts: Sequence[str], start: int) -> list[float | None]:
    """The scores of a part of the texts, within 0 and 1.

    Raises:
        InvalidProject: The scorer gives another number of scores than it got texts.
    """
    some = texts[start : start + _AT_ONCE]
    found = _loaded(name).score(some)
    if len(found) != len(some):
        raise InvalidProject(
            f"The scorer {name} gave {len(found)} scores for {len(some)} texts.",
            "Uninstall the package that brings it, or have it repaired.",
        )
    return [None if score is None or math.isnan(score) else min(max(float(score), 0.0), 1.0) for score in found]


@cache
def _loaded(name: str) -> TextScorer:
    """The scorer that measures that; loaded once in a process, as models are large."""
    scorer: TextScorer = load(SCORERS, name, "scorer", "in a monitored column", made=True)
    return scorer
