"""The job that measures a window's quality, in a process of the compute engine's."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

FUNCTION = "noria.bootstrap.quality_job:window_quality"
"""What a JobSpec calls it."""


def window_quality(
    *,
    tables: str,
    endpoint: str,
    start: str,
    end: str,
    classifies: bool,
    slices: Mapping[str, Sequence[str]],
    known: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Measure the quality of an endpoint's answers in a window.

    Args:
        tables: Where the tables are.
        endpoint: Its name.
        start: Of the window, ISO 8601.
        end: Of the window.
        classifies: Whether its answers are classes.
        slices: Key → the values of it that are told apart.
        known: `model/version` → what is known of its calibration (`classes`, `corners`, `tried_at`).

    Returns:
        `rows`: as `monitoring.quality.quality_rows` gives them. `calibrated`: what was learnt of versions whose
        calibration isn't known.
    """
    from noria.adapters.tables.delta import DeltaStore
    from noria.adapters.tables.parts import read_part
    from noria.domain.monitor import Window
    from noria.monitoring.calibrating import AGAIN, calibrate, calibration_of
    from noria.monitoring.judged import COLUMNS, answers, said_of
    from noria.monitoring.quality import Slices, quality_rows

    window = Window(datetime.fromisoformat(start), datetime.fromisoformat(end))
    store = DeltaStore(tables)
    view = store.view()

    def read(span: Window) -> Iterator["pa.Table"]:
        for part in store.parts("inference", endpoint, span.start, span.end, sys.maxsize):
            yield from read_part(part, COLUMNS)

    said = said_of(view, endpoint, window)
    wanted = classifies or bool(said)
    found = answers(read(window), window, said, classifies=classifies, slices=list(slices)) if wanted else []
    unknown = {a.model for a in found if a.chances is not None} - {
        model
        for model, kept in known.items()
        if kept["rows"] or window.end - datetime.fromisoformat(kept["tried_at"]) < AGAIN
    }
    learnt = calibrate(view, read, endpoint, window, sorted(unknown)) if unknown else {}
    calibrations = {
        model: each for model, kept in (dict(known) | learnt).items() if (each := calibration_of(kept)) is not None
    }
    rows = quality_rows(found, Slices(keys=list(slices), values=slices), calibrations, classifies=classifies)
    return {"rows": rows, "calibrated": learnt}
