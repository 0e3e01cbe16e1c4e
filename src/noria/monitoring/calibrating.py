"""Learning how a version's probabilities are to be read, from the first of its answers that people labelled."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from noria.domain.monitor import Window
from noria.evaluation.calibration import Calibration, calibration_if_needed
from noria.monitoring.judged import Answer, answers, said_of
from noria.monitoring.quality import ClassCalibration, chances_of
from noria.ports import RecordView

LEAST = 300
"""Labelled answers that it takes."""
BACK = timedelta(days=30)
"""How far back they are looked for."""
AGAIN = timedelta(days=1)
"""How long after a try that found too few the next one comes."""


def calibrate(
    view: RecordView,
    read: Callable[[Window], Iterable[pa.Table]],
    endpoint: str,
    until: Window,
    models: Iterable[str],
) -> dict[str, Mapping[str, Any]]:
    """Learn the calibrations of versions from what was labelled until the end of a window.

    Args:
        view: The tables.
        read: Reads the endpoint's rows of the inference table in a span of time.
        endpoint: Its name.
        until: The window.
        models: `model/version` of each.

    Returns:
        `model/version` → `classes`, `corners` (empty if the probabilities are best left as they are) and `rows` (0 if
        there are too few labelled answers).
    """
    span = Window(until.end - BACK, until.end)
    labelled = {name: said for name, said in said_of(view, endpoint, span).items() if said.label is not None}
    found: Sequence[Answer] = ()
    if len(labelled) >= LEAST:
        found = answers(read(span), span, labelled, classifies=True, unjudged=False)
    return {model: _learnt([answer for answer in found if answer.model == model]) for model in models}


def _learnt(found: Sequence[Answer]) -> Mapping[str, Any]:
    known = [a for a in found if a.chances is not None and a.said is not None and a.said.label in a.chances]
    classes, chances = chances_of(known)
    if len(known) < LEAST or len(classes) < 2:
        return {"classes": [], "corners": [], "rows": 0}
    labels = np.array([classes.index(a.said.label) for a in known if a.said is not None and a.said.label is not None])
    calibration = calibration_if_needed(chances, labels)
    corners = [] if calibration is None else calibration.to_json()
    return {"classes": list(classes), "corners": corners, "rows": len(known)}


def calibration_of(kept: Mapping[str, Any]) -> ClassCalibration | None:
    """A calibration from its parts; None where probabilities are taken as they are."""
    if not kept["corners"]:
        return None
    return ClassCalibration(list(kept["classes"]), Calibration.from_json(list(kept["corners"])))
