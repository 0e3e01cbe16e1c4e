"""What tells new rows from old ones: a classifier that tries to, and what it goes by.

It explains an alarm and never raises one: its AUC has an interval for one look, and a classifier that is trained again
at every look finds something sooner or later. What it says is which words, values and ranges the new rows have more or
less of, and how well a row's origin can be told at all (0.5: by chance; 1: always).

Bounded: some thousand rows of each side, some thousand features, texts up to their 4,000th character. A million rows
explain themselves in the same seconds as ten thousand.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from noria.evaluation.arrays import STRING, VOID, Column, Floats, Ints, data_type, texts
from noria.evaluation.cells import Categories, NumericBins
from noria.evaluation.topics import LONGEST, WORDS

MOST_ROWS = 3000
"""Rows of each side that are looked at."""
FEWEST_ROWS = 20
"""With fewer on either side there is nothing to learn from."""
MOST_WORDS = 3000
_FOLDS = 5
_LEAST_TEXTS = 3
_WORDY = 1.5
"""Words of a text on average, from which on a column is read word by word and not as categories."""
_TEXTS_TO_JUDGE = 200
_APART = frozenset({"record", "request_id", "request_time"})
"""Columns that tell any row from any other."""


@dataclass(frozen=True, slots=True)
class Sign:
    """Something that tells new rows from old ones.

    Attributes:
        column: Where it is.
        name: The word, value or range.
        share_before: Share of the old rows that have it.
        share_now: Share of the new rows that have it.
        weight: What it adds to ln odds that a row is new; negative if it speaks for an old one.
    """

    column: str
    name: str
    share_before: float
    share_now: float
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """How well new rows can be told from old ones, and by what.

    Attributes:
        auc: Probability that a new row looks newer than an old one, out of fold.
        low: Lower end of its 95% interval (DeLong 1988); above 0.5 if there is something to tell by.
        high: Upper end.
        rows_before: Old rows looked at.
        rows_now: New rows looked at.
        signs: What tells them apart, the most telling first.
    """

    auc: float
    low: float
    high: float
    rows_before: int
    rows_now: int
    signs: tuple[Sign, ...]


def explain(now: pa.Table, before: pa.Table, most: int = 10, seed: int = 0) -> Explanation | None:
    """Learn to tell new rows from old ones.

    A logistic regression over words (of columns with texts), values (of others) and ranges between the old rows'
    deciles (of numbers).

    Args:
        now: New rows, e.g. `Observations.items` since an alarm's first window; columns that only one side has are left
            out, and so are nested ones and times.
        before: Old rows.
        most: How many signs to name.
        seed: Of the sample and the classifier.

    Returns:
        None if either side has fewer than 20 rows, or there is no column to look at.
    """
    if min(now.num_rows, before.num_rows) < FEWEST_ROWS:
        return None
    new, old = _sample(now, seed), _sample(before, seed)
    read = [_features(name, new[name], old[name]) for name in _shared(new, old)]
    features = [feature for feature in read if feature is not None]
    if not features:
        return None
    return _learn(features, new.num_rows, old.num_rows, most, seed)


def explain_texts(now: Sequence[str], before: Sequence[str], most: int = 10, seed: int = 0) -> Explanation | None:
    """`explain` for texts alone."""
    new, old = (pa.table({"input": pa.array(list(side), pa.large_string())}) for side in (now, before))
    return explain(new, old, most, seed)


@dataclass(frozen=True, slots=True)
class _Features:
    """What one column says of each row: sparse, shape (new rows + old rows, names), each 0 or 1."""

    column: str
    names: Sequence[str]
    rows: Any


def _sample(table: pa.Table, seed: int) -> pa.Table:
    if table.num_rows <= MOST_ROWS:
        return table
    chosen = np.random.default_rng(seed).choice(table.num_rows, MOST_ROWS, replace=False)
    return table.take(pa.array(np.sort(chosen)))


def _shared(new: pa.Table, old: pa.Table) -> list[str]:
    return [name for name in new.column_names if name in old.column_names and name not in _APART]


def _features(column: str, new: Column, old: Column) -> _Features | None:
    """None for a column without anything to tell by: nothing but nulls, nested, or a time."""
    kinds = {data_type(side.type) for side in (new, old)} - {VOID}
    if len(kinds) != 1 or any(pa.types.is_nested(side.type) or pa.types.is_temporal(side.type) for side in (new, old)):
        return None
    if kinds == {STRING}:
        said = [[(text or "")[:LONGEST] for text in texts(side).to_pylist()] for side in (new, old)]
        both = [*said[0], *said[1]]
        if _wordy([text for text in both if text]):
            return _words(column, both)
        return _cells(column, Categories.fit([text for text in both if text]), both)
    bins = NumericBins.fit(old)
    placed = np.concatenate([bins.assign(new), bins.assign(old)])
    return _placed(column, bins.names, placed)


def _wordy(said: Sequence[str]) -> bool:
    few = said[:: max(1, len(said) // _TEXTS_TO_JUDGE)]
    return sum(len(re.findall(WORDS, text)) for text in few) > _WORDY * len(few)


def _words(column: str, both: Sequence[str]) -> _Features | None:
    from sklearn.feature_extraction.text import CountVectorizer

    reader = CountVectorizer(
        binary=True, min_df=_LEAST_TEXTS, max_features=MOST_WORDS, token_pattern=WORDS, dtype=np.float64
    )
    try:
        rows = reader.fit_transform(both)
    except ValueError:  # no word occurs often enough
        return None
    return _Features(column, reader.get_feature_names_out().tolist(), rows)


def _cells(column: str, cells: Categories, both: Sequence[str]) -> _Features:
    return _placed(column, cells.names, cells.assign(both))


def _placed(column: str, names: Sequence[str], placed: Ints) -> _Features:
    from scipy.sparse import csr_matrix

    rows = np.arange(placed.size)
    return _Features(column, names, csr_matrix((np.ones(placed.size), (rows, placed)), (placed.size, len(names))))


def _learn(features: Sequence[_Features], new: int, old: int, most: int, seed: int) -> Explanation:
    from scipy.sparse import hstack

    rows = hstack([f.rows for f in features]).tocsr()
    named = [(f.column, name) for f in features for name in f.names]
    is_new = np.arange(new + old) < new
    fold = np.random.default_rng(seed).permutation(new + old) % _FOLDS
    score = np.zeros(new + old)
    for held in range(_FOLDS):
        inside = fold == held
        learns = is_new[~inside]
        if inside.any() and learns.any() and not learns.all():
            score[inside] = _classifier(seed).fit(rows[~inside], learns).decision_function(rows[inside])
    auc, low, high = auc_interval(score[is_new], score[~is_new])
    weights = _classifier(seed).fit(rows, is_new).coef_.ravel()
    shares = [np.asarray(rows[side].mean(axis=0)).ravel() for side in (~is_new, is_new)]
    signs = _signs(named, shares[0], shares[1], weights, most)
    return Explanation(auc=auc, low=low, high=high, rows_before=old, rows_now=new, signs=signs)


def _classifier(seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=0.3, class_weight="balanced", solver="liblinear", random_state=seed)


def _signs(
    named: Sequence[tuple[str, str]], before: Floats, now: Floats, weights: Floats, most: int
) -> tuple[Sign, ...]:
    """Those that move the classifier's mean most: weight times difference in share."""
    moves = weights * (now - before)
    return tuple(
        Sign(named[i][0], named[i][1], float(before[i]), float(now[i]), float(weights[i]))
        for i in np.argsort(-moves, kind="stable")[:most]
        if moves[i] > 0
    )


def auc_interval(new: ArrayLike, old: ArrayLike, confidence: float = 0.95) -> tuple[float, float, float]:
    """AUC of scores with its interval, by the placements of each score among the other side's (DeLong 1988).

    Args:
        new: Scores of those that should have the higher ones.
        old: Scores of the others.
        confidence: Of the interval.

    Returns:
        AUC, and the interval's ends within [0, 1].
    """
    above, below = np.asarray(new, float), np.asarray(old, float)
    m, n = above.size, below.size
    ranks = rankdata(np.concatenate([above, below]))
    placed_new = (ranks[:m] - rankdata(above)) / n
    placed_old = 1 - (ranks[m:] - rankdata(below)) / m
    auc = float(placed_new.mean())
    least = 1 / (4 * min(m, n) ** 2)  # complete separation is no certainty
    variance = max(_variance(placed_new) / m + _variance(placed_old) / n, least)
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * math.sqrt(variance)
    return auc, max(0.0, auc - half), min(1.0, auc + half)


def _variance(values: Floats) -> float:
    return float(values.var(ddof=1)) if values.size > 1 else 0.25
