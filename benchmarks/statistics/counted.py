"""Streams that are counted in cells: numbers, categories and texts, unchanged or changed from their first row on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.statistics.texts import chains
from noria.evaluation.cells import Categories, NumericBins
from noria.evaluation.sequential import log_e_stretches
from noria.evaluation.topics import TextCells

Random = np.random.Generator
Ints = NDArray[np.int64]
POOL, NEW_POOL = 30_000, 6_000
"""Texts that a stream's are drawn from."""


@dataclass(frozen=True, eq=False)
class Counted:
    """A reference and a stream in the same cells.

    Attributes:
        reference: Rows of the reference in each cell.
        looks: How many looks of how many rows → rows in each cell at each look, shape (looks, cells).
        groupings: As the cells have them.
        ordered: Likewise.
    """

    reference: Ints
    looks: Callable[[int, int], Ints]
    groupings: Sequence[Ints] = ()
    ordered: int = 0

    def evidence(self, looks: int, rows: int) -> NDArray[np.float64]:
        """ln of the evidence after each look."""
        return np.concatenate(list(self._path(self.looks(looks, rows).cumsum(axis=0))))

    def first_alarm(self, line: float, looks: int, rows: int) -> int | None:
        """Rows until the alarm, None if there is none."""
        seen = 0
        for part in self._path(self.looks(looks, rows).cumsum(axis=0)):
            over = part >= line
            if over.any():
                return (seen + int(over.argmax()) + 1) * rows
            seen += part.size
        return None

    def _path(self, counts: Ints) -> Iterator[NDArray[np.float64]]:
        """ln of the evidence at each look, in stretches."""
        return log_e_stretches(counts, self.reference, self.groupings, self.ordered)


def _by_look(cells: Ints, number: int, looks: int) -> Ints:
    rows = cells.size // looks
    return np.bincount(np.repeat(np.arange(looks), rows) * number + cells, minlength=looks * number).reshape(looks, -1)


SHAPES: dict[str, Callable[[Random, int], NDArray[np.float64]]] = {
    "normal": lambda random, rows: random.normal(size=rows),
    "lognormal": lambda random, rows: random.lognormal(3, 1, rows),
    "whole": lambda random, rows: random.poisson(6, rows).astype(float),
    "gaps": lambda random, rows: np.where(random.random(rows) < 0.03, np.nan, random.normal(size=rows)),
}
"""What columns of numbers look like: a bell, latencies, small whole numbers, values that are missing now and then."""


def numbers(random: Random, reference: int, shift: float = 0.0, run: int = 0, calm: int = 0) -> Counted:
    """A column of numbers that moves after some calm rows; in every other run its bins come from other rows."""
    draw = SHAPES["normal" if shift else list(SHAPES)[run % len(SHAPES)]]
    rows = draw(random, reference)
    cells = NumericBins.fit(rows if run // len(SHAPES) % 2 else draw(random, reference))

    def looks(number: int, each: int) -> Ints:
        values = draw(random, number * each)
        values[calm:] += shift
        return _by_look(cells.assign(values), cells.size, number)

    return Counted(cells.count(rows), looks, cells.groupings, cells.ordered)


def _zipf(number: int, power: float) -> NDArray[np.float64]:
    law = np.arange(1, number + 1) ** -power
    return np.asarray(law / law.sum())


LAWS = {
    "classes": np.array([0.4, 0.3, 0.15, 0.1, 0.05]),
    "values": _zipf(30, 1.0),
    "tail": _zipf(5000, 1.1),
}
"""Five classes, thirty values, and thousands of values most of which come once."""
NEVER_SEEN = 10**6


def categories(random: Random, reference: int, change: str = "", run: int = 0) -> Counted:
    """A column of categories; `rises`: the third class gets 5% of the rows from the others, `new`: a new one does."""
    law = LAWS["classes"] if change else list(LAWS.values())[run % len(LAWS)]
    cells, counts = Categories.learnt(random.choice(law.size, reference, p=law).tolist())
    takes = {"rises": 2, "new": NEVER_SEEN}.get(change)
    place = {name: cell for cell, name in enumerate(cells.known)}
    found = np.array([place.get(str(value), len(place)) for value in range(law.size)])
    shares = np.bincount(found, law, cells.size)
    if takes is not None:
        shares = 0.95 * shares
        shares[place.get(str(takes), len(place))] += 0.05

    def looks(number: int, each: int) -> Ints:
        return random.multinomial(each, shares, size=number)

    return Counted(counts, looks)


@cache
def topics(reference: int, seed: int) -> tuple[TextCells, NDArray[np.float64], NDArray[np.float64]]:
    """Cells that half of a reference taught, and the shares that old and new topics have in them."""
    old, new = chains()
    random = np.random.default_rng([seed, reference])
    cells = TextCells.fit(old.write(reference // 2, random), seed)
    counts = [cells.count(chain.write(rows, random)) for chain, rows in ((old, POOL), (new, NEW_POOL))]
    before, now = (count / count.sum() for count in counts)
    return cells, before, now


def texts(random: Random, reference: int, share: float = 0.0, run: int = 0, fits: int = 2) -> Counted:
    """Customers' messages, of which a share is about a new topic; half of the reference is counted."""
    cells, before, now = topics(reference, run % fits)
    law = (1 - share) * before + share * now

    def looks(number: int, each: int) -> Ints:
        return random.multinomial(each, law, size=number)

    return Counted(random.multinomial(reference - reference // 2, before), looks, cells.groupings)
