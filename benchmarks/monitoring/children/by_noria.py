"""Noria's monitors on two Parquet files, in one window; prints one line of JSON.

`python -m benchmarks.monitoring.children.by_noria REFERENCE CURRENT CATEGORICAL…`: the baseline from the first file,
then the production path over the second, batch by batch: observations → states → evidence → rows of `monitor_states`,
`profile_metrics` and `drift_metrics`.
"""

import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from noria.domain.monitor import Watch, Window
from noria.evaluation.baseline import Baseline, Reference
from noria.evaluation.cells import Categories, NumericBins
from noria.evaluation.faults import FaultGrid
from noria.evaluation.observations import Observations
from noria.evaluation.sequential import log_threshold
from noria.monitoring.computing import EVERYONE, TABLE, Key, Plan, compute_observed, plan_windows
from noria.monitoring.evidence import begin, fold
from noria.monitoring.keeping import Kept, keep, table_of, together
from noria.monitoring.tables import drift_rows, drift_table, grouped, profile_rows_of
from noria.monitoring.watches import said
from noria.monitoring.watching import watched
from noria.settings import Monitors, Task
from noria.settings.monitors import FAULTS
from noria.tables import PROFILE_METRICS

OF_REQUESTS = ("execution_duration_ms", "ttft_ms", "input_tokens", "output_tokens", "cost_usd", "error")
WINDOW = Window(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=1))
ROWS_A_BATCH, BUFFER = 65_536, 1 << 20
"""As parts of a table are read."""


def main(reference: str, current: str, categorical: Sequence[str]) -> dict[str, Any]:
    """Compute everything; how long it took and what was found."""
    begun, busy = time.perf_counter(), time.process_time()
    baseline = baseline_of(pq.read_table(reference), categorical)
    monitors = Monitors(window=WINDOW.end - WINDOW.start, watch=tuple(baseline.references), floors={"error": 0.02})
    watch = Watch(
        id="bench:1", endpoint="bench", number=1, model="bench", version="1", monitor_version=1,
        monitors=said(monitors), since=WINDOW.start, counted_until=WINDOW.start,
    )  # fmt: skip
    plan = Plan(task=Task.CLASSIFICATION, windows=plan_windows([WINDOW]), distinct=True)
    kept = keep(compute_observed(observed(current), plan, baseline), baseline)
    everyone = together(kept)
    states, profiles = table_of("bench", kept, {WINDOW: 1}), profiled(watch, everyone)
    watching = watched(baseline, monitors)
    threshold = log_threshold(monitors.alpha, len(watching))
    folded = {
        each.name: fold(begin(watch, each, WINDOW.start, threshold), each, [WINDOW], everyone, watch.ref)
        for each in watching
    }
    evidence = {name: each.last for name, each in folded.items()}
    groups = grouped(everyone, WINDOW)
    drifts = drift_table(drift_rows(watch, baseline, watching, groups, WINDOW, evidence, None))
    return {
        "seconds": time.perf_counter() - begun,
        "cpu_s": time.process_time() - busy,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "records": everyone[Key(WINDOW, EVERYONE, "", "", TABLE)].state.count,
        "rows": {"monitor_states": len(states), "profile_metrics": len(profiles), "drift_metrics": len(drifts)},
        "alarms": sorted(name for name, state in evidence.items() if state.alarms),
    }


def profiled(watch: Watch, kept: Mapping[Key, Kept]) -> pa.Table:
    """The rows of `profile_metrics`."""
    return pa.Table.from_pylist(list(profile_rows_of(watch, [WINDOW], kept, 0)), schema=PROFILE_METRICS)


def baseline_of(table: pa.Table, categorical: Sequence[str]) -> Baseline:
    """Cells and counts of every column."""
    references: dict[str, Reference[Any]] = {}
    for name in table.column_names:
        if name in categorical:
            references[name] = Reference(*Categories.learnt(table[name]))
        elif name in FAULTS:
            references[name] = Reference.of(name, FaultGrid(), table[name])
        else:
            references[name] = Reference.of(name, NumericBins.fit(table[name], 10), table[name])
    return Baseline(references=references, rows=table.num_rows)


def observed(path: str) -> Iterator[Observations]:
    """The file's columns as `observe` gives them: numbers of requests, and one item for each."""
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER) as file:
        batches = (
            batch
            for group in range(file.num_row_groups)
            for batch in file.iter_batches(ROWS_A_BATCH, row_groups=[group], use_threads=False)
        )
        for batch in batches:
            rows = pa.table(batch)
            times = pa.array(np.full(len(rows), WINDOW.start.timestamp() * 1e6, np.int64), pa.timestamp("us", "UTC"))
            records = rows.select(OF_REQUESTS).append_column("request_time", times)
            records = records.append_column("model", pa.repeat("bench/1", len(rows)))
            items = rows.drop_columns(OF_REQUESTS).append_column("record", pa.array(np.arange(len(rows))))
            yield Observations(records, items)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[1], sys.argv[3:])  # the compute engine's children are warm
    print(json.dumps(main(sys.argv[1], sys.argv[2], sys.argv[3:])))
