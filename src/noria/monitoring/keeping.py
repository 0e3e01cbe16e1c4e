"""What monitors keep of each window in the table `monitor_states`: the states of each model and slice.

All models together are the sum of each, longer windows the sum of shorter ones, evidence a fold over them. A state goes
with the digest of the cells that it was counted in: counts in other cells are never added up.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pyarrow as pa

from noria.domain.monitor import Window
from noria.evaluation.baseline import Baseline, Reference
from noria.evaluation.cells import ScoreGrid
from noria.evaluation.faults import FaultGrid
from noria.evaluation.states import ColumnState, merged
from noria.monitoring.computing import EVERYONE, TABLE, Key
from noria.monitoring.rows import Place
from noria.ports import RecordStore
from noria.settings.monitors import FAULTS
from noria.tables import MONITOR_STATES

SCORE = "score"
"""The column of what was said of answers in a window, 0 to 1."""
SCORES = Reference(ScoreGrid(), np.zeros(ScoreGrid().size, np.int64))
FAULT = Reference(FaultGrid(), np.zeros(FaultGrid().size, np.int64))


@dataclass(frozen=True, slots=True)
class Kept:
    """A state and the digest of its cells; empty where it has none."""

    state: ColumnState
    cells: str = ""


def digest(baseline: Baseline | None, column: str) -> str:
    """The digest of the cells that a column is counted in; empty for none."""
    found = baseline.references.get(column) if baseline is not None else None
    if found is not None:
        return found.digest
    return SCORES.digest if column == SCORE else FAULT.digest if column in FAULTS else ""


def keep(states: Mapping[Key, ColumnState], baseline: Baseline | None) -> dict[Key, Kept]:
    """States with the digest of the cells that they were counted in."""
    return {key: Kept(state, digest(baseline, key.column) if state.cells.size else "") for key, state in states.items()}


def together(kept: Mapping[Key, Kept]) -> dict[Key, Kept]:
    """The states of each model with those of all of them beside them."""
    parts: dict[Key, list[Kept]] = {}
    for key, each in sorted(kept.items(), key=lambda pair: pair[0]):
        parts.setdefault(key._replace(model=EVERYONE), []).append(each)
    return {**kept, **{key: summed(found) for key, found in parts.items()}}


def in_window(kept: Mapping[Key, Kept], window: Window) -> dict[Key, Kept]:
    """The states of several windows added up, oldest first, to those of one that spans them."""
    parts: dict[Key, list[Kept]] = {}
    for key, each in sorted(kept.items(), key=lambda pair: pair[0]):
        parts.setdefault(key._replace(window=window), []).append(each)
    return {key: summed(found) for key, found in parts.items()}


def summed(parts: Sequence[Kept]) -> Kept:
    """States added up; without cells if they were counted in different ones."""
    if len(parts) == 1:
        return parts[0]
    digests = {part.cells for part in parts if part.cells}
    if len(digests) > 1:
        bare = [replace(part.state, cells=np.empty(0, np.int64)) for part in parts]
        return Kept(merged(bare))
    return Kept(merged(part.state for part in parts), next(iter(digests), ""))


def settled(found: Mapping[Key, Kept], before: Mapping[Key, Kept]) -> dict[Key, Kept]:
    """What was found, but as it was kept before where both are of the same values.

    A sketch of quantiles draws anew each time: history that is computed again has to come to what it was.
    """
    return {
        key: known
        if (known := before.get(key)) is not None and known.cells == each.cells and known.state.agrees(each.state)
        else each
        for key, each in found.items()
    }


def table_of(
    endpoint: str, kept: Mapping[Key, Kept], versions: Mapping[Window, int], *, of_windows: bool = False
) -> pa.Table:
    """States as rows of the table.

    Args:
        endpoint: The endpoint's name.
        kept: Of each model, without those of all together.
        versions: Window → the version of the monitor that it was computed for.
        of_windows: Whether they were added up from shorter windows.
    """
    rows = [
        Place(endpoint=endpoint, window=key.window, model=key.model, version=versions[key.window]).columns()
        | {
            "slice_key": key.slice_key or None,
            "slice_value": key.slice_value if key.slice_key else None,
            "column_name": key.column,
            "data_type": each.state.data_type,
            "summed": of_windows,
            "cells": each.cells or None,
            "count": each.state.count,
            "state": each.state.to_bytes(),
        }
        for key, each in kept.items()
    ]
    return pa.Table.from_pylist(rows, schema=MONITOR_STATES)


def read(
    records: RecordStore,
    endpoint: str,
    since: datetime,
    until: datetime,
    *,
    of_windows: bool = False,
    columns: Iterable[str] | None = None,
    whole: bool = False,
) -> dict[Key, Kept]:
    """What was kept of the windows that begin in a span of time.

    Args:
        records: The tables.
        endpoint: The endpoint's name.
        since: Start of the span, included.
        until: End of the span, excluded.
        of_windows: Those that were added up from shorter windows, instead of those computed from records.
        columns: Only these.
        whole: Without slices.
    """
    names = ["window", "model_id", "slice_key", "slice_value", "column_name", "summed", "cells", "state"]
    rows = records.scan("monitor_states", columns=names, endpoint=endpoint, since=since, until=until)
    wanted = None if columns is None else set(columns)
    found: dict[Key, Kept] = {}
    for row in rows.drop_columns(["state"]).append_column("at", pa.array(range(rows.num_rows), pa.int64())).to_pylist():
        if bool(row["summed"]) is not of_windows or (whole and row["slice_key"]):
            continue
        if wanted is None or row["column_name"] in wanted:
            window = Window(row["window"]["start"], row["window"]["end"])
            key = Key(window, row["model_id"], row["slice_key"] or "", row["slice_value"] or "", row["column_name"])
            state = ColumnState.from_bytes(rows["state"][row["at"]].as_py())
            found[key] = Kept(state, row["cells"] or "")
    return found


def newest_before(records: RecordStore, endpoint: str, moment: datetime) -> Window | None:
    """The newest window before a moment that held anything."""
    names = ["window", "column_name", "summed", "count"]
    rows = records.scan("monitor_states", columns=names, endpoint=endpoint, until=moment).to_pylist()
    held = [r["window"] for r in rows if r["column_name"] == TABLE and not r["summed"] and r["count"]]
    newest = max(held, key=lambda window: window["start"], default=None)
    return None if newest is None else Window(newest["start"], newest["end"])
