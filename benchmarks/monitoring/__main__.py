"""`python -m benchmarks.monitoring --json FILE [--quick]`: everything in one go, beside a table of the marks."""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.monitoring import growth, peers
from benchmarks.parts import Part, arguments, measured, report
from benchmarks.serving.figures import Mark

MARKS = (
    Mark("speedup_vs_evidently_1m", "≥", 30, "× Evidently's DataDriftPreset: 1M records, 12 columns"),
    Mark("memory_vs_evidently_1m", "≤", 0.25, "peak memory by Evidently's, the same"),
    Mark("rss_mb_10m", "≤", 1000, "MB at the peak: 10M records in 12 columns, streamed"),
    Mark("window_cost_ratio_1000_vs_10", "≤", 1.5, "a new window's cost after 1,000 windows by that after 10"),
    Mark("speedup_vs_nannyml_cbpe_1m", "≥", 5, "× NannyML's CBPE: five measures of 1M answers in 20 chunks"),
)  # fmt: skip
PARTS = ("evidently", "nannyml", "memory", "history")
ROUNDS = {True: 2, False: 5}


def main() -> int:
    """Measure, print, and write the figures."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="noria-bench-", dir=options.work) as folder:
        found = measured(_parts(options), Path(folder))
    report(found, MARKS, options)
    return 0


def _parts(options: argparse.Namespace) -> dict[str, Part]:
    rounds, with_peers = ROUNDS[options.quick], not options.without_peers
    every: dict[str, Part] = {
        "evidently": lambda folder: peers.evidently(folder, rounds, with_peers),
        "nannyml": lambda folder: peers.nannyml(folder, rounds + 1, with_peers),
        "memory": growth.memory,
        "history": lambda folder: growth.history(folder, options.quick, options.pictures),
    }
    return {name: every[name] for name in options.only or every}


def _options() -> argparse.Namespace:
    parser = arguments("monitoring", __doc__, PARTS, "under 4 minutes, once the peers are installed")
    parser.add_argument("--without-peers", action="store_true", help="leave Evidently and NannyML out")
    parser.add_argument("--pictures", type=Path, help="folder to draw the curve of a new window's cost into")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
