"""How right a classifier is on labelled rows: accuracy with its interval, F1 by class, calibration.

Pure functions over sequences of labels. Labels are text; rows are in the same order everywhere.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from noria.domain.errors import InvalidData


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval of a share, both ends included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassQuality:
    """One class: how many rows have it, how many were given it, and how far the two agree (0 to 1)."""

    label: str
    rows: int
    predicted: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What was measured on one set of labelled rows.

    Attributes:
        rows: Rows measured.
        correct: Rows whose prediction is the label.
        accuracy: Their share.
        interval: 95% Wilson interval of the accuracy.
        macro_f1: Mean F1 over the classes, each counting the same.
        classes: One for each class seen in labels or predictions, by name.
        calibration_error: Expected calibration error, if scores were given.
    """

    rows: int
    correct: int
    accuracy: float
    interval: Interval
    macro_f1: float
    classes: tuple[ClassQuality, ...]
    calibration_error: float | None = None

    def numbers(self) -> dict[str, float]:
        """The measures as flat names and numbers, the way MLflow and a run's step keep them."""
        flat = {
            "accuracy": self.accuracy,
            "accuracy_low": self.interval.low,
            "accuracy_high": self.interval.high,
            "macro_f1": self.macro_f1,
            "rows": float(self.rows),
        }
        if self.calibration_error is not None:
            flat["calibration_error"] = self.calibration_error
        return flat | {f"f1_{c.label}": c.f1 for c in self.classes}


def measure(labels: Sequence[str], predictions: Sequence[str], scores: Sequence[float] | None = None) -> Quality:
    """Measure predictions against labels.

    Args:
        labels: What is right.
        predictions: What the model said.
        scores: The model's probability for what it said, 0 to 1; None if it gives none.

    Raises:
        InvalidData: There are no rows, or the sequences differ in length.
    """
    _same_length(labels, predictions, scores)
    rows = len(labels)
    hits = [said == right for said, right in zip(predictions, labels, strict=True)]
    classes = _by_class(labels, predictions, hits)
    return Quality(
        rows=rows,
        correct=sum(hits),
        accuracy=sum(hits) / rows,
        interval=wilson(sum(hits), rows),
        macro_f1=sum(c.f1 for c in classes) / len(classes),
        classes=classes,
        calibration_error=None if scores is None else calibration_error(hits, scores),
    )


def _same_length(labels: Sequence[str], predictions: Sequence[str], scores: Sequence[float] | None) -> None:
    if not len(labels):
        raise InvalidData("There are no labelled rows to measure on.", "Give the evaluation at least one row.")
    if len(predictions) != len(labels) or (scores is not None and len(scores) != len(labels)):
        raise InvalidData(
            f"{len(labels)} labels can't be compared with {len(predictions)} predictions"
            f"{'' if scores is None else f' and {len(scores)} scores'}.",
            "Give one prediction for each label, in the same order.",
        )


def _by_class(labels: Sequence[str], predictions: Sequence[str], hits: Sequence[bool]) -> tuple[ClassQuality, ...]:
    right, said = Counter(labels), Counter(predictions)
    both = Counter(label for label, hit in zip(labels, hits, strict=True) if hit)
    return tuple(
        ClassQuality(
            label=label,
            rows=right[label],
            predicted=said[label],
            precision=both[label] / said[label] if said[label] else 0.0,
            recall=both[label] / right[label] if right[label] else 0.0,
            f1=2 * both[label] / (said[label] + right[label]),
        )
        for label in sorted(right.keys() | said.keys())
    )


def wilson(successes: int, rows: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a share; the whole of [0, 1] if there are no rows.

    Source: Wilson 1927; unlike the normal interval it stays inside [0, 1] and is honest for few rows.
    """
    if rows == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / rows
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def calibration_error(hits: Sequence[bool], scores: Sequence[float], bins: int = 10) -> float:
    """Expected calibration error: mean distance between stated probability and accuracy, over equal-width bins.

    Source: Naeini, Cooper & Hauskrecht 2015.
    """
    stated, right = np.asarray(scores, dtype=float), np.asarray(hits, dtype=float)
    cell = np.minimum((stated * bins).astype(int), bins - 1)
    distance = np.abs(np.bincount(cell, right - stated, minlength=bins))
    return float(distance.sum() / len(stated))
