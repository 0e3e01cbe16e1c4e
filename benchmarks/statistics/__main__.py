"""`python -m benchmarks.statistics --json FILE [--quick]`: false alarms and delays, ours and others'."""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.statistics import figures as shown
from benchmarks.statistics import kinds, others, pictures
from benchmarks.statistics.counted import numbers
from benchmarks.statistics.kinds import FULL, KINDS, LINE, LOOKS, QUICK, ROWS, Plan
from noria.evaluation.quality import wilson

PICTURES = Path(__file__).parents[2] / "docs/pictures"
_NAMES = {
    "evidently": "Evidently, defaults",
    "nannyml": "NannyML, defaults",
    "daily_test": "Kolmogorov-Smirnov at each look",
}


def main() -> int:
    """Simulate, print, and write the figures."""
    options = _options()
    plan = QUICK if options.quick else FULL
    wanted = options.only or list(KINDS)
    report: dict[str, Any] = dict.fromkeys(KINDS)
    reasons: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="noria-bench-") as folder, ThreadPoolExecutor(1) as beside:
        asked = {} if options.without_peers else _ask_others(beside, plan, wanted, Path(folder))
        for kind in wanted:
            begun = time.perf_counter()
            print(f"{kind} …", file=sys.stderr, end="", flush=True)
            try:
                report[kind] = KINDS[kind](plan)
            except RuntimeError as error:
                reasons[kind] = str(error)
            print(f" {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
        told = _told(asked, reasons)
    for (peer, kind), alarms in told.items():
        if report[kind] is not None:
            report[kind].setdefault("peers", {})[peer] = _figures(alarms)
    report |= {"reasons": reasons, "settings": shown.settings(), "machine": {"cores": os.cpu_count()}}
    print(shown.table(report))
    if options.markdown:
        print(f"\n{shown.markdown(report)}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if options.pictures:
        _draw(told)
    return 0


def _ask_others(
    beside: ThreadPoolExecutor, plan: Plan, wanted: list[str], work: Path
) -> dict[tuple[str, str], Future[others.Alarms]]:
    """Others run in processes of their own while we simulate; one after the other."""
    asked = {}
    for peer, watches in others.KINDS.items():
        for kind in filter(wanted.__contains__, watches):
            asked[peer, kind] = beside.submit(others.run, peer, kind, plan.peer_streams, plan.peer_seconds, work)
    for kind in filter(wanted.__contains__, others.DAILY):
        asked["daily_test", kind] = beside.submit(others.daily, kind, 4 * plan.peer_streams)
    return asked


def _told(
    asked: Mapping[tuple[str, str], Future[others.Alarms]], reasons: dict[str, str]
) -> dict[tuple[str, str], others.Alarms]:
    """What they said; the reasons of those that didn't are added."""
    told = {}
    if asked:
        reasons |= {f"{peer} on {kind}": why for (peer, kind), why in others.REASONS.items()}
    for (peer, kind), future in asked.items():
        try:
            told[peer, kind] = future.result()
        except Exception as error:  # whatever fails, the other figures stay
            reasons[f"{peer} on {kind}"] = str(error)[-300:]
    return told


def _figures(alarms: others.Alarms) -> dict[str, Any]:
    raised, streams = sum(look is not None for look in alarms.first), len(alarms.first)
    interval = wilson(raised, streams)
    return {
        "alarm_rate_null": alarms.rate,
        "alarms": raised,
        "streams": streams,
        "looks": max(alarms.looks, default=0),
        "interval": [interval.low, interval.high],
    }


def _draw(told: Mapping[tuple[str, str], others.Alarms]) -> None:
    ours = [
        numbers(np.random.default_rng([91, run]), pictures.REFERENCE).first_alarm(LINE, LOOKS, ROWS)
        for run in range(200)
    ]
    first = {"Noria": [None if rows is None else rows // kinds.ROWS for rows in ours]}
    first |= {name: told[peer, "numeric"].first for peer, name in _NAMES.items() if (peer, "numeric") in told}
    pictures.save(pictures.evidence(), PICTURES / "evidence.svg")
    pictures.save(pictures.false_alarms(first), PICTURES / "false-alarms.svg")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.statistics", description=__doc__)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument(
        "--markdown", action="store_true", help="print the tables for docs/explanation/statistics.md, too"
    )
    parser.add_argument("--pictures", action="store_true", help="draw the pictures below docs/pictures anew")
    parser.add_argument("--quick", action="store_true", help="under 4 minutes, once the peers are installed")
    parser.add_argument("--only", action="append", choices=KINDS, help="this kind only; may be said again")
    parser.add_argument("--without-peers", action="store_true", help="leave Evidently, NannyML and classical tests out")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
