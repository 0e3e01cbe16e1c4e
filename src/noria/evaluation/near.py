"""Texts that are nearly the same: what one says word for word the other says too, but for a little.

Two texts are near when the sets of their pairs of neighbouring words have a Jaccard index of `NEAR` or more. The
neighbours are found exactly, not by chance: a text can only be near another if they share one of their rarest pairs
(prefix filtering: Chaudhuri et al., A Primitive Operator for Similarity Joins, 2006), so only those are compared.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

NEAR = 0.8
"""Jaccard index from which on two texts are near: one word of twenty in another's place."""
SHORTEST = 10
"""Words below which one word is too much of a text for a likeness to say anything; such texts are compared whole."""
_WORD = re.compile(r"\w+")
Pairs = frozenset[tuple[str, str]]


def pairs_of(text: str) -> Pairs:
    """The pairs of neighbouring words of a text; none for a short one."""
    words = _WORD.findall(text.casefold())
    return frozenset(pairwise(words)) if len(words) >= SHORTEST else frozenset()


def normalised(text: str) -> str:
    """A text as it is compared with others: case and white space don't count."""
    return " ".join(text.casefold().split())


def normal(text: str) -> str:
    """A text without what only dresses it: case, blanks and marks."""
    return " ".join(_WORD.findall(text.casefold()))


def near(texts: Sequence[str], others: Sequence[str]) -> NDArray[np.bool_]:
    """Which texts are nearly the same as any of the others, shape (len(texts),)."""
    neighbours = Neighbours([*others, *texts])
    for place in range(len(others)):
        neighbours.add(place)
    places = range(len(others), len(others) + len(texts))
    return np.array([next(neighbours.of(place), None) is not None for place in places], bool)


class Neighbours:
    """Finds, for one text after another, those added before that are near it."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Learn which pairs are rare.

        Args:
            texts: All the texts that will be asked about; they are named by their place.
        """
        self._pairs = [pairs_of(text) for text in texts]
        self._count = Counter(pair for pairs in self._pairs for pair in pairs)
        self._added: dict[tuple[str, str], list[int]] = {}

    def of(self, place: int) -> Iterator[int]:
        """Places of the texts added so far that are near this one, oldest first."""
        pairs = self._pairs[place]
        found = {other for pair in self._rarest(pairs) for other in self._added.get(pair, ())}
        return (other for other in sorted(found) if _jaccard(pairs, self._pairs[other]) >= NEAR)

    def add(self, place: int) -> None:
        """Let later texts find this one."""
        for pair in self._rarest(self._pairs[place]):
            self._added.setdefault(pair, []).append(place)

    def _rarest(self, pairs: Pairs) -> list[tuple[str, str]]:
        """So many of the rarest pairs that no near text can be without all of them."""
        if not pairs:
            return []
        ordered = sorted(pairs, key=lambda pair: (self._count[pair], pair))
        return ordered[: len(pairs) - math.ceil(NEAR * len(pairs)) + 1]


def _jaccard(one: Pairs, other: Pairs) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
