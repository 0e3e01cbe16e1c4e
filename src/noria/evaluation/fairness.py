"""Whether a classifier is as right for one group as for another, by Fairlearn's MetricFrame.

A group with few rows swings by chance, so it is listed with its size and interval but not judged, and neither are
rows whose group nobody gave. The gap of two groups is never zero even when nothing is wrong, hence the permutation
test beside it (STATISTICS: a bootstrap interval of max − min excludes zero in every null run).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from noria.domain.errors import InvalidData
from noria.evaluation.quality import Interval, wilson

NO_GROUP = "(not given)"
"""Stands for an empty group."""
OVERALL = "all"
"""Stands for all rows together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupQuality:
    """One group's rows.

    Attributes:
        group: Its name.
        rows: How many rows it has.
        judged: Whether it has enough rows to be compared.
        accuracy: Share of right answers.
        interval: 95% Wilson interval of the accuracy.
        macro_f1: Mean F1 over the classes that the group has.
        selection: Class → share of the group's rows that were given it, every class named.
    """

    group: str
    rows: int
    judged: bool
    accuracy: float
    interval: Interval
    macro_f1: float
    selection: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessTable:
    """Quality by group.

    Attributes:
        overall: All rows together.
        groups: Largest first.
        min_rows: Rows that a group needs to be judged.
        p_value: Probability of a gap at least this large if being right had nothing to do with the group;
            1 if fewer than two groups are judged.
    """

    overall: GroupQuality
    groups: tuple[GroupQuality, ...]
    min_rows: int
    p_value: float

    @property
    def judged(self) -> tuple[GroupQuality, ...]:
        """The groups that are large enough to compare."""
        return tuple(g for g in self.groups if g.judged)

    @property
    def gap(self) -> float:
        """Largest difference in accuracy between two judged groups; 0 if there are fewer than two."""
        accuracies = [g.accuracy for g in self.judged]
        return max(accuracies) - min(accuracies) if accuracies else 0.0

    @property
    def worst(self) -> GroupQuality | None:
        """The judged group with the lowest accuracy."""
        return min(self.judged, key=lambda g: g.accuracy, default=None)

    @property
    def best(self) -> GroupQuality | None:
        """The judged group with the highest accuracy."""
        return max(self.judged, key=lambda g: g.accuracy, default=None)

    def to_rows(self) -> list[dict[str, Any]]:
        """One JSON object a group, all rows together last."""
        return [
            {
                "group": g.group,
                "rows": g.rows,
                "judged": g.judged,
                "accuracy": g.accuracy,
                "accuracy_low": g.interval.low,
                "accuracy_high": g.interval.high,
                "macro_f1": g.macro_f1,
                **{f"selection_{label}": share for label, share in g.selection.items()},
            }
            for g in (*self.groups, self.overall)
        ]

    def numbers(self) -> dict[str, float]:
        """What a gate, MLflow and a card keep of it."""
        return {
            "group_gap": self.gap,
            "group_gap_p_value": self.p_value,
            "groups_judged": float(len(self.judged)),
            "groups_too_small": float(len(self.groups) - len(self.judged)),
        } | ({"worst_group_accuracy": self.worst.accuracy} if self.worst else {})


def assess(
    labels: Sequence[str],
    predictions: Sequence[str],
    groups: Sequence[str | None],
    min_rows: int = 50,
    seed: int = 0,
) -> FairnessTable:
    """Compare the groups of labelled rows.

    Args:
        labels: What is right.
        predictions: What the model said.
        groups: Which group each row belongs to; empty or None where nobody said.
        min_rows: Smaller groups are listed, not judged.
        seed: Of the permutation test.

    Raises:
        InvalidData: There are no rows, or the sequences differ in length.
    """
    if not len(labels) or not len(labels) == len(predictions) == len(groups):
        raise InvalidData(
            f"{len(labels)} labels, {len(predictions)} predictions and {len(groups)} groups can't be compared.",
            "Give one prediction and one group for each label, in the same order, and at least one row.",
        )
    named = np.array([g or NO_GROUP for g in groups], dtype=object)
    right, said = np.asarray(labels, dtype=object), np.asarray(predictions, dtype=object)
    classes = sorted({*labels, *predictions})
    frame = _frame(right, said, named, classes)
    table = [
        _group(str(name), row, classes, judged=name != NO_GROUP and row["rows"] >= min_rows)
        for name, row in frame.by_group.iterrows()
    ]
    table.sort(key=lambda g: (-g.rows, g.group))
    judged = [g for g in table if g.judged]
    return FairnessTable(
        overall=_group(OVERALL, frame.overall, classes, judged=False),
        groups=tuple(table),
        min_rows=min_rows,
        p_value=permutation_p_value([g.rows for g in judged], [round(g.accuracy * g.rows) for g in judged], seed=seed),
    )


