"""Tables of the rows of some windows, from what was kept of them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from noria.domain.monitor import MonitorState, Watch, Window
from noria.evaluation.baseline import Baseline
from noria.evaluation.profile import TABLE, Row
from noria.monitoring.computing import EVERYONE, Key
from noria.monitoring.keeping import SCORE, Kept
from noria.monitoring.rows import Place, as_struct, compared, evidence_columns, profile_rows, table_row
from noria.monitoring.watching import Watched, asked_by
from noria.tables import DRIFT_METRICS

Groups = dict[tuple[str, str, str], dict[str, Kept]]
"""Model and slice → column → what was kept."""


def grouped(kept: Mapping[Key, Kept], window: Window) -> Groups:
    """What was kept of one window."""
    found: Groups = {}
    for key, each in kept.items():
        if key.window == window:
            found.setdefault((key.model, key.slice_key, key.slice_value), {})[key.column] = each
    return dict(sorted(found.items()))


def profile_rows_of(watch: Watch, windows: Iterable[Window], kept: Mapping[Key, Kept], commit: int) -> Iterator[Row]:
    """The `profile_metrics` rows of windows: of each model, of all of them (`*`), and of each slice of both.

    A window that holds nothing has one row that says so.

    Args:
        watch: Whose windows they are.
        windows: Which.
        kept: Of them, with all models together.
        commit: Version of the inference table that the records were read from.
    """
    for window in windows:
        groups = grouped(kept, window)
        if TABLE not in groups.get((EVERYONE, "", ""), {}):
            yield from profile_rows(_place(watch, window, (EVERYONE, "", "")), [], commit)
        for group, columns in groups.items():
            if TABLE in columns:
                states = [each.state for name, each in columns.items() if name != SCORE]
                yield from profile_rows(_place(watch, window, group), states, commit)


def drift_table(rows: Iterable[Row]) -> pa.Table:
    """Rows as the `drift_metrics` table keeps them."""
    return pa.Table.from_pylist(list(rows), schema=DRIFT_METRICS)


def drift_rows(
    watch: Watch,
    baseline: Baseline | None,
    monitors: Iterable[Watched],
    now: Groups,
    window: Window,
    evidence: Mapping[str, MonitorState],
    before: tuple[Window, Groups] | None,
) -> Iterator[Row]:
    """The `drift_metrics` rows of one window: of everything that callers send and the champion answers, and of each
    slice of it, against the baseline and against an earlier window.

    Args:
        watch: Whose window it is.
        baseline: Its version's.
        monitors: What is watched.
        now: What was kept of the window.
        window: Which.
        evidence: Monitor → its state after the window; what is told of the whole only.
        before: The window to compare with, and what was kept of it; None for none.
    """
    by_column = {monitor.column: monitor for monitor in monitors}
    for key, value in sorted({(key, value) for _, key, value in now}):
        for column in _columns(now, key, value, watch):
            group = (asked_by(column, watch.ref), key, value)
            found = now.get(group, {}).get(column)
            if found is None or found.state.count == found.state.nulls:
                continue
            place, monitor = _place(watch, window, (watch.ref, key, value)), by_column.get(column)
            name = monitor.name if monitor is not None else None
            state = evidence.get(name) if name is not None and not key else None
            yield from _against_baseline(place, name, found, baseline, monitor, state)
            past = before[1].get(group, {}).get(column) if before is not None else None
            if before is not None and past is not None and past.state.count > past.state.nulls:
                cells = _cells(baseline, monitor, column) if found.cells and found.cells == past.cells else None
                row = compared(place, name, found.state, past.state, cells, drift_type="CONSECUTIVE")
                yield row | {"window_cmp": as_struct(before[0])}
        whole = (EVERYONE, key, value)
        if before is not None and whole in now and whole in before[1]:
            states, earlier = ({n: each.state for n, each in groups[whole].items()} for groups in (now, before[1]))
            yield table_row(_place(watch, window, (watch.ref, key, value)), states, earlier, before[0])


def _against_baseline(
    place: Place,
    name: str | None,
    found: Kept,
    baseline: Baseline | None,
    monitor: Watched | None,
    state: MonitorState | None,
) -> Iterator[Row]:
    more: Row = {"drift_type": "BASELINE"} | (evidence_columns(state) if state is not None else {})
    reference = baseline.references.get(found.state.name) if baseline is not None else None
    if reference is not None:
        cells = reference.cells if found.cells == reference.digest else None
        row = compared(place, name, found.state, reference.state(found.state.name), cells)
    elif monitor is not None and monitor.floor is not None:
        about = {"monitor": name, "column_name": found.state.name, "data_type": found.state.data_type}
        row = place.columns() | about | {"mean": found.state.mean}
    else:
        return
    if monitor is not None and monitor.floor is not None and state is not None and "floor" in state.numbers:
        more["avg_delta"] = found.state.mean - state.numbers["floor"]
    if state is None:
        more["rows_seen"] = found.state.count - found.state.nulls
    yield row | more


def _columns(now: Groups, key: str, value: str, watch: Watch) -> list[str]:
    names = {name for model in (EVERYONE, watch.ref) for name in now.get((model, key, value), {})}
    return sorted(names - {TABLE})


def _cells(baseline: Baseline | None, monitor: Watched | None, column: str) -> Any:
    reference = baseline.references.get(column) if baseline is not None else None
    return reference.cells if reference is not None else monitor.reference.cells if monitor is not None else None


def _place(watch: Watch, window: Window, group: tuple[str, str, str]) -> Place:
    model, key, value = group
    return Place(
        endpoint=watch.endpoint,
        window=window,
        model=model,
        version=watch.monitor_version,
        slice_key=key,
        slice_value=value,
    )
