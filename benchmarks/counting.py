"""What counting costs from the table to the states, on each engine: seconds, and the memory of every process.

`python -m benchmarks.counting --rows 10000000` writes an inference table of that many records with the real store (a
classifier's: short texts in JSON bodies, over a day), counts them into hourly windows as monitors do, with all measures
of texts, and prints records a second and the peak of the worker and of the engine's processes. `--read` only reads.
"""

import argparse
import json
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import pyarrow as pa

from noria.adapters.compute import LocalCompute
from noria.adapters.spark import SparkCompute
from noria.adapters.tables.delta import DeltaStore
from noria.adapters.tables.parts import read_part
from noria.domain.monitor import Window
from noria.evaluation.baseline import Baseline
from noria.monitoring.computing import COLUMNS, EVERYONE, TABLE, Key, totals
from noria.monitoring.counting import Counting
from noria.monitoring.gathering import PART_BYTES, Progress
from noria.ports import ComputeEngine
from noria.settings import Endpoint
from noria.tables import INFERENCE

BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
HOURS = 24
ENDPOINT = Endpoint.model_validate({"task": "classification", "policy": "-", "training": {"data": "-"}})
PIECE = 100_000
"""Records that are appended at a time, as the worker's turns are put together."""
_WORDS = [f"{a}{b}" for a in ("flight", "gate", "crew", "bag", "seat", "late", "meal", "ticket") for b in range(40)]
_LABELS = np.array(["praise", "complaint", "refund", "delay"])


def batch(rows: int, seed: int, since: float, seconds: float) -> pa.Table:
    """Records whose times are spread over a span that begins so many seconds after BEGIN."""
    rng, words = np.random.default_rng(seed), random.Random(seed)
    begin = int(BEGIN.timestamp() * 1e6)
    times = np.sort(begin + ((since + rng.random(rows) * seconds) * 1e6).astype(np.int64))
    texts = [" ".join(words.choices(_WORDS, k=words.randint(3, 12))) for _ in range(rows)]
    said = _LABELS[rng.integers(0, len(_LABELS), rows)]
    made = {
        "databricks_request_id": pa.array([f"{seed:08x}{number:024x}" for number in range(rows)]),
        "request_time": pa.array(times, pa.timestamp("us", "UTC")),
        "request_date": pa.array(times, pa.timestamp("us", "UTC")).cast(pa.date32()),
        "status_code": pa.array(np.full(rows, 200), pa.int32()),
        "execution_duration_ms": pa.array(rng.lognormal(4, 0.6, rows).astype(np.int64)),
        "request": pa.array([f'{{"input": "{text}"}}' for text in texts]),
        "response": pa.array([f'{{"predictions": ["{label}"]}}' for label in said]),
        "requester": pa.array(np.char.add("team-", rng.integers(0, 5, rows).astype(str))),
        "endpoint": pa.array(["triage"] * rows),
        "model_name": pa.array(["triage"] * rows),
        "model_version": pa.array(["1"] * rows),
        "route": pa.array(["champion"] * rows),
        "outcome": pa.array(["answered"] * rows),
    }
    return pa.table([made.get(f.name, pa.nulls(rows, f.type)) for f in INFERENCE], schema=INFERENCE)


def fill(store: DeltaStore, rows: int) -> None:
    """So many records over a day."""
    for number, begin in enumerate(range(0, rows, PIECE), 1):
        size = min(PIECE, rows - begin)
        span = HOURS * 3600 / rows
        store.append("inference", batch(size, number, begin * span, size * span), "benchmark", number)


def measure(engine: ComputeEngine, store: DeltaStore, rows: int, *, read: bool = False) -> dict[str, float]:
    """Count all records and say how that went.

    Returns:
        `seconds`, `rows_per_s`; `worker_mb` and `engine_mb`, the peaks of this process and of those that it started;
        `together_mb`, of the sum at one moment.
    """
    windows = [Window(BEGIN + timedelta(hours=n), BEGIN + timedelta(hours=n + 1)) for n in range(HOURS)]
    texts = [json.loads(body)["input"] for body in batch(4000, 0, 0, 1)["request"].to_pylist()]
    baseline = Baseline.fit(texts[:2000], texts[2000:], list(_LABELS) * 500)
    with Peak() as peak:
        began = time.perf_counter()
        if read:
            counted = _read(store)
        else:
            counting = Counting(store, engine)
            states = totals(counting.states("triage", ENDPOINT, ENDPOINT.monitors, windows, baseline, _shown))
            counted = sum(states[Key(window, EVERYONE, "", "", TABLE)].count for window in windows)
        seconds = time.perf_counter() - began
    if counted != rows:
        raise RuntimeError(f"{counted} of {rows} records were counted")
    return {"rows": rows, "seconds": round(seconds, 1), "rows_per_s": round(rows / seconds), **peak.figures()}


class Peak:
    """The memory of this process and of all that it started, looked at ten times a second."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._worker = self._engine = self._together = 0

    def __enter__(self) -> "Peak":
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def figures(self) -> dict[str, float]:
        """The peaks, in megabytes."""
        named = {"worker_mb": self._worker, "engine_mb": self._engine, "together_mb": self._together}
        return {name: round(size / 1e6) for name, size in named.items()}

    def _look(self) -> None:
        me = psutil.Process()
        while not self._over.wait(0.1):
            mine, theirs = me.memory_info().rss, sum(_sizes(me))
            self._worker, self._engine = max(self._worker, mine), max(self._engine, theirs)
            self._together = max(self._together, mine + theirs)


def _sizes(process: psutil.Process) -> Iterator[int]:
    for child in process.children(recursive=True):
        try:
            yield child.memory_info().rss
        except psutil.NoSuchProcess:
            continue


def _read(store: DeltaStore) -> int:
    parts = store.parts("inference", "triage", BEGIN, BEGIN + timedelta(hours=HOURS), PART_BYTES)
    return sum(rows.num_rows for part in parts for rows in read_part(part, COLUMNS))


def _shown(progress: Progress) -> None:
    print(f"\r{progress.parts}/{progress.of} parts, {progress.rows} records", end="", file=sys.stderr, flush=True)


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counting", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--engine", choices=("local", "spark"), default="local")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--read", action="store_true")
    parser.add_argument("--tables", type=Path, help="folder to keep the table in, for the next time")
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="noria-bench-") as scratch:
        folder = asked.tables or Path(scratch)
        store = DeltaStore(folder)
        if store.snapshot("inference") < 0:
            fill(store, asked.rows)
        spark = SparkCompute(f"local[{asked.processes}]")
        with closing(spark if asked.engine == "spark" else LocalCompute(processes=asked.processes)) as engine:
            figures = measure(engine, store, asked.rows, read=asked.read)
    print(file=sys.stderr)
    print(json.dumps({"engine": asked.engine, "processes": asked.processes, "cores": os.cpu_count(), **figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
