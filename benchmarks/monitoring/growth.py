"""How much memory ten times as many records take, and what a new window costs as history grows."""

import statistics
from pathlib import Path
from typing import Any

from benchmarks.monitoring import data
from benchmarks.monitoring.peers import SHIFT, ourselves
from benchmarks.monitoring.running import Contender
from benchmarks.parts import Found

ROWS = 10_000_000
WINDOWS, RECORDS = 1000, 100
AT_ONCE = {True: 24, False: 1}
"""Windows of history that are made at a time, with `--quick` and without."""


def memory(folder: Path) -> Found:
    """Ten million records in twelve columns, streamed."""
    reference = data.write(folder / "reference.parquet", data.REFERENCE, 1)
    current = data.write(folder / "current.parquet", ROWS, 5, SHIFT)
    words = [str(reference), str(current), *data.CATEGORICAL]
    found = Contender("noria", ourselves, "by_noria", words).run()
    figures: dict[str, Any] = {"rss_mb_10m": found["peak_mb"], "seconds_10m": found["seconds"]}
    return figures, {}


def history(folder: Path, quick: bool, pictures: Path | None) -> Found:
    """What closing a window costs after ten windows and after a thousand, in turns; and the curve between."""
    words = [str(folder), str(WINDOWS), str(RECORDS), str(AT_ONCE[quick])]
    found = Contender("noria", ourselves, "history_by_noria", words).run()
    if pictures is not None:
        draw(found["curve"], pictures / "window-cost.svg")
    wall, cpu = (_ratio(found["long"], found["short"], which) for which in (0, 1))
    figures = {
        "window_cost_ratio_1000_vs_10": wall,
        "window_cpu_ratio_1000_vs_10": cpu,
        "window_ms": {
            name: statistics.median(seconds * 1000 for seconds, _ in found[name]) for name in ("short", "long")
        },
        "window_curve": found["curve"],
        "history_rows": found["rows"],
    }
    return figures, {}


def _ratio(long: list[list[float]], short: list[list[float]], which: int) -> float:
    """By means over a whole round of tidying: who writes the 32nd window also puts files together."""
    return statistics.fmean(cost[which] for cost in long) / statistics.fmean(cost[which] for cost in short)


def draw(curve: list[list[float]], file: Path) -> None:
    """The curve as a picture."""
    import altair as alt

    rows = [{"windows": before, "ms": seconds * 1000} for before, seconds in curve]
    chart = (
        alt.Chart(alt.Data(values=rows), width=640, height=240)
        .mark_line(point=True)
        .encode(
            alt.X("windows:Q").title("windows of history"),
            alt.Y("ms:Q").title("ms of the processor for one more window").scale(zero=True),
        )
    )
    chart.save(str(file))
