"""Making stated probabilities mean what they say: isotonic regression on labelled rows, where it helps."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noria.domain.errors import InvalidData
from noria.evaluation.cells import Floats, Ints

BINS = 10
FOLDS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """A map from a model's probabilities to those that the reference bears out: rising, linear between its corners.

    Attributes:
        corners: For the positive class, or for each class against the rest: probabilities as the model states them,
            rising, and what they are worth. None for a class whose probabilities are left as they are.
    """

    corners: tuple[tuple[Floats, Floats] | None, ...]

    @classmethod
    def fit(cls, probabilities: ArrayLike, labels: ArrayLike) -> "Calibration":
        """Isotonic regression of the labels on the probabilities, each class against the rest.

        Args:
            probabilities: As the model states them, shape (n,) or (n, K), without NaN.
            labels: The true class of each row, shape (n,): 0 or 1, or 0 to K - 1.

        Raises:
            InvalidData: Shapes don't fit together.
        """
        chances, right = checked(probabilities, labels)
        columns = chances[:, None] if chances.ndim == 1 else chances
        targets = [1] if chances.ndim == 1 else range(columns.shape[1])
        return cls(tuple(_isotonic(columns[:, c], right == k) for c, k in enumerate(targets)))

    def apply(self, probabilities: ArrayLike) -> Floats:
        """Calibrated probabilities in the same shape; those of several classes add up to one again."""
        chances = np.asarray(probabilities, np.float64)
        if chances.ndim == 1:
            return _mapped(chances, self.corners[0])
        found = np.stack([_mapped(chances[:, c], corner) for c, corner in enumerate(self.corners)], axis=1)
        total = found.sum(axis=1, keepdims=True)
        return np.where(total > 0, found / np.where(total > 0, total, 1), 1 / found.shape[1])

    def to_json(self) -> list[Any]:
        """The corners as plain lists."""
        return [None if c is None else [c[0].tolist(), c[1].tolist()] for c in self.corners]

    @classmethod
    def from_json(cls, value: list[Any]) -> "Calibration":
        """The calibration that `to_json` described."""
        return cls(tuple(None if c is None else (np.array(c[0], float), np.array(c[1], float)) for c in value))


def calibration_if_needed(probabilities: ArrayLike, labels: ArrayLike, seed: int = 0) -> Calibration | None:
    """A calibration if the reference needs one: if it brings the calibration error of rows that it has not seen down.

    Judged in three folds, as NannyML judges it; None says that the probabilities are best left as they are.

    Args:
        probabilities: As the model states them, shape (n,) or (n, K), without NaN.
        labels: The true class of each row, shape (n,).
        seed: Of the folds.

    Raises:
        InvalidData: Shapes don't fit together, or there are fewer rows than folds.
    """
    chances, right = checked(probabilities, labels)
    if len(right) < FOLDS:
        raise InvalidData(f"{len(right)} labelled rows calibrate nothing.", "Calibrate on some hundreds.")
    before, after = 0.0, 0.0
    for learnt, held in _folds(len(right), seed):
        fitted = Calibration.fit(chances[learnt], right[learnt])
        before += miscalibration(chances[held], right[held])
        after += miscalibration(fitted.apply(chances[held]), right[held])
    return Calibration.fit(chances, right) if after < before else None


def checked(probabilities: ArrayLike, classes: ArrayLike) -> tuple[Floats, Ints]:
    """Probabilities of shape (n,) or (n, K) and a class for each row, as arrays.

    Raises:
        InvalidData: Shapes don't fit together, probabilities lie outside [0, 1], or a class isn't one of the K.
    """
    chances, named = np.asarray(probabilities, np.float64), np.asarray(classes, np.int64)
    if chances.ndim not in (1, 2) or named.ndim != 1 or len(chances) != len(named):
        problem = f"Probabilities of shape {chances.shape} don't fit classes of shape {named.shape}."
        raise InvalidData(problem, "Give one row of probabilities and one class for each answer.")
    if chances.size and (np.nanmin(chances, initial=0.0) < 0 or np.nanmax(chances, initial=0.0) > 1 + 1e-6):
        raise InvalidData("Probabilities lie outside [0, 1].", "Give probabilities, not log-odds.")
    classes_known = 2 if chances.ndim == 1 else chances.shape[1]
    if named.size and (named.min() < 0 or named.max() >= classes_known):
        raise InvalidData(f"A class isn't one of the {classes_known}.", "Number the classes from 0.")
    return chances, named


def miscalibration(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Expected calibration error over bins of equal width: of the positive class, or the mean over the classes."""
    chances, right = np.asarray(probabilities, np.float64), np.asarray(labels, np.int64)
    columns = chances[:, None] if chances.ndim == 1 else chances
    targets = [1] if chances.ndim == 1 else range(columns.shape[1])
    errors = []
    for c, k in enumerate(targets):
        cell = np.minimum((columns[:, c] * BINS).astype(np.int64), BINS - 1)
        errors.append(np.abs(np.bincount(cell, (right == k) - columns[:, c], minlength=BINS)).sum() / len(right))
    return float(np.mean(errors))


def _folds(rows: int, seed: int) -> Iterator[tuple[Ints, Ints]]:
    """For each fold, the rows to learn from and the rows that are held out."""
    fold = np.random.default_rng(seed).permutation(rows) % FOLDS
    for number in range(FOLDS):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def _isotonic(stated: Floats, right: NDArray[np.bool_]) -> tuple[Floats, Floats] | None:
    from sklearn.isotonic import IsotonicRegression  # only who calibrates pays for it

    if not stated.size:
        return None
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(stated, right.astype(np.float64))
    return np.asarray(fitted.X_thresholds_, float), np.asarray(fitted.y_thresholds_, float)


def _mapped(stated: Floats, corners: tuple[Floats, Floats] | None) -> Floats:
    return stated if corners is None else np.interp(stated, *corners)
