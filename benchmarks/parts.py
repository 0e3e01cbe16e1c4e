"""What the benchmarks' commands have in common: parts, each in a folder of its own, a table of marks, and a report."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.serving.figures import Mark, markdown, table

Found = tuple[dict[str, Any], dict[str, str]]
"""Figures, and what has none → why."""
Part = Callable[[Path], Found]
"""Measures, in a folder."""


def arguments(name: str, says: str | None, parts: Sequence[str], quick: str) -> argparse.ArgumentParser:
    """The options that every command takes."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=says)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--markdown", action="store_true", help="print the table for docs/benchmarks.md, too")
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--only", action="append", choices=parts, help="measure this part only; may be said again")
    parser.add_argument("--work", type=Path, help="folder for what is made; its disk is the one that is measured")
    return parser


def measured(parts: Mapping[str, Part], folder: Path) -> Found:
    """Run one part after the other, each in a folder of its own name, and say which one is under way."""
    figures: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for name, part in parts.items():
        begun = time.perf_counter()
        print(f"{name} …", file=sys.stderr, end="", flush=True)
        (at := folder / name).mkdir()
        found, missing = part(at)
        figures |= found
        reasons |= missing
        print(f" {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    return figures, reasons


def report(found: Found, marks: Sequence[Mark], options: argparse.Namespace) -> None:
    """Print the table, and write the figures to the file that was asked for."""
    figures, reasons = found
    print(table(figures, reasons, marks))
    if options.markdown:
        print(f"\n{markdown(figures, marks)}")
    whole = {mark.figure: None for mark in marks} | figures | {"reasons": reasons, "machine": _machine()}
    if options.json:
        options.json.write_text(json.dumps(whole, indent=1) + "\n")


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
