"""The same records give the same counts and the same evidence, however they are cut and wherever they are counted."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.compute import InlineCompute
from fakes.records import MemoryRecords
from fakes.traffic import BEGIN, HOUR
from noria.adapters.compute import LocalCompute
from noria.adapters.tables.delta import DeltaStore
from noria.domain.errors import Conflict
from noria.domain.monitor import Window
from noria.evaluation.baseline import Baseline
from noria.evaluation.sequential import log_e_two_sample
from noria.evaluation.states import ColumnState
from noria.monitoring import counting, gathering
from noria.monitoring.computing import EVERYONE, TABLE, Key, Plan, compute, plan_windows, totals
from noria.monitoring.counting import Counting
from noria.monitoring.gathering import Progress, gather
from noria.monitoring.slicing import OTHER
from noria.ports import ComputeEngine, RecordStore
from noria.settings import Endpoint, Monitors, Task
from noria.tables import INFERENCE

WINDOWS = [Window(BEGIN + 5 * n * HOUR, BEGIN + 5 * (n + 1) * HOUR) for n in range(4)]
WORDS = ["flight", "late", "gate", "bag", "crew", "seat", "delayed", "cancelled"]
BASELINE = Baseline.fit([" ".join(WORDS[i : i + 3]) for i in range(6)] * 20, WORDS * 40, ["good", "bad"] * 50)
EVIDENCE = {"input": BASELINE.text, "input_length": BASELINE.length, "prediction": BASELINE.prediction}


def requests(number: int, seed: int = 0) -> pa.Table:
    """Requests over twenty hours that pass midnight, of two models, and some of another endpoint."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(number):
        moment = BEGIN + timedelta(seconds=float(rng.uniform(0, 20 * 3600)))
        rows.append(
            {
                "databricks_request_id": f"{seed:02x}{n:030x}",
                "request_time": moment,
                "request_date": moment.date(),
                "request": json.dumps({"input": " ".join(rng.choice(WORDS, 3))}),
                "response": json.dumps({"predictions": [str(rng.choice(["good", "bad"]))]}),
                "execution_duration_ms": int(rng.integers(1, 900)),
                "endpoint": "assistant" if n % 9 == 0 else "triage",
                "model_name": "triage",
                "model_version": "2" if n % 3 == 0 else "1",
                "route": "champion",
                "outcome": "answered" if n % 7 else "failed",
                "requester": f"key{rng.integers(4)}",
            }
        )
    return pa.Table.from_pylist(rows, schema=INFERENCE)


def filled(store: RecordStore, rows: pa.Table, cuts: list[int]) -> RecordStore:
    """The rows in that store, appended in pieces that end there."""
    edges = [0, *sorted(cuts), rows.num_rows]
    for version, (begin, end) in enumerate(pairwise(edges), 1):
        if end > begin:
            store.append("inference", rows.slice(begin, end - begin), "test", version)
    return store


def exact(states: dict[Key, ColumnState]) -> dict[Key, tuple]:
    """What has to be identical to the last bit, with the evidence that it comes to."""
    found = {}
    for key, s in totals(states).items():
        watch = EVIDENCE.get(key.column)
        log_e = log_e_two_sample(s.cells, watch.counts, watch.cells.groupings) if watch and s.cells.size else None
        found[key] = (s.count, s.nulls, s.finite, s.zeros, s.low, s.high, s.characters, s.cells.tolist(), s.hll, log_e)
    return found


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    file = tmp_path_factory.mktemp("baseline") / "baseline.npz"
    file.write_bytes(BASELINE.to_bytes())
    slices = {"requester": {window.start.isoformat(): ["key0", "key1"] for window in WINDOWS}}
    return Plan(task=Task.CLASSIFICATION, windows=plan_windows(WINDOWS), baseline=str(file), slices=slices)


@pytest.fixture(params=["inline", "local", pytest.param("spark", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest) -> Iterator[ComputeEngine]:
    if request.param == "spark":
        yield request.getfixturevalue("spark")
        return
    made = InlineCompute() if request.param == "inline" else LocalCompute()
    yield made
    made.close()


ROWS = requests(300)
OURS = ROWS.filter(pc.field("endpoint") == "triage")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(0, 300), max_size=9), st.randoms(use_true_random=False), st.sampled_from([1, 30_000, 1 << 30])
)
def test_any_partition_in_any_order_gives_the_same_counts_and_evidence(plan, tmp_path_factory, cuts, random, most):
    order = list(range(ROWS.num_rows))
    random.shuffle(order)
    store = filled(DeltaStore(tmp_path_factory.mktemp("tables")), ROWS.take(order), cuts)
    counted = gather(InlineCompute(), store, "triage", replace(plan, baseline=""), BASELINE, part_bytes=most)
    assert exact(counted) == exact(compute([OURS], plan, BASELINE))


