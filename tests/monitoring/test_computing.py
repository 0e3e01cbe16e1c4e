"""Any split of the same records comes to the same counts, and nothing counts twice."""

import json
from datetime import timedelta
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.traffic import BEGIN, HOUR
from noria.domain.monitor import Window
from noria.evaluation.baseline import Baseline
from noria.evaluation.sequential import log_e_two_sample
from noria.monitoring.computing import (
    COLUMNS,
    EVERYONE,
    TABLE,
    Key,
    Plan,
    added,
    compute,
    from_json,
    grouped,
    plan_windows,
    to_json,
    totals,
)
from noria.monitoring.slicing import OTHER, Frequent, values_of
from noria.settings import Task
from noria.tables import INFERENCE

WINDOWS = [Window(BEGIN + n * HOUR, BEGIN + (n + 1) * HOUR) for n in range(3)]
WORDS = ["flight", "late", "gate", "bag", "crew", "seat", "delayed", "cancelled"]


def table(number: int, seed: int = 0, **columns) -> pa.Table:
    """Requests over three hours, of two models and a few callers."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(number):
        moment = BEGIN + timedelta(seconds=float(rng.uniform(0, 3 * 3600)))
        text = " ".join(rng.choice(WORDS, 3))
        rows.append(
            {
                "databricks_request_id": f"{seed:02x}{n:030x}",
                "request_time": moment,
                "request_date": moment.date(),
                "request": json.dumps({"input": [text, text + " again"] if n % 5 == 0 else text}),
                "response": json.dumps({"predictions": rng.choice(["good", "bad"], 2 if n % 5 == 0 else 1).tolist()}),
                "execution_duration_ms": int(rng.integers(1, 900)),
                "endpoint": "triage",
                "model_name": "triage",
                "model_version": "2" if n % 3 == 0 else "1",
                "route": "champion",
                "outcome": "answered" if n % 7 else "failed",
                "requester": f"key{rng.integers(4)}",
                "metadata": [("team", f"t{n % 2}")],
            }
            | {name: value(n) for name, value in columns.items()}
        )
    return pa.Table.from_pylist(rows, schema=INFERENCE).select(COLUMNS)


TABLE_OF_300 = table(300)
BASELINE = Baseline.fit([" ".join(WORDS[i : i + 3]) for i in range(6)] * 20, WORDS * 40, ["good", "bad"] * 50)


def plan(**more) -> Plan:
    return Plan(task=Task.CLASSIFICATION, windows=plan_windows(WINDOWS), **more)


SLICED = {
    "requester": {w.start.isoformat(): ["key0", "key1"] for w in WINDOWS},
    "metadata.team": {WINDOWS[0].start.isoformat(): ["t0"]},
    "prediction": {w.start.isoformat(): ["good"] for w in WINDOWS},
}


def summary(states):
    """What has to be identical to the last bit."""
    return {
        key: (s.count, s.nulls, s.finite, s.zeros, s.low, s.high, s.characters, s.cells.tolist(), s.hll)
        for key, s in states.items()
    }


def test_each_window_model_and_column_has_its_state():
    states = totals(compute([TABLE_OF_300], plan(), BASELINE))
    assert {key.window for key in states} == set(WINDOWS)
    assert {key.model for key in states} == {"triage/1", "triage/2", EVERYONE}
    assert sum(states[Key(w, EVERYONE, "", "", TABLE)].count for w in WINDOWS) == 300
    for window in WINDOWS:
        ms = states[Key(window, EVERYONE, "", "", "execution_duration_ms")]
        assert ms.count == states[Key(window, EVERYONE, "", "", TABLE)].count
        texts = states[Key(window, EVERYONE, "", "", "input")]
        assert texts.cells.sum() == texts.count > ms.count
        parts = [states[Key(window, model, "", "", "input")].cells for model in ("triage/1", "triage/2")]
        assert (parts[0] + parts[1]).tolist() == texts.cells.tolist()


@given(st.lists(st.integers(0, 300), max_size=8), st.randoms(use_true_random=False), st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_any_split_in_any_order_comes_to_the_same(cuts, random, machines):
    """The same records in batches of any size and order, on one machine or on several."""
    order = list(range(300))
    random.shuffle(order)
    shuffled = TABLE_OF_300.take(order)
    batches = [shuffled.slice(a, b - a) for a, b in pairwise(sorted([0, 300, *cuts]))]
    wanted = plan(slices=SLICED, distinct=True)
    whole = compute([TABLE_OF_300], wanted, BASELINE)
    parts = [compute(batches[n::machines], Plan.from_json(wanted.to_json()), BASELINE) for n in range(machines)]
    split = added(from_json(to_json(part)) for part in parts)
    assert summary(split) == summary(whole)
    assert summary(totals(split)) == summary(totals(whole))
    for window in WINDOWS:
        key = Key(window, EVERYONE, "", "", "input")
        one, other = (
            log_e_two_sample(totals(states)[key].cells, BASELINE.text.counts, BASELINE.text.cells.groupings)
            for states in (whole, split)
        )
        assert one == other


def test_a_request_that_the_table_holds_twice_counts_once():
    twice = pa.concat_tables([TABLE_OF_300, TABLE_OF_300.slice(0, 100)])
    assert summary(compute([twice, TABLE_OF_300], plan(), BASELINE)) == summary(
        compute([TABLE_OF_300], plan(), BASELINE)
    )


def test_a_request_that_is_counted_elsewhere_is_left_out():
    names = TABLE_OF_300["databricks_request_id"].to_pylist()[:40]
    rest = compute([TABLE_OF_300], plan(left_out=names, distinct=True), BASELINE)
    assert summary(rest) == summary(compute([TABLE_OF_300.slice(40)], plan(), BASELINE))


def test_what_lies_outside_all_windows_is_left_out():
    elsewhere = {"request_time": lambda n: BEGIN + (n % 3 - 1) * 10_000 * HOUR}
    states = compute([table(30, **elsewhere)], plan())
    assert sum(states[key].count for key in states if key.column == TABLE) == 10
    gap = Plan(task=Task.CLASSIFICATION, windows=plan_windows([WINDOWS[0], WINDOWS[2]]))
    assert {key.window for key in compute([TABLE_OF_300], gap)} == {WINDOWS[0], WINDOWS[2]}


def test_slices_tell_the_frequent_values_apart_and_add_up_to_the_whole():
    states = totals(compute([TABLE_OF_300], plan(slices=SLICED), BASELINE))
    values = {key.slice_value for key in states if key.slice_key == "requester"}
    assert values == {"key0", "key1", OTHER}
    first = {key.slice_value for key in states if key.slice_key == "metadata.team" and key.window == WINDOWS[0]}
    assert first == {"t0", OTHER}
    assert {k.slice_value for k in states if k.slice_key == "metadata.team" and k.window == WINDOWS[1]} == {OTHER}
    for slice_key in SLICED:
        for column in ("input", "execution_duration_ms", "prediction"):
            whole = states[Key(WINDOWS[0], EVERYONE, "", "", column)]
            parts = [
                s
                for key, s in states.items()
                if key.slice_key == slice_key and (key.window, key.model, key.column) == (WINDOWS[0], EVERYONE, column)
            ]
            assert sum(part.count for part in parts) == whole.count
            assert sum(part.cells for part in parts).tolist() == whole.cells.tolist() if whole.cells.size else True
    good = states[Key(WINDOWS[0], EVERYONE, "prediction", "good", "prediction")]
    assert good.cells[BASELINE.prediction.cells.known.index("good")] == good.count - good.nulls


def test_the_most_frequent_values_of_a_window_are_told_apart():
    from noria.evaluation.observations import observe

    found = observe(TABLE_OF_300, Task.CLASSIFICATION)
    frequent = Frequent(2)
    frequent.add("requester", "w", values_of("requester", found.records, found.items)[0])
    frequent.add("requester", "w", pa.array(["key9"] * 200 + [None]))
    assert frequent.values(["requester"])["requester"]["w"][0] == "key9"
    assert len(frequent.values(["requester"])["requester"]["w"]) == 2
    assert values_of("nothing", found.records, found.items)[0].null_count == 300


def test_a_million_different_values_are_counted_in_bounded_memory():
    frequent = Frequent(1)
    for begin in range(0, 1_000_000, 100_000):
        frequent.add("requester", "w", pa.array([*(f"k{n}" for n in range(begin, begin + 100_000)), "often", "often"]))
    assert sum(len(counted) for counted in frequent._counts.values()) <= 200_001
    assert frequent.values(["requester"])["requester"]["w"] == ["often"]


def test_no_records_come_to_nothing():
    assert compute([], plan()) == {}
    assert compute([TABLE_OF_300.slice(0, 0)], plan(), BASELINE) == {}


@given(st.lists(st.integers(0, 3), max_size=30))
def test_rows_are_grouped_as_they_are_numbered(numbers):
    rows = pa.table({"n": pa.array(numbers, pa.int64()), "row": pa.array(range(len(numbers)), pa.int64())})
    found = {group: part["row"].to_pylist() for group, part in grouped(rows, np.array(numbers, np.int64))}
    assert found == {n: [row for row, m in enumerate(numbers) if m == n] for n in sorted(set(numbers))}


@pytest.mark.parametrize(
    "bodies", [["", "{", "null"], ['{"input": [null, 3, {"a": 1}]}'], ['{"input": "' + "x" * 10**6 + '"}']]
)
def test_odd_bodies_are_counted_and_break_nothing(bodies):
    odd = table(len(bodies) * 3, request=lambda n: bodies[n % len(bodies)], metadata=lambda n: None)
    states = totals(compute([odd], plan(slices=SLICED), BASELINE))
    assert sum(s.count for key, s in states.items() if key[1:] == (EVERYONE, "", "", TABLE)) == odd.num_rows
