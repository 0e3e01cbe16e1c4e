"""`python -m benchmarks.serving --json FILE [--quick]`: everything in one go, beside a table of the marks."""

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

from benchmarks.serving import figures as marks
from benchmarks.serving import gateways, scorers, soak, starts, streams
from benchmarks.serving.load import Load
from benchmarks.serving.rounds import Plan

PARTS = ("starts", "gateways", "streams", "scorers", "soak", "shipping")
QUICK, FULL = Plan(3, 0.8), Plan(7, 3.0)
SOAK_REQUESTS = {True: 20_000, False: 1_000_000}


def main() -> int:
    """Measure, print, and write the figures."""
    options = _options()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody's servers start from source each time
    figures: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="noria-bench-", dir=options.work) as folder:
        for name, part in _parts(Path(folder), options).items():
            begun = time.perf_counter()
            print(f"{name} …", file=sys.stderr, end="", flush=True)
            found, missing = part()
            figures |= found
            reasons |= missing
            print(f" {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    if figures.get("ship_rows_per_s") and figures.get("requests_per_s"):
        figures["ship_vs_peak"] = figures["ship_rows_per_s"] / max(
            value for name, value in figures["requests_per_s"].items() if name.startswith("durable")
        )
    print(marks.table(figures, reasons))
    if options.markdown:
        print(f"\n{marks.markdown(figures)}")
    report = {mark.figure: None for mark in marks.MARKS} | figures | {"reasons": reasons, "machine": _machine()}
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _parts(work: Path, options: argparse.Namespace) -> dict[str, Callable[[], tuple[dict[str, Any], dict[str, str]]]]:
    """The parts that were asked for, each in a folder of its own."""
    plan: Plan = QUICK if options.quick else FULL
    peers = not options.without_peers
    for name in (*PARTS, "model"):
        (work / name).mkdir()

    def loaded(measure: Callable[[Load, Path], Any]) -> Callable[[Path], Any]:
        def run(folder: Path) -> Any:
            with Load() as load:
                return measure(load, folder)

        return run

    def model() -> Path:
        folder = work / "model" / "bench"
        return folder if folder.exists() else scorers.model(folder)

    every: dict[str, Callable[[Path], Any]] = {
        "starts": lambda folder: (starts.measure(folder, model(), 5 if options.quick else 15), {}),
        "gateways": loaded(lambda load, folder: gateways.measure(load, folder, plan, with_peers=peers)),
        "streams": loaded(lambda load, folder: (streams.measure(load, folder, plan), {})),
        "scorers": loaded(lambda load, folder: scorers.measure(load, folder, model(), plan, with_peers=peers)),
        "soak": loaded(lambda load, folder: (soak.measure(load, folder, SOAK_REQUESTS[options.quick]), {})),
        "shipping": _shipping,
    }
    return {name: (lambda part=every[name], at=work / name: part(at)) for name in options.only or PARTS}  # type: ignore[misc]


def _shipping(_folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    from benchmarks import shipping

    return dict(shipping.measure()), {}


def _machine() -> dict[str, Any]:
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--markdown", action="store_true", help="print the table for docs/benchmarks.md, too")
    parser.add_argument("--quick", action="store_true", help="under 4 minutes, once the peers are installed")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part only; may be said again")
    parser.add_argument("--without-peers", action="store_true", help="leave the other servers out")
    parser.add_argument("--work", type=Path, help="folder for what is made; its disk is the one that is measured")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
