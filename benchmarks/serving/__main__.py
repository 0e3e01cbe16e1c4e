"""`python -m benchmarks.serving --json FILE [--quick]`: everything in one go, beside a table of the marks."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.parts import Found, Part, arguments, measured, report
from benchmarks.serving import gateways, scorers, soak, starts, streams
from benchmarks.serving.figures import MARKS
from benchmarks.serving.load import Load
from benchmarks.serving.rounds import Plan

PARTS = ("starts", "gateways", "streams", "scorers", "soak", "shipping")
QUICK, FULL = Plan(3, 0.8), Plan(7, 3.0)
SOAK_REQUESTS = {True: 20_000, False: 1_000_000}


def main() -> int:
    """Measure, print, and write the figures."""
    options = _options()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody's servers start from source each time
    with tempfile.TemporaryDirectory(prefix="noria-bench-", dir=options.work) as folder:
        figures, reasons = measured(_parts(Path(folder), options), Path(folder))
    if figures.get("ship_rows_per_s") and figures.get("requests_per_s"):
        figures["ship_vs_peak"] = figures["ship_rows_per_s"] / max(
            value for name, value in figures["requests_per_s"].items() if name.startswith("durable")
        )
    report((figures, reasons), MARKS, options)
    return 0


def _parts(work: Path, options: argparse.Namespace) -> dict[str, Part]:
    """The parts that were asked for."""
    plan: Plan = QUICK if options.quick else FULL
    peers = not options.without_peers
    (work / "model").mkdir()

    def loaded(measure: Callable[[Load, Path], Any]) -> Callable[[Path], Any]:
        def run(folder: Path) -> Any:
            with Load() as load:
                return measure(load, folder)

        return run

    def model() -> Path:
        folder = work / "model" / "bench"
        return folder if folder.exists() else scorers.model(folder)

    every: dict[str, Part] = {
        "starts": lambda folder: (starts.measure(folder, model(), 5 if options.quick else 15), {}),
        "gateways": loaded(lambda load, folder: gateways.measure(load, folder, plan, with_peers=peers)),
        "streams": loaded(lambda load, folder: (streams.measure(load, folder, plan), {})),
        "scorers": loaded(lambda load, folder: scorers.measure(load, folder, model(), plan, with_peers=peers)),
        "soak": loaded(lambda load, folder: (soak.measure(load, folder, SOAK_REQUESTS[options.quick]), {})),
        "shipping": _shipping,
    }
    return {name: every[name] for name in options.only or PARTS}


def _shipping(_folder: Path) -> Found:
    from benchmarks import shipping

    return dict(shipping.measure()), {}


def _options() -> argparse.Namespace:
    parser = arguments("serving", __doc__, PARTS, "under 4 minutes, once the peers are installed")
    parser.add_argument("--without-peers", action="store_true", help="leave the other servers out")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
