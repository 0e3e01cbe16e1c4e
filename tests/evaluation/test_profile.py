import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.evaluation.profile import profile, profile_table
from noria.evaluation.states import ColumnState
from noria.tables import PROFILE_METRICS


def of(values, kind=None, name="c"):
    return profile(ColumnState.of(name, pa.array(values, kind)))


def doubles(values):
    return of(values, pa.float64())


def test_numbers_are_summarised():
    values = np.random.default_rng(0).permutation(np.arange(1, 1001)).tolist()
    row = doubles(values)
    assert (row["count"], row["num_nulls"], row["min"], row["max"]) == (1000, 0, 1, 1000)
    assert row["avg"] == pytest.approx(500.5)
    assert row["stddev"] == pytest.approx(np.std(values, ddof=1))
    assert row["median"] == pytest.approx(500, rel=0.05)
    assert len(row["quantiles"]) == 101
    assert row["quantiles"][0] == 1
    assert row["quantiles"][-1] == 1000
    assert row["distinct_count"] == pytest.approx(1000, rel=0.05)


def test_what_is_no_number_is_counted_as_what_it_is():
    row = doubles([0, 0.0, None, math.nan, math.inf, math.nan])
    assert (row["count"], row["num_nulls"], row["num_nan"], row["num_zeros"]) == (6, 1, 2, 2)
    assert (row["max"], row["avg"], row["stddev"]) == (math.inf, 0, 0)
    assert row["percent_null"] == pytest.approx(100 / 6)
    assert row["percent_nan"] == row["percent_zeros"] == pytest.approx(200 / 6)


@pytest.mark.parametrize("values", [[], [None, None], [math.nan], [7], [math.inf] * 3, [5] * 100, [-1e308, 1e308]])
def test_a_poor_numeric_column_gets_a_row_that_says_so(values):
    row = doubles(values)
    known = [v for v in values if v is not None and v == v]
    assert (row["count"], row["num_nulls"]) == (len(values), values.count(None))
    assert ("min" in row) == bool(known)
    assert row.get("avg") is None or math.isfinite(row["avg"])
    assert row["distinct_count"] == len(set(known))


def test_a_constant_has_no_deviation():
    row = doubles([5] * 100)
    assert (row["avg"], row["stddev"], row["min"], row["max"], row["median"]) == (5, 0, 5, 5, 5)
    assert set(row["quantiles"]) == {5}


def test_texts_are_summarised_by_length_and_repetition():
    row = of(["late again " * 5, "late again " * 5, "thanks " * 20, "", None])
    assert (row["min_length"], row["max_length"], row["avg_length"]) == (0, 140, 62.5)
    assert (row["num_nulls"], row["distinct_count"]) == (1, 3)
    assert row["frequent_items"] == [{"item": "late again " * 5, "count": 2}]


@pytest.mark.parametrize("values", [[], [None], ["x" * 1_000_000, "你好", "😀"], [str(i) for i in range(21)]])
def test_a_poor_text_column_gets_a_row_that_says_so(values):
    row = of(values, pa.string())
    assert row["count"] == len(values)
    assert row["frequent_items"] == []


def test_few_short_values_are_all_listed():
    row = of(["a", "b", "a", None, "😀"])
    assert row["frequent_items"] == [
        {"item": "a", "count": 2}, {"item": "b", "count": 1}, {"item": "😀", "count": 1},
    ]  # fmt: skip
    assert of([True, False, True])["frequent_items"] == [{"item": "true", "count": 2}, {"item": "false", "count": 1}]


def test_frequent_items_survive_a_crowd_of_rare_ones():
    row = of(["often"] * 5000 + [str(i) for i in range(20_000)])
    assert row["frequent_items"][0]["item"] == "often"
    assert row["frequent_items"][0]["count"] == pytest.approx(5000, rel=0.02)


def test_a_share_of_true_is_an_average():
    row = of([True, False, True, None])
    assert (row["data_type"], row["avg"], row["percent_null"]) == ("boolean", pytest.approx(2 / 3), 25)


def test_a_column_that_changed_its_type_shows_both_sides():
    both = ColumnState.of("c", pa.array([1, 3])).merge(ColumnState.of("c", pa.array(["three"])))
    row = profile(both)
    assert (row["data_type"], row["count"], row["avg"], row["max_length"]) == ("string", 3, 2, 5)


def test_the_table_row_names_the_columns_that_hold_anything():
    states = [ColumnState.of("input", pa.array(["a", None])), ColumnState.of("ttft_ms", pa.nulls(2))]
    row = profile_table(states)
    assert (row["column_name"], row["count"], row["non_null_columns"]) == (":table", 2, ["input"])
    assert profile_table(states, 1)["count"] == 1
    assert profile_table([])["count"] == 0


COLUMNS = st.one_of(
    st.lists(st.none() | st.floats()).map(lambda v: pa.array(v, pa.float64())),
    st.lists(st.none() | st.text()).map(lambda v: pa.array(v, pa.string())),
    st.lists(st.none() | st.booleans()).map(lambda v: pa.array(v, pa.bool_())),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)).map(lambda v: pa.array(v, pa.int64())),
    st.lists(st.none() | st.datetimes()).map(lambda v: pa.array(v, pa.timestamp("us"))),
    st.lists(st.none() | st.dates()).map(lambda v: pa.array(v, pa.date32())),
    st.lists(st.none() | st.binary()).map(lambda v: pa.array(v, pa.binary())),
    st.lists(st.none() | st.lists(st.floats())).map(lambda v: pa.array(v, pa.list_(pa.float64()))),
)


@given(st.lists(COLUMNS, min_size=1, max_size=3))
def test_rows_of_any_columns_fit_the_table(columns):
    row = profile(ColumnState.of("c", columns[0]))
    for column in columns[1:]:
        row = profile(ColumnState.of("c", columns[0]).merge(ColumnState.of("c", column)))
    assert set(row) <= set(PROFILE_METRICS.names)
    assert pa.Table.from_pylist([row], schema=PROFILE_METRICS).num_rows == 1
    assert all(0 <= row[share] <= 100 for share in row if share.startswith("percent"))
