"""What is kept of how right a version is: the calibration of its probabilities."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """How a version's probabilities are to be read, learnt once from its first labelled answers and then kept.

    Attributes:
        id: `endpoint:model/version`.
        endpoint: Endpoint that it answers for.
        classes: What it gives probabilities of, in the order of the corners.
        corners: `evaluation.calibration.Calibration.to_json`; empty where the probabilities are best left as they are,
            or nothing is known yet.
        rows: Labelled answers that it was learnt from; 0 if there were not enough when it was last tried.
        tried_at: End of the window when it was learnt, or last tried.
    """

    id: str
    endpoint: str
    classes: tuple[str, ...] = ()
    corners: tuple[Any, ...] = ()
    rows: int = 0
    tried_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackCursor:
    """How far feedback was looked through for windows that it is about. `id` is the endpoint's name.

    Attributes:
        seen_until: For windows of the endpoint's own length.
        longer_until: For those that are summed from them.
    """

    id: str
    seen_until: datetime
    longer_until: datetime
