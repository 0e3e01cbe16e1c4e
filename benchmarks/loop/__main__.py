"""`python -m benchmarks.loop --json FILE [--quick]`: everything in one go, beside a table of the marks."""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.loop import canaries, gates, lora, turns
from benchmarks.parts import Found, Part, arguments, measured, report
from benchmarks.serving.figures import Mark

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
PARTS = ("turns", "gates", "canaries", "lora")


def main() -> int:
    """Measure, print, and write the figures."""
    options = arguments("loop", __doc__, PARTS, "under 4 minutes").parse_args()
    with tempfile.TemporaryDirectory(prefix="noria-bench-", dir=options.work) as folder:
        found = measured(_parts(options), Path(folder))
    report(found, MARKS, options)
    return 0


def _parts(options: argparse.Namespace) -> dict[str, Part]:
    every: dict[str, Part] = {
        "turns": lambda folder: turns.measure(folder, options.quick),
        "gates": lambda folder: gates.measure(folder, options.quick),
        "canaries": lambda _: canaries.measure(options.quick),
        "lora": lambda folder: lora.measure(folder, options.quick),
    }
    return {name: _or_why(name, every[name]) for name in options.only or every}


def _or_why(name: str, part: Part) -> Part:
    """A part whose failure leaves its figures out and says so; the others are measured all the same."""

    def measure(folder: Path) -> Found:
        try:
            return part(folder)
        except RuntimeError as error:
            return {}, {name: str(error)}

    return measure


if __name__ == "__main__":
    sys.exit(main())
