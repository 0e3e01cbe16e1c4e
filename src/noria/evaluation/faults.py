"""Cells for columns between 0 and 1 where less is better: errors, refusals, what is toxic.

They count how good each value is, one minus it, so that a promise "at most 2 per cent" is one of "98 per cent good at
least" and is watched like any score. What is good is rounded up: that can only make evidence smaller.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from noria.evaluation.arrays import Column, Ints
from noria.evaluation.cells import ScoreGrid, numbers, tally


@dataclass(frozen=True, slots=True)
class FaultGrid(ScoreGrid):
    """A grid of one minus each value; what is no number counts as no fault."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{1 - value:g}" for value in self.values)

    def assign(self, values: Iterable[object] | Column) -> Ints:
        return ScoreGrid.assign(self, 1 - numbers(values))

    def count(self, values: Iterable[object] | Column) -> Ints:
        return tally(self.assign(values), self.size)
