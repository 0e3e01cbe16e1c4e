"""Which words texts use more than their reference did: what a person wants to know first when topics moved."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from noria.evaluation.cells import Floats
from noria.evaluation.topics import TextCells, hashed, vocabulary

MOST_TEXTS = 3000
_CONTEXT = 2


@dataclass(frozen=True, slots=True)
class Risen:
    """A word that texts use more than before, and which texts do.

    Attributes:
        words: The word, and those that come with it most.
        share_before: Share of the reference's texts that hold the word.
        share_now: Share of the texts that hold it.
        texts: Indices of those texts.
    """

    words: tuple[str, ...]
    share_before: float
    share_now: float
    texts: tuple[int, ...]


def risen(cells: TextCells, texts: Sequence[str], most: int = 3) -> list[Risen]:
    """The words whose share rose most surely; each speaks for texts that those before it don't explain.

    Args:
        cells: Learnt from the reference; their weights know how many of its texts hold a word.
        texts: What is written now, at most `MOST_TEXTS` of it are looked at.
        most: How many words to name.
    """
    rows = hashed(texts[:MOST_TEXTS])
    words = vocabulary(texts, MOST_TEXTS)
    if not words:
        return []
    names, buckets = list(words), np.array(list(words.values()))
    holds = rows[:, buckets] > 0
    number = rows.shape[0]
    learnt = np.exp(cells.idf.max() - 1) - 1
    before = np.clip((np.exp(cells.idf.max() - cells.idf[buckets]) - 1) / max(learnt, 1), 0, 1)
    now = np.asarray(holds.sum(axis=0)).ravel() / number
    noise = np.sqrt((before * (1 - before) + 1 / max(learnt, 1)) / number)
    found: list[Risen] = []
    explained = np.zeros(number, bool)
    for place in np.argsort(-(now - before) / noise):
        where = np.flatnonzero(np.asarray(holds[:, [place]].todense()).ravel())
        if len(found) == most or now[place] <= before[place]:
            break
        if explained[where].mean() > 0.5:
            continue
        explained[where] = True
        company = _company(names, holds[where], np.where(now > 1.5 * before, now, 1.0), place)
        found.append(Risen((names[place], *company), float(before[place]), float(now[place]), tuple(where.tolist())))
    return found


def _company(names: Sequence[str], holds: Any, anyway: Floats, place: int) -> list[str]:
    """The words that come with a word most, beyond how often they come anyway."""
    together = np.asarray(holds.mean(axis=0)).ravel()
    lift = Counter({i: float(together[i] - anyway[i]) for i in np.flatnonzero(together > 0.1) if i != place})
    return [names[int(i)] for i, gain in lift.most_common(_CONTEXT) if gain > 0]
