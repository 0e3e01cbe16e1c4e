"""How right an endpoint's answers were in a window, as far as people, references and judges have said: the numbers of
its rows in `profile_metrics`.

Everything is measured anew from the answers of the window and from what was said of them until now, so that labels that
come weeks late change the window that they are about, and measuring twice changes nothing.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa

from noria.evaluation.agreement import agreement
from noria.evaluation.calibration import Calibration
from noria.evaluation.cbpe import Performance, estimate
from noria.evaluation.cells import Floats, Ints
from noria.evaluation.classified import Measure, classified
from noria.evaluation.profile import TABLE, Row, profile
from noria.evaluation.references import bleu
from noria.evaluation.states import ColumnState
from noria.monitoring.judged import Answer
from noria.settings.monitors import JUDGE

PREFIX = "quality."
"""What the column of a measure begins with."""
BAD, GOOD = "bad", "good"
"""What a judge and people call an answer, in the table of their agreement."""
EVERYONE, OTHER = "*", ":other"
_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """By what quality is told apart besides models.

    Attributes:
        keys: Of the slices, in the order in which answers have their values.
        values: Key → the values that are told apart; all others are `:other`.
    """

    keys: Sequence[str] = ()
    values: Mapping[str, Sequence[str]]


def quality_rows(
    answers: Sequence[Answer], slices: Slices, calibrations: Mapping[str, "ClassCalibration"], *, classifies: bool
) -> list[Row]:
    """The quality of a window's answers: of all, of each model, and of each slice of both.

    Args:
        answers: Of the window.
        slices: By what they are told apart, too.
        calibrations: `model/version` → how its probabilities are to be read; one that isn't there is taken at its word.
        classifies: Whether the answers are classes.

    Returns:
        Rows with `model_id`, `slice_key`, `slice_value` (empty for the whole) and `column_name`: `:table` with the
        columns that Databricks has for it, if anything was labelled, and `quality.NAME` for each measure.
    """
    rows = []
    for (model, key, value), found in _groups(answers, slices):
        place = {"model_id": model, "slice_key": key, "slice_value": value}
        columns, measures = _labelled(found) if classifies else ({}, _referenced(found))
        estimated = _estimated(found, calibrations) if classifies else ()
        rows += [place | row for row in (*_rows(columns, measures), *_scores(found), *estimated)]
    return rows


def _groups(answers: Sequence[Answer], slices: Slices) -> Iterator[tuple[tuple[str, str, str], list[Answer]]]:
    found: dict[tuple[str, str, str], list[Answer]] = {}
    for answer in answers:
        for model in (EVERYONE, answer.model):
            found.setdefault((model, "", ""), []).append(answer)
            for key, value in zip(slices.keys, answer.slices, strict=True):
                named = value if value in slices.values.get(key, ()) else OTHER
                found.setdefault((model, key, str(named)), []).append(answer)
    yield from sorted(found.items())


def _rows(columns: Mapping[str, Any], measures: Mapping[str, Measure]) -> Iterator[Row]:
    if columns:
        yield {"column_name": TABLE, **columns}
    for name, measure in measures.items():
        yield _row(name, measure)


def _row(name: str, measure: Measure) -> Row:
    return {
        "column_name": f"{PREFIX}{name}",
        "data_type": "double",
        "count": measure.rows,
        "avg": measure.value,
        "low": measure.low,
        "high": measure.high,
    }


# --- labels and references ------------------------------------------------------------------------------------------


def _labelled(answers: Sequence[Answer]) -> tuple[Mapping[str, Any], Mapping[str, Measure]]:
    found = [a for a in answers if a.said is not None and a.said.label is not None and a.prediction is not None]
    if not found:
        return {}, {}
    classes, chances = chances_of(found)
    labels = [a.said.label or "" for a in found if a.said is not None]
    measured = classified(labels, [a.prediction or "" for a in found], chances, classes)
    return measured.columns, measured.measures


def _referenced(answers: Sequence[Answer]) -> dict[str, Measure]:
    found = [(a.like, a.counts) for a in answers if a.like is not None and a.counts is not None]
    if not found:
        return {}
    likes = [like for like, _ in found]
    total: Ints = np.sum([counts for _, counts in found], axis=0)
    return {
        "exact_match": _mean([like.exact_match for like in likes]),
        "rouge1": _mean([like.rouge1 for like in likes]),
        "rouge2": _mean([like.rouge2 for like in likes]),
        "rougeL": _mean([like.rouge_l for like in likes]),
        "bleu": Measure(bleu(total), len(found)),
    }


def _mean(values: Sequence[float]) -> Measure:
    """A mean and its normal interval."""
    found = np.asarray(values, np.float64)
    mean, rows = float(found.mean()), found.size
    if rows < 2:
        return Measure(mean, rows)
    half = _Z * float(found.std(ddof=1)) / math.sqrt(rows)
    return Measure(mean, rows, max(0.0, mean - half), min(1.0, mean + half))


# --- scores of people and judges ------------------------------------------------------------------------------------


def _scores(answers: Sequence[Answer]) -> Iterator[Row]:
    """The profile of the scores that people gave, that each judge gave, and how far the two agree."""
    said = [(answer, answer.said) for answer in answers if answer.said is not None]
    people = [s.score for _, s in said if s.score is not None]
    if people:
        yield _profile("score", people)
    for judge in sorted({name for _, s in said for name in s.judges}):
        yield _profile(f"{JUDGE}{judge}", [s.judges[judge] for _, s in said if judge in s.judges])
        pairs = [(s.judges[judge], good) for a, s in said if judge in s.judges and (good := _good(a)) is not None]
        if pairs:
            yield from _agreement(f"{JUDGE}{judge}", pairs)


def _profile(name: str, scores: Sequence[float]) -> Row:
    interval = _mean(scores)
    state = ColumnState.of(f"{PREFIX}{name}", pa.array(scores, pa.float64()))
    return profile(state) | {"low": interval.low, "high": interval.high}


def _agreement(name: str, pairs: Sequence[tuple[float, float]]) -> Iterator[Row]:
    found = agreement([judge for judge, _ in pairs], [person for _, person in pairs])
    share = Measure(found.share, found.pairs, found.interval.low, found.interval.high)
    yield _row(f"{name}.agreement", share) | {"confusion_matrix": _expected([BAD, GOOD], found.table.T)}
    if not math.isnan(found.kappa):
        low, high = found.kappa_interval.low, found.kappa_interval.high
        yield _row(f"{name}.kappa", Measure(found.kappa, found.pairs, low, high))
    if not math.isnan(found.correlation):
        yield _row(f"{name}.correlation", Measure(found.correlation, found.pairs))


def _good(answer: Answer) -> float | None:
    """How good people call an answer: their score, else whether it is what they call right."""
    said = answer.said
    if said is None:
        return None
    if said.score is not None or said.label is None:
        return said.score
    if answer.prediction is not None:
        return float(answer.prediction == said.label)
    return answer.like.exact_match if answer.like is not None else None


# --- estimates without labels ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClassCalibration:
    """A calibration and the classes whose probabilities it is for, in its order."""

    classes: Sequence[str]
    calibration: Calibration


def chances_of(answers: Sequence[Answer], classes: Sequence[str] | None = None) -> tuple[Sequence[str], Floats]:
    """The classes that probabilities are given of, and the probabilities; NaN in the rows of answers without."""
    names = classes or sorted({name for a in answers if a.chances is not None for name in a.chances})
    rows = np.full((len(answers), len(names)), np.nan)
    for number, answer in enumerate(answers):
        if answer.chances is not None:
            rows[number] = [answer.chances.get(name, 0.0) for name in names]
    return names, rows


def _estimated(answers: Sequence[Answer], calibrations: Mapping[str, ClassCalibration]) -> Iterator[Row]:
    """CBPE of the answers that came with probabilities, each model's read by its own calibration."""
    known = [a for a in answers if a.chances is not None]
    classes, stated = chances_of(known)
    if len(classes) < 2:
        return
    worth = stated.copy()
    for model in {a.model for a in known}:
        calibrated = calibrations.get(model)
        if calibrated is None:
            continue
        mine = np.array([a.model == model for a in known])
        of_model = [a for a in known if a.model == model]
        applied = calibrated.calibration.apply(chances_of(of_model, calibrated.classes)[1])
        worth[mine] = 0.0
        for number, name in enumerate(calibrated.classes):
            if name in classes:
                worth[mine, classes.index(name)] = applied[:, number]
    said = np.array([classes.index(a.prediction or "") for a in known])
    yield from _estimates(classes, estimate(worth, said, stated))


def _estimates(classes: Sequence[str], found: Performance) -> Iterator[Row]:
    for name, measure in found.measures().items():
        if not math.isnan(measure.value):
            row = _row(f"estimated_{name}", Measure(measure.value, found.rows, measure.low, measure.high))
            yield row | ({"confusion_matrix": _expected(classes, found.confusion)} if name == "accuracy" else {})


def _expected(classes: Sequence[str], confusion: Floats | Ints) -> list[dict[str, Any]]:
    """A confusion matrix, label by prediction, in whole answers."""
    return [
        {"prediction": said, "label": right, "count": round(float(confusion[i, j]))}
        for i, right in enumerate(classes)
        for j, said in enumerate(classes)
    ]
