"""Beside Evidently and NannyML, each in a virtual environment of its own below `.noria-bench/`.

Neither runs with what it says it needs. Evidently 0.7 imports names that pandas 3 no longer has; NannyML 0.13 imports
statsmodels and doesn't ask for it. The packages here are what it takes.
"""

import sys
from pathlib import Path
from typing import Any

from benchmarks.monitoring import data
from benchmarks.monitoring.running import Contender, Measured, alternate, median, ratio
from benchmarks.parts import Found
from benchmarks.serving.peers import installed

EVIDENTLY = ("evidently", "pandas<3", "pyarrow")
NANNYML = ("nannyml", "pandas<3", "statsmodels")
ROWS = 1_000_000
CHUNKS = 20
SHIFT = 0.2


def evidently(folder: Path, rounds: int, with_peers: bool) -> Found:
    """A million records in twelve columns against 50,000: profiled and tested."""
    reference = data.write(folder / "reference.parquet", data.REFERENCE, 1)
    current = data.write(folder / "current.parquet", ROWS, 2, SHIFT)
    words = [str(reference), str(current), *data.CATEGORICAL]
    ours = Contender("noria", ourselves, "by_noria", words)
    peer = Contender("evidently", lambda: installed("evidently", EVIDENTLY) / "python", "by_evidently", words)
    mine, theirs, missing = alternate(ours, peer, rounds) if with_peers else ([ours.run()], [], "left out")
    figures = {
        "speedup_vs_evidently_1m": ratio(theirs, mine, "seconds"),
        "memory_vs_evidently_1m": ratio(mine, theirs, "peak_mb"),
        "profile_1m": _details(mine, theirs, "evidently"),
        "alarms_1m": mine[0]["alarms"],
    }
    return figures, _reasons(missing, "speedup_vs_evidently_1m", "memory_vs_evidently_1m")


def nannyml(folder: Path, rounds: int, with_peers: bool) -> Found:
    """Accuracy, precision, recall, F1 and ROC AUC without labels: a million answers in twenty chunks."""
    reference = data.write_classified(folder / "reference.parquet", data.REFERENCE, 3)
    current = data.write_classified(folder / "current.parquet", ROWS, 4)
    words = [str(reference), str(current), str(CHUNKS)]
    ours = Contender("noria", ourselves, "cbpe_by_noria", words)
    peer = Contender("nannyml", lambda: installed("nannyml", NANNYML) / "python", "cbpe_by_nannyml", words)
    mine, theirs, missing = alternate(ours, peer, rounds) if with_peers else ([ours.run()], [], "left out")
    figures = {
        "speedup_vs_nannyml_cbpe_1m": ratio(theirs, mine, "seconds"),
        "cbpe_1m": _details(mine, theirs, "nannyml"),
        "cbpe_largest_difference": _difference(mine[0], theirs[0]) if theirs else None,
    }
    return figures, _reasons(missing, "speedup_vs_nannyml_cbpe_1m")


def ourselves() -> Path:
    """The Python that runs this."""
    return Path(sys.executable)


def _details(mine: list[Measured], theirs: list[Measured], peer: str) -> dict[str, Any]:
    named = {"noria": mine, peer: theirs}
    wanted = ("seconds", "cpu_s", "peak_mb")
    return {name: {each: median(found, each) for each in wanted} for name, found in named.items() if found}


def _difference(mine: Measured, theirs: Measured) -> float:
    """The largest between two estimates of the same measure."""
    pairs = [
        (a, b) for name, values in theirs["values"].items() for a, b in zip(mine["values"][name], values, strict=True)
    ]
    return max(abs(a - b) for a, b in pairs)


def _reasons(missing: str, *figures: str) -> dict[str, str]:
    return dict.fromkeys(figures, missing) if missing else {}
