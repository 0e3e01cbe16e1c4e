"""How right a classifier is where nobody has said yet: estimated from its own probabilities.

If a model is calibrated, an answer that it calls 80% likely is right four times in five. So the expected confusion
matrix is a sum of probabilities, and accuracy, precision, recall, F1 and ROC AUC follow from it: confidence-based
performance estimation (CBPE), the method of NannyML. Rows are taken as independent draws from their probabilities;
`error` is then the standard deviation of the true measure around its estimate, by the delta method.

**The assumption.** What a text means may not have changed: the label given the input has the law of the calibration's
reference. CBPE sees that inputs moved to where the model is unsure. It can't see that the model is confidently wrong
(concept drift); only labels can.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noria.domain.errors import InvalidData
from noria.evaluation.calibration import checked
from noria.evaluation.cells import Floats, Ints

SIGMAS = 3.0
"""Half the width of an estimate's bounds, in standard deviations of the true measure around it."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimated measure; NaN where it is not defined (no rows, only one class expected).

    Attributes:
        value: The estimate, 0 to 1.
        error: Standard deviation of the true measure around it, if the probabilities are right.
    """

    value: float
    error: float

    @property
    def low(self) -> float:
        """Three standard deviations below, at least 0."""
        return max(0.0, self.value - SIGMAS * self.error)

    @property
    def high(self) -> float:
        """Three standard deviations above, at most 1."""
        return min(1.0, self.value + SIGMAS * self.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """What is estimated of one set of rows.

    Attributes:
        rows: Rows with probabilities.
        accuracy: Share of right predictions.
        precision: Of the positive class, or the mean over the classes; 0 for a class that is never predicted.
        recall: Likewise.
        f1: Likewise.
        roc_auc: Likewise, each class against the rest.
        confusion: Expected rows, label by prediction, shape (K, K).
    """

    rows: int
    accuracy: Estimate
    precision: Estimate
    recall: Estimate
    f1: Estimate
    roc_auc: Estimate
    confusion: Floats

    def measures(self) -> Mapping[str, Estimate]:
        """The measures by name."""
        return {name: getattr(self, name) for name in ("accuracy", "precision", "recall", "f1", "roc_auc")}


def estimate(probabilities: ArrayLike, predictions: ArrayLike, scores: ArrayLike | None = None) -> Performance:
    """Estimate how right predictions are.

    Args:
        probabilities: Calibrated. Shape (n,): of the positive class, whose precision, recall, F1 and AUC are estimated.
            Shape (n, K): of each class, over which they are averaged. Rows that hold a NaN are left out.
        predictions: The class that was predicted, shape (n,): 0 or 1, or 0 to K - 1.
        scores: What the model ranks by, in the shape of the probabilities: its probabilities before they were
            calibrated, which has ties. Default is the probabilities.

    Raises:
        InvalidData: Shapes don't fit together, probabilities lie outside [0, 1], or a predicted class isn't there.
    """
    chances, said, ranks = _checked(probabilities, predictions, scores)
    return _estimate(chances, said, ranks)


def estimate_windows(
    probabilities: ArrayLike, predictions: ArrayLike, windows: ArrayLike, scores: ArrayLike | None = None
) -> list[Performance]:
    """`estimate` for each of many windows.

    Args:
        probabilities: As in `estimate`.
        predictions: As in `estimate`.
        windows: The number of each row's window from 0, shape (n,), in any order.
        scores: As in `estimate`.

    Returns:
        One for each number up to the highest; a window without rows has NaN measures.
    """
    numbers = np.asarray(windows, np.int64)
    chances, said, ranks = _checked(probabilities, predictions, scores)
    if numbers.shape != said.shape or (numbers.size and numbers.min() < 0):
        raise InvalidData("Each row needs the number of its window.", "Count windows from 0.")
    most = int(numbers.max()) + 1 if numbers.size else 0
    known = _known(chances, ranks)
    if known is not None:
        chances, said, ranks, numbers = chances[known], said[known], ranks[known], numbers[known]
    if numbers.size and bool((numbers[1:] < numbers[:-1]).any()):
        order = np.argsort(numbers, kind="stable")
        chances, said, ranks, numbers = chances[order], said[order], ranks[order], numbers[order]
    ends = np.cumsum(np.bincount(numbers, minlength=most))
    starts = np.concatenate([[0], ends[:-1]]) if ends.size else ends
    return [_estimate(chances[a:b], said[a:b], ranks[a:b]) for a, b in zip(starts, ends, strict=True)]


def _checked(probabilities: ArrayLike, predictions: ArrayLike, scores: ArrayLike | None) -> tuple[Floats, Ints, Floats]:
    chances, said = checked(probabilities, predictions)
    ranks = chances if scores is None else np.asarray(scores, np.float64)
    if ranks.shape != chances.shape:
        problem = f"Scores of shape {ranks.shape} don't fit probabilities of shape {chances.shape}."
        raise InvalidData(problem, "Give them in the same shape, or leave them out.")
    return chances, said, ranks


def _known(chances: Floats, ranks: Floats) -> NDArray[np.bool_] | None:
    """Which rows hold no NaN; None if all do."""
    total = chances.sum() + (0.0 if ranks is chances else ranks.sum())
    if not math.isnan(float(total)):
        return None
    missing = np.isnan(chances) | np.isnan(ranks)
    return np.asarray(~missing.reshape(len(missing), -1).any(axis=1))


def _estimate(chances: Floats, said: Ints, ranks: Floats) -> Performance:
    known = _known(chances, ranks)
    if known is not None:
        chances, said, ranks = chances[known], said[known], ranks[known]
    rows, binary = len(said), chances.ndim == 1
    # The positive class alone is a table of one column; its variance formula is the same as that of K columns.
    columns, ordered = (chances[:, None], ranks[:, None]) if binary else (chances, ranks)
    hits = (said[:, None] == (1 if binary else np.arange(columns.shape[1]))).astype(np.float64)
    right = np.where(said == 1, chances, 1 - chances) if binary else chances[np.arange(rows), said]
    confusion = _confusion(chances, said)
    both = (columns * hits).sum(axis=0)
    predicted, positive = hits.sum(axis=0), columns.sum(axis=0)
    precision, recall = _share(both, predicted), _share(both, positive)
    f1 = _share(2 * both, predicted + positive)
    nothing = Estimate(math.nan, math.nan)
    return Performance(
        rows=rows,
        accuracy=_accuracy(right) if rows else nothing,
        precision=_mean(precision, columns, _share(hits, predicted)) if rows else nothing,
        recall=_mean(recall, columns, _share(hits - recall, positive)) if rows else nothing,
        f1=_mean(f1, columns, _share(2 * hits - f1, predicted + positive)) if rows else nothing,
        roc_auc=_roc_auc(columns, ordered) if rows else nothing,
        confusion=confusion,
    )


def _accuracy(right: Floats) -> Estimate:
    return Estimate(float(right.mean()), math.sqrt(float((right * (1 - right)).sum())) / right.size)


def _share(part: Floats, whole: Floats) -> Floats:
    """Part by whole; 0 where the whole is nothing, as everybody else has it."""
    return part / np.where(whole > 0, whole, np.inf)


def _mean(values: Floats, chances: Floats, slopes: Floats) -> Estimate:
    """The mean of a measure over the classes.

    Args:
        values: Of each class, shape (C,).
        chances: Shape (n, C).
        slopes: How a class's measure moves when a row's label becomes that class, shape (n, C).
    """
    moved = chances * slopes
    variance = float((moved * slopes).sum() - (moved.sum(axis=1) ** 2).sum())
    return Estimate(float(values.mean()), math.sqrt(max(variance, 0.0)) / values.size)


def _roc_auc(chances: Floats, ranks: Floats) -> Estimate:
    """The mean over the classes; NaN if any class can't be told from the rest because it has no rows or all of them."""
    found = [_one_against_rest(chances[:, c], ranks[:, c]) for c in range(chances.shape[1])]
    return _mean(np.array([area for area, _ in found]), chances, np.stack([slopes for _, slopes in found], axis=1))


