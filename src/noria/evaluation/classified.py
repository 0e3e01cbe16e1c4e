"""How right a classifier was where its answers were labelled, in the columns of Databricks' profile metrics table."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from noria.evaluation.cbpe import area_under_roc
from noria.evaluation.cells import Floats
from noria.evaluation.quality import calibration_error, measure

_LEAST = float(np.finfo(np.float64).eps)
"""What a probability of nothing counts as in the log loss, as in scikit-learn."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A number measured on some rows.

    Attributes:
        value: The number.
        rows: How many rows it was measured on.
        low: Lower end of its 95% interval; None where there is none.
        high: Upper end.
    """

    value: float
    rows: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Classified:
    """What was measured on labelled answers.

    Attributes:
        columns: `accuracy_score`, `precision`, `recall`, `f1_score` and `confusion_matrix`, and where the model gave
            probabilities `roc_auc_score` and `log_loss`, as Databricks' profile metrics table has them.
        measures: The same and more as one number each.
    """

    columns: Mapping[str, Any]
    measures: Mapping[str, Measure]


def classified(
    labels: Sequence[str], predictions: Sequence[str], probabilities: Floats, classes: Sequence[str]
) -> Classified:
    """Measure predictions against labels.

    Args:
        labels: What is right, at least one.
        predictions: What the model said.
        probabilities: What the model gave each class, shape (n, K); a row of NaN where it gave none.
        classes: The K classes that it gives probabilities of.

    Raises:
        InvalidData: There are no rows, or the sequences differ in length.
    """
    quality = measure(labels, predictions)
    rows = quality.rows
    by_class = {name: {c.label: getattr(c, name) for c in quality.classes} for name in ("precision", "recall", "f1")}
    weights = {c.label: float(c.rows) for c in quality.classes}
    columns: dict[str, Any] = {
        "accuracy_score": quality.accuracy,
        "precision": averaged(by_class["precision"], weights),
        "recall": averaged(by_class["recall"], weights),
        "f1_score": averaged(by_class["f1"], weights),
        "confusion_matrix": [
            {"prediction": said, "label": right, "count": times}
            for (right, said), times in sorted(Counter(zip(labels, predictions, strict=True)).items())
        ],
    }
    interval = quality.interval
    measures = {
        "accuracy": Measure(quality.accuracy, rows, interval.low, interval.high),
        "f1": Measure(quality.macro_f1, rows),
        "precision": Measure(columns["precision"]["macro"], rows),
        "recall": Measure(columns["recall"]["macro"], rows),
    }
    more, found = _by_probability(labels, predictions, probabilities, classes)
    return Classified(columns | more, measures | found)


def averaged(values: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, Any]:
    """A measure of each class, their mean, and their mean by how many rows each class has; NaN is left out."""
    known = {name: value for name, value in values.items() if not math.isnan(value)}
    total = sum(weights[name] for name in known)
    return {
        "one_vs_all": known,
        "macro": sum(known.values()) / len(known) if known else None,
        "weighted": sum(value * weights[name] for name, value in known.items()) / total if total else None,
    }


def _by_probability(
    labels: Sequence[str], predictions: Sequence[str], probabilities: Floats, classes: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Measure]]:
    """What needs probabilities, on the rows that have them."""
    known = ~np.isnan(probabilities).any(axis=1) if probabilities.size else np.zeros(len(labels), bool)
    if not known.any():
        return {}, {}
    place = {name: number for number, name in enumerate(classes)}
    right = np.array([place.get(label, -1) for label in labels])[known]
    said = np.array([place.get(name, -1) for name in predictions])[known]
    chances = probabilities[known]
    rows = len(right)
    areas = {name: area_under_roc(right == number, chances[:, number]) for name, number in place.items()}
    support = {name: float((right == number).sum()) for name, number in place.items()}
    roc_auc = averaged(areas, support)
    log_loss = float(-np.log(np.clip(_of(chances, right), _LEAST, 1)).mean())
    confidence = _of(chances, said)
    measures = {
        "log_loss": Measure(log_loss, rows),
        "calibration_error": Measure(calibration_error((right == said).tolist(), confidence.tolist()), rows),
    }
    if roc_auc["macro"] is None:
        return {"log_loss": log_loss}, measures
    return {"log_loss": log_loss, "roc_auc_score": roc_auc}, measures | {"roc_auc": Measure(roc_auc["macro"], rows)}


def _of(chances: Floats, classes: Any) -> Floats:
    """Each row's probability of its class; 0 for a class that has none."""
    return np.where(classes >= 0, chances[np.arange(len(chances)), np.maximum(classes, 0)], 0.0)