def _frame(right: Any, said: Any, groups: Any, classes: Sequence[str]) -> Any:
    """Fairlearn's MetricFrame of every measure; imported here because it brings pandas and scikit-learn."""
    from fairlearn.metrics import MetricFrame, count
    from sklearn.metrics import accuracy_score, f1_score

    def macro_f1(y_true: Any, y_pred: Any) -> float:
        return float(f1_score(y_true, y_pred, average="macro", zero_division=0))

    def selection(label: str) -> Any:
        return lambda _y_true, y_pred: float(np.mean(np.asarray(y_pred) == label))

    measures = {"rows": count, "accuracy": accuracy_score, "macro_f1": macro_f1}
    measures |= {f"selection_{i}": selection(label) for i, label in enumerate(classes)}
    return MetricFrame(metrics=measures, y_true=right, y_pred=said, sensitive_features=groups)


def _group(name: str, row: Any, classes: Sequence[str], *, judged: bool) -> GroupQuality:
    rows, accuracy = int(row["rows"]), float(row["accuracy"])
    return GroupQuality(
        group=name,
        rows=rows,
        judged=bool(judged),
        accuracy=accuracy,
        interval=wilson(round(accuracy * rows), rows),
        macro_f1=float(row["macro_f1"]),
        selection={label: float(row[f"selection_{i}"]) for i, label in enumerate(classes)},
    )


def permutation_p_value(rows: Sequence[int], correct: Sequence[int], rounds: int = 2000, seed: int = 0) -> float:
    """Test that being right has nothing to do with the group, by the gap between best and worst.

    Shuffling the right answers over all rows gives each group a multivariate hypergeometric count, which is drawn
    directly. The result is a valid p-value for any number of rounds (Phipson & Smyth 2010).

    Args:
        rows: Rows of each group, none empty.
        correct: Right answers of each group.
        rounds: Shuffles.
        seed: Of the shuffles.
    """
    if len(rows) < 2:
        return 1.0
    sizes, hits = np.asarray(rows), np.asarray(correct)
    shares = np.random.default_rng(seed).multivariate_hypergeometric(sizes, int(hits.sum()), size=rounds) / sizes
    gaps = shares.max(axis=1) - shares.min(axis=1)
    seen = float((hits / sizes).max() - (hits / sizes).min())
    return float((1 + np.sum(gaps >= seen - 1e-12)) / (1 + rounds))


def fairness_chart(table: FairnessTable, title: str) -> dict[str, Any]:
    """Vega-Lite specification: accuracy of each group with its interval and size, and a line for all rows."""
    rows = [
        {
            "group": f"{g.group} ({g.rows})",
            "accuracy": g.accuracy,
            "low": g.interval.low,
            "high": g.interval.high,
            "judged": "compared" if g.judged else f"too small to compare (< {table.min_rows}, or no group)",
        }
        for g in table.groups
    ]
    group = {"field": "group", "type": "nominal", "sort": [r["group"] for r in rows], "title": None}
    share = {"type": "quantitative", "scale": {"domain": [0, 1]}, "title": "accuracy, with 95% interval"}
    colour = {
        "field": "judged",
        "type": "nominal",
        "title": None,
        "scale": {"domain": list(dict.fromkeys(r["judged"] for r in rows)), "range": _colours(rows)},
        "legend": {"orient": "bottom", "labelLimit": 0},
    }
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": title,
        "width": 480,
        "height": {"step": 26},
        "data": {"values": rows},
        "layer": [
            {
                "mark": {"type": "bar", "height": 14},
                "encoding": {"y": group, "x": {"field": "accuracy", **share}, "color": colour},
            },
            {
                "mark": {"type": "rule", "color": "#333333"},
                "encoding": {"y": group, "x": {"field": "low", **share}, "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "rule", "strokeDash": [4, 4], "color": "#333333"},
                "encoding": {"x": {"datum": table.overall.accuracy, "type": "quantitative"}},
            },
        ],
    }


def _colours(rows: Sequence[dict[str, Any]]) -> list[str]:
    return ["#2a7f86" if judged == "compared" else "#b9c4c9" for judged in dict.fromkeys(r["judged"] for r in rows)]
