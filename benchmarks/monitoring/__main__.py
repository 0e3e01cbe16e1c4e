"""`python -m benchmarks.monitoring --json FILE [--quick]`: everything in one go, beside a table of the marks."""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.monitoring import growth, peers
from benchmarks.serving.figures import Mark, markdown, table

MARKS = (
    Mark("speedup_vs_evidently_1m", "≥", 30, "× Evidently's DataDriftPreset: 1M records, 12 columns"),
    Mark("memory_vs_evidently_1m", "≤", 0.25, "peak memory by Evidently's, the same"),
    Mark("rss_mb_10m", "≤", 1000, "MB at the peak: 10M records in 12 columns, streamed"),
    Mark("window_cost_ratio_1000_vs_10", "≤", 1.5, "a new window's cost after 1,000 windows by that after 10"),
    Mark("speedup_vs_nannyml_cbpe_1m", "≥", 5, "× NannyML's CBPE: five measures of 1M answers in 20 chunks"),
)  # fmt: skip
PARTS = ("evidently", "nannyml", "memory", "history")
ROUNDS = {True: 2, False: 5}
Part = Callable[[Path], peers.Found]


def main() -> int:
    """Measure, print, and write the figures."""
    options = _options()
    figures: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="noria-bench-", dir=options.work) as folder:
        for name, part in _parts(options).items():
            begun = time.perf_counter()
            print(f"{name} …", file=sys.stderr, end="", flush=True)
            (at := Path(folder, name)).mkdir()
            found, missing = part(at)
            figures |= found
            reasons |= missing
            print(f" {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    print(table(figures, reasons, MARKS))
    if options.markdown:
        print(f"\n{markdown(figures, MARKS)}")
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
    report = {mark.figure: None for mark in MARKS} | figures | {"reasons": reasons, "machine": machine}
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitoring", description=__doc__)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--markdown", action="store_true", help="print the table for docs/benchmarks.md, too")
    parser.add_argument("--quick", action="store_true", help="under 4 minutes, once the peers are installed")
    parser.add_argument("--only", action="append", choices=PARTS, help="may be said again")
    parser.add_argument("--without-peers", action="store_true", help="leave Evidently and NannyML out")
    parser.add_argument("--pictures", type=Path, help="folder to draw the curve of a new window's cost into")
    parser.add_argument("--work", type=Path, help="folder for what is made")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