def area_under_roc(positive: ArrayLike, ranks: ArrayLike) -> float:
    """The area under the ROC curve of known labels, ties counting one half; NaN if there is only one class.

    Args:
        positive: Which rows are of the class, shape (n,).
        ranks: What the model ranks them by, shape (n,).
    """
    return _one_against_rest(np.asarray(positive, np.float64), np.asarray(ranks, np.float64))[0]


def _one_against_rest(chances: Floats, ranks: Floats) -> tuple[float, Floats]:
    """The expected area under the ROC curve, ties counting one half, and how it moves with each row's label."""
    order = np.argsort(ranks)
    sorted_ranks, positive = ranks[order], chances[order]
    negative = 1 - positive
    below, upto = _midway(negative, sorted_ranks), _midway(positive, sorted_ranks)
    positives, negatives = float(positive.sum()), float(negative.sum())
    if positives <= 0 or negatives <= 0:
        return math.nan, np.zeros(len(chances))
    won = float(positive @ below)
    pairs = positives * negatives
    slopes = np.empty(len(chances))
    slopes[order] = (below - (positives - upto)) / pairs - won / pairs / positives + won / pairs / negatives
    return won / pairs, slopes


def _midway(weights: Floats, ranks: Floats) -> Floats:
    """For each row, the weight of all rows ranked lower, and half of the weight of those ranked the same."""
    through = np.cumsum(weights)
    new = np.concatenate([[True], ranks[1:] != ranks[:-1]])
    if new.all():
        return np.asarray(through - weights / 2)
    starts = np.flatnonzero(new)
    ends = np.append(starts[1:], ranks.size) - 1
    before = np.concatenate([[0.0], through[ends[:-1]]])
    return np.repeat((before + through[ends]) / 2, np.diff(np.append(starts, ranks.size)))


def _confusion(chances: Floats, said: Ints) -> Floats:
    """Expected rows, label by prediction."""
    if chances.ndim == 1:
        yes = np.bincount(said, chances, minlength=2)
        return np.stack([np.bincount(said, minlength=2) - yes, yes])
    classes = chances.shape[1]
    return np.stack([np.bincount(said, chances[:, c], minlength=classes) for c in range(classes)])
