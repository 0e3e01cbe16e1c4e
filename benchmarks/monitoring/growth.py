"""How much memory ten times as many records take."""

from pathlib import Path
from typing import Any

from benchmarks.monitoring import data
from benchmarks.monitoring.peers import SHIFT, Found, ourselves
from benchmarks.monitoring.running import Contender

ROWS = 10_000_000


def memory(folder: Path) -> Found:
    """Ten million records in twelve columns, streamed."""
    reference = data.write(folder / "reference.parquet", data.REFERENCE, 1)
    current = data.write(folder / "current.parquet", ROWS, 5, SHIFT)
    words = [str(reference), str(current), *data.CATEGORICAL]
    found = Contender("noria", ourselves, "by_noria", words).run()
    figures: dict[str, Any] = {"rss_mb_10m": found["peak_mb"], "seconds_10m": found["seconds"]}
    return figures, {}
