"""Texts that say the same: equal but for their dress, or nearly so."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer

ALIKE = 0.85
"""Cosine of two texts' runs of five characters from which on they are nearly the same."""
_RUN = 5
_AT_A_TIME = 256
_DRESS = re.compile(r"[\W_]+")


def normal(text: str) -> str:
    """A text without what only dresses it: case, blanks and marks."""
    return _DRESS.sub(" ", text.casefold()).strip()


def near(texts: Sequence[str], others: Sequence[str], least: float = ALIKE) -> NDArray[np.bool_]:
    """Which texts are nearly the same as any of the others, shape (len(texts),).

    Compares the sets of runs of five characters by their cosine, every text with every other one, some hundred at a
    time; a text shorter than a run is like no other.

    Args:
        texts: To be judged.
        others: To be compared with.
        least: Cosine from which on two are nearly the same, 0 to 1.
    """
    if not len(texts) or not len(others):
        return np.zeros(len(texts), bool)
    runs = HashingVectorizer(
        analyzer="char", ngram_range=(_RUN, _RUN), binary=True, norm="l2", n_features=2**20, alternate_sign=False,
        preprocessor=normal,
    )  # fmt: skip
    mine, theirs = runs.transform(texts), runs.transform(others).T.tocsr()
    found = np.zeros(len(texts), bool)
    for start in range(0, len(texts), _AT_A_TIME):
        some = mine[start : start + _AT_A_TIME] @ theirs
        found[start : start + _AT_A_TIME] = np.asarray(some.max(axis=1).toarray()).ravel() >= least
    return found
