"""What other tools say of unchanged streams: Evidently and NannyML with their defaults, and a classical test a look.

Each look is a window of 100 rows that is compared with the reference, as their users schedule it. A stream counts as
alarmed once any of its 1,000 looks alarmed.
"""

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.serving.peers import installed
from benchmarks.statistics.counted import LAWS
from benchmarks.statistics.scored import FLOOR
from benchmarks.statistics.texts import chains

PACKAGES = {
    "evidently": ("evidently", "pandas<3"),
    "nannyml": ("nannyml>=0.13", "statsmodels", "pandas<3"),
}
"""What pip installs: neither can be imported with the newest pandas, and NannyML doesn't name statsmodels."""
KINDS = {"evidently": ("numeric", "categorical", "text"), "nannyml": ("numeric", "categorical", "score")}
REASONS = {
    ("evidently", "score"): "it has no test of a mean against a floor",
    ("nannyml", "text"): "it has no drift of texts",
    ("daily_test", "text"): "there is no classical test of texts",
}
LOOKS, ROWS = 1000, 100
REFERENCE = 5000
_QUIET = {"DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1", "PYTHONPATH": ""}
_TEXT_LOOKS = 200


@dataclass(frozen=True)
class Alarms:
    """The looks at which streams alarmed for the first time, None where they didn't, and how many each had."""

    first: Sequence[int | None]
    looks: Sequence[int]

    @property
    def rate(self) -> float | None:
        """Share of the streams that alarmed; None if there are none."""
        return sum(look is not None for look in self.first) / len(self.first) if self.first else None


def streams(kind: str, number: int, seed: int = 0) -> dict[str, Any]:
    """A reference and unchanged streams, as plain rows."""
    random = np.random.default_rng([seed, 77])
    draws: dict[str, Callable[[int], Any]] = {
        "numeric": lambda rows: random.normal(size=rows).tolist(),
        "categorical": lambda rows: random.choice(list("abcde"), rows, p=LAWS["classes"]).tolist(),
        "score": lambda rows: (random.random(rows) < FLOOR).astype(float).tolist(),
        "text": lambda rows: chains()[0].write(rows, random),
    }
    looks = _TEXT_LOOKS if kind == "text" else LOOKS
    draw = draws[kind]
    return {
        "kind": kind,
        "rows": ROWS,
        "reference": draw(REFERENCE),
        "streams": [draw(looks * ROWS) for _ in range(number)],
    }


def run(peer: str, kind: str, number: int, seconds: float, work: Path) -> Alarms:
    """What a peer says of unchanged streams; fewer of them where time is up.

    Raises:
        RuntimeError: It can't be installed or fails; says why.
    """
    python = installed(f"{peer}-monitors", PACKAGES[peer]) / "python"
    asked, told = work / f"{peer}-{kind}.json", work / f"{peer}-{kind}.out"
    asked.write_text(json.dumps(streams(kind, number)))
    script = Path(__file__).with_name(f"by_{peer}.py")
    done = subprocess.run(
        [python, script, asked, told, str(seconds)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **_QUIET},
        timeout=seconds + 120,
    )
    if done.returncode:
        raise RuntimeError(f"{peer} failed on {kind}: {done.stderr.strip()[-300:]}")
    found = json.loads(told.read_text())
    return Alarms([alarm for alarm, _ in found], [looks for _, looks in found])


def _ks(reference: Sequence[Any], now: Sequence[Any]) -> float:
    return float(stats.ks_2samp(reference, now, method="asymp").pvalue)


def _chi_squared(reference: Sequence[Any], now: Sequence[Any]) -> float:
    both = [[list(side).count(value) for value in "abcde"] for side in (reference, now)]
    return float(stats.chi2_contingency(both).pvalue)


def _binomial(_reference: Sequence[Any], now: Sequence[Any]) -> float:
    return float(stats.binomtest(int(sum(now)), len(now), FLOOR, alternative="less").pvalue)


DAILY: Mapping[str, Callable[[Sequence[Any], Sequence[Any]], float]] = {
    "numeric": _ks,
    "categorical": _chi_squared,
    "score": _binomial,
}
"""Kolmogorov-Smirnov, chi-squared and the exact binomial test, each at p < 0.05 at each look."""


def daily(kind: str, number: int) -> Alarms:
    """What a classical test at each look says of the same streams."""
    given = streams(kind, number)
    first: list[int | None] = []
    for stream in given["streams"]:
        windows = (stream[look * ROWS : (look + 1) * ROWS] for look in range(LOOKS))
        first.append(
            next((look for look, rows in enumerate(windows, 1) if DAILY[kind](given["reference"], rows) < 0.05), None)
        )
    return Alarms(first, [LOOKS] * number)
