"""`python -m benchmarks.loop --json FILE [--quick]`: everything in one go, beside a table of the marks."""

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

from benchmarks.loop import canaries, gates, lora, turns
from benchmarks.loop.canaries import Found
from benchmarks.serving.figures import Mark, markdown, table

MARKS = (
    Mark("alert_to_serving_minus_training_s", "≤", 10, "s from the alert until the new version serves, less training"),
    Mark("gate_throughput_vs_upstream", "≥", 0.9, "rows tried a second by the model server's own throughput"),
    Mark("rollback_s", "≤", 1, "s that noria rollback takes"),
    Mark("false_rollback_rate", "≤", 0.05, "equal candidates that are rolled back"),
    Mark("bad_canary_median_requests", "≤", 400, "requests until a candidate that fails in 10% is gone"),
    Mark("lora_tokens_per_s", "≥", 0, "tokens a second that LoRA learns from"),
    Mark("lora_accuracy_before", "≥", 0, "accuracy before LoRA"),
    Mark("lora_accuracy_after", "≥", 0, "accuracy after it"),
)
Part = Callable[[Path], Found]


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
            try:
                found, missing = part(at)
            except RuntimeError as error:
                found, missing = {}, {name: str(error)}
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
    every: dict[str, Part] = {
        "turns": lambda folder: turns.measure(folder, options.quick),
        "gates": lambda folder: gates.measure(folder, options.quick),
        "canaries": lambda _: canaries.measure(options.quick),
        "lora": lambda folder: lora.measure(folder, options.quick),
    }
    return {name: every[name] for name in options.only or every}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loop", description=__doc__)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--markdown", action="store_true", help="print the table for docs/benchmarks.md, too")
    parser.add_argument("--quick", action="store_true", help="under 4 minutes")
    parser.add_argument(
        "--only", action="append", choices=("turns", "gates", "canaries", "lora"), help="may be said again"
    )
    parser.add_argument("--work", type=Path, help="folder for what is made")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
