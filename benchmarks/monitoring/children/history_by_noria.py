"""What a new window costs as history grows; prints one line of JSON.

`python -m benchmarks.monitoring.children.history_by_noria FOLDER WINDOWS RECORDS AT_ONCE`: two endpoints' records lie
in Delta tables, one with ten windows behind it and one with many. Windows are closed, computed, written and folded in
as the worker does it. History is made AT_ONCE windows at a time (1: as it comes about; more: as after an outage), with
a few single ones now and then for the curve; then both endpoints close one window each in turns.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from noria.adapters.clock import SystemClock
from noria.adapters.state.sql import migrate
from noria.adapters.state.sqlite import SqliteState
from noria.adapters.tables.delta import DeltaStore
from noria.domain.endpoint import Role, Route, Target, Wire
from noria.domain.events import WindowClosed
from noria.domain.monitor import Watch
from noria.monitoring.baselines import Baselines, file_of, from_traffic
from noria.monitoring.counting import wanted
from noria.monitoring.monitors import Monitors
from noria.monitoring.watches import said
from noria.settings import Project
from noria.tables import INFERENCE

BEGIN, HOUR = datetime(2026, 1, 5, tzinfo=UTC), timedelta(hours=1)
A_DAY = 24
WATCHED = ["text", "length", "prediction", "execution_duration_ms", "input_tokens", "cost_usd", "error"]
WORDS = ["flight", "late", "gate", "bag", "crew", "seat", "delayed", "refund", "money", "card", "please", "thanks"]


FEW, ROUNDS, POINT = 10, 32, 8
"""Windows of the short history; of each in turns: one round of tidying; of each point of the curve."""


def main(folder: Path, windows: int, records: int, at_once: int) -> dict[str, Any]:
    """Make both histories, and close windows in turns."""
    short, long = (Watched(folder / name, windows + ROUNDS, records) for name in ("short", "long"))
    short.close(FEW)
    curve = list(long.grow(windows, at_once))
    turns = [(short.close(1)[0], long.close(1)[0]) for _ in range(ROUNDS)]
    return {"curve": curve, "short": [a for a, _ in turns], "long": [b for _, b in turns], "rows": long.rows()}


Cost = tuple[float, float]
"""Seconds, and seconds of the processor."""


class Watched:
    """A project with one endpoint whose records of many hours are in the table, and none of whose windows is closed."""

    def __init__(self, folder: Path, hours: int, records: int) -> None:
        folder.mkdir()
        self._store = DeltaStore(folder / "tables")
        rng = np.random.default_rng(7)
        for day in range(0, hours, A_DAY):
            rows = [row for hour in range(day, min(day + A_DAY, hours)) for row in requests(rng, hour, records)]
            self._store.append("inference", pa.Table.from_pylist(rows, INFERENCE), "bench", day // A_DAY + 1)
        self._monitors = watching(folder, self._store, records)
        self._closed = 0

    def close(self, windows: int) -> list[Cost]:
        """Close windows one by one; what each cost."""
        return [self._close(1) for _ in range(windows)]

    def grow(self, until: int, at_once: int) -> Iterator[tuple[int, float]]:
        """Close so many windows; (windows before, median of the processor's seconds for one more) now and then."""
        while self._closed < until:
            before = self._closed
            yield before, median(cpu for _, cpu in self.close(min(POINT, until - before)))
            ahead = min(2 * self._closed, until - POINT) if at_once > 1 else self._closed
            while self._closed < ahead:
                self._close(min(at_once, ahead - self._closed))

    def rows(self) -> dict[str, int]:
        """Of each monitoring table."""
        tables = ("monitor_states", "profile_metrics", "drift_metrics")
        return {name: self._store.scan(name, columns=["window"]).num_rows for name in tables}

    def _close(self, windows: int) -> Cost:
        """Close the last of some windows; those before are made up for, as after an outage."""
        self._closed += windows
        begun, busy, end = time.perf_counter(), time.process_time(), BEGIN + self._closed * HOUR
        self._monitors.evaluate(WindowClosed(endpoint="bench", start=end - HOUR, end=end), here_and_now)
        return time.perf_counter() - begun, time.process_time() - busy


def watching(folder: Path, store: DeltaStore, records: int) -> Monitors:
    """The monitors of a project with one endpoint, whose version has a baseline from its first ten windows."""
    project = Project.model_validate(
        {
            "project": "bench",
            "endpoints": {
                "bench": {
                    "task": "classification",
                    "policy": "p.yaml",
                    "monitors": {"watch": WATCHED, "baseline_records": 10 * records},
                    "training": {"data": "seed.csv"},
                }
            },
        }
    )
    url = f"sqlite:///{folder / 'state.db'}"
    migrate(url)
    state = SqliteState(folder / "state.db", SystemClock())
    champion = Target(
        model="bench", version="1", role=Role.CHAMPION, weight=100, url="unix:/bench.sock", verdict_id="bench"
    )
    with state.note() as note:
        note.put(Route(endpoint="bench", wire=Wire.MLFLOW, revision=1, targets=(champion,)))
    endpoint = project.endpoints["bench"]
    watch = Watch(
        id="bench:1", endpoint="bench", number=1, model="bench", version="1", monitor_version=1,
        monitors=said(endpoint.monitors), since=BEGIN, counted_until=BEGIN,
    )  # fmt: skip
    columns = wanted(endpoint.task, endpoint.monitors)
    baseline = from_traffic(store, watch, endpoint, endpoint.monitors, columns)
    assert baseline is not None
    known = {("bench", "1", file_of(endpoint.monitors)): baseline}
    return Monitors(state, store, Baselines(None, known), project)  # type: ignore[arg-type]  # it is in memory already


def requests(rng: np.random.Generator, hour: int, number: int) -> list[dict[str, Any]]:
    """Rows of the inference table."""
    start = BEGIN + hour * HOUR
    return [
        {
            "databricks_request_id": f"{int(start.timestamp() * 1000):012x}{hour:010d}{i:010d}",
            "request_time": start + i * HOUR / number,
            "request_date": start.date(),
            "request": json.dumps({"input": " ".join(rng.choice(WORDS, 12))}),
            "response": json.dumps({"predictions": [str(rng.choice(["negative", "neutral", "positive"]))]}),
            "status_code": 200,
            "execution_duration_ms": int(rng.lognormal(4, 0.5)),
            "endpoint": "bench",
            "model_name": "bench",
            "model_version": "1",
            "route": "champion",
            "outcome": "answered" if rng.random() < 0.99 else "failed",
            "input_tokens": int(rng.integers(5, 60)),
            "output_tokens": int(rng.integers(1, 200)),
            "cost_usd": float(rng.random() / 1000),
            "requester": f"team-{rng.integers(5)}",
        }
        for i in range(number)
    ]


def here_and_now(_name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """A step of a workflow, done here and now."""
    return function(*arguments)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *map(int, sys.argv[2:]))), flush=True)
    os._exit(0)  # threads of the tables' runtime are still about