def test_every_engine_gives_the_same_counts_and_evidence(engine, plan, tmp_path):
    store = filled(DeltaStore(tmp_path / "tables"), ROWS, [50, 100, 150, 200, 250])
    told: list[Progress] = []
    counted = gather(engine, store, "triage", plan, BASELINE, told.append, part_bytes=1)
    assert exact(counted) == exact(compute([OURS], plan, BASELINE))
    assert sum(totals(counted)[Key(w, EVERYONE, "", "", TABLE)].count for w in WINDOWS) == OURS.num_rows
    assert [each.parts for each in told] == list(range(told[-1].of + 1))
    assert told[-1] == Progress(told[-1].of, told[-1].of, OURS.num_rows)
    assert told[-1].of > 6


def test_the_records_of_a_memory_are_counted_like_those_of_a_table(plan):
    store = filled(MemoryRecords(), ROWS, [100])
    assert exact(gather(InlineCompute(), store, "triage", plan)) == exact(compute([OURS], plan, BASELINE))


def test_no_windows_and_no_records_come_to_nothing(plan, tmp_path):
    nothing = Plan(task=Task.CLASSIFICATION, windows=[])
    assert gather(InlineCompute(), DeltaStore(tmp_path), "triage", plan) == {}
    assert gather(InlineCompute(), filled(DeltaStore(tmp_path), ROWS, []), "triage", nothing) == {}
    assert gather(InlineCompute(), DeltaStore(tmp_path), "nobody", plan) == {}


def test_files_that_were_tidied_away_meanwhile_are_an_error_that_says_so(plan, tmp_path):
    store = filled(DeltaStore(tmp_path), ROWS, list(range(10, 300, 10)))

    def tidy(progress: Progress) -> None:
        if progress.parts == 1:
            store.optimize("inference", retention=timedelta(0))

    with pytest.raises(Conflict, match="is gone"):
        gather(InlineCompute(), store, "triage", plan, None, tidy, part_bytes=1)
    assert exact(gather(InlineCompute(), store, "triage", plan)) == exact(compute([OURS], plan, BASELINE))


def test_a_baseline_that_is_gone_is_an_error(plan, tmp_path):
    store = filled(DeltaStore(tmp_path / "tables"), ROWS, [])
    with pytest.raises(Exception, match=r"gone\.npz"):
        gather(InlineCompute(), store, "triage", replace(plan, baseline=str(Path(tmp_path, "gone.npz"))))


def test_installed_scorers_measure_what_is_wanted_of_them(plan, tmp_path, monkeypatch):
    def scorers(wanted):
        return {"toxicity": lambda texts: [0.25] * len(texts)} if "input_toxicity" in wanted else {}

    monkeypatch.setattr("noria.adapters.scorers.scorers", scorers)
    store = filled(DeltaStore(tmp_path), ROWS, [])
    counted = gather(InlineCompute(), store, "triage", replace(plan, columns=["input_toxicity", "input"]))
    found = {state.mean for key, state in counted.items() if key.column == "input_toxicity"}
    assert found == {0.25}


def test_a_long_span_is_counted_by_the_engine_as_a_short_one_is_at_once(engine, tmp_path, monkeypatch):
    """With slices, and with requests that the table holds twice, in files of several parts."""
    again = ROWS.slice(0, 40)
    store = filled(DeltaStore(tmp_path), pa.concat_tables([ROWS, again]), [60, 150, 300])
    endpoint = Endpoint.model_validate({"task": "classification", "policy": "-", "training": {"data": "-"}})
    monitors = Monitors(watch=("text", "length", "prediction"), slices=("requester", "prediction"), slice_values=2)

    def counted_by(engine):
        return exact(Counting(store, engine).states("triage", endpoint, monitors, WINDOWS, BASELINE))

    at_once = counted_by(None)
    assert sum(found[0] for key, found in at_once.items() if key[1:] == (EVERYONE, "", "", TABLE)) == OURS.num_rows
    assert {key.slice_value for key in at_once if key.slice_key == "requester"} > {OTHER}
    monkeypatch.setattr(counting, "AT_ONCE_BYTES", 0)
    monkeypatch.setattr(counting, "PART_BYTES", 1)
    monkeypatch.setattr(gathering, "PART_BYTES", 1)
    assert counted_by(engine) == at_once
