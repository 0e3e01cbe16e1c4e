"""The seam of measures: what reads texts better than what is built in."""

from collections.abc import Sequence
from typing import Protocol


class TextScorer(Protocol):
    """Scores texts, for monitors. Comes in as an entry point of the group `noria.scorers`: a class or a function that
    makes one. Its entry point's name is what it measures: `toxicity` takes the place of the built-in measure, any other
    name adds the columns `input_NAME` and `output_NAME`.
    """

    def score(self, texts: Sequence[str]) -> Sequence[float | None]:
        """A score for each text, 0 to 1; None where it can't say.

        Args:
            texts: Up to some thousands, redacted, of any length and language; some are empty.
        """
        ...
