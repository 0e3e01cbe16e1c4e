"""How much looking one body is worth: what is beyond it counts as found, so that nobody can keep us busy.

A body that holds so many numbers loses some that are nothing personal; that is a loss in its record alone.
"""

import re
from typing import Final

POINTS: Final = 800
"""Checks of one body, each of about a tenth of a millisecond of CPU."""
LOOKS: Final = 10_000
"""Candidates of one body that are looked at one by one, each for some microseconds of CPU."""
Span = tuple[int, int]
Known = dict[tuple[str, str], Span | None]


class Effort:
    """What may still be done for one body: over all its strings, kinds and rounds.

    Args:
        points: Checks, see `POINTS`.
        looks: Candidates, see `LOOKS`.
        known: What checks said before of the same candidates: a repeat costs nothing.
    """

    __slots__ = ("known", "looks", "points")

    def __init__(self, points: int = POINTS, looks: int = LOOKS, known: Known | None = None) -> None:
        self.points, self.looks = points, looks
        self.known: Known = {} if known is None else known

    def look(self) -> bool:
        """Whether one more candidate may be looked at."""
        self.looks -= 1
        return self.looks >= 0

    def check(self, points: int = 1) -> bool:
        """Whether one more check may be made that costs so much."""
        self.points -= points
        return self.points >= 0

    def share(self) -> "Effort":
        """A quarter of it, for a first look at the body as a whole."""
        return Effort(self.points // 4, self.looks // 4, self.known)


def whole(found: re.Match[str], _before: str, _effort: Effort) -> Span:
    """All of a candidate whose form alone says what it is."""
    return 0, len(found.group())
