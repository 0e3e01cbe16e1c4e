import math

import numpy as np
import pyarrow as pa
import pytest

from noria.evaluation.profile import profile_categories, profile_numbers, profile_table, profile_texts
from noria.tables import PROFILE_METRICS


def test_numbers_are_summarised():
    values = np.random.default_rng(0).permutation(np.arange(1, 1001)).tolist()
    row = profile_numbers("latency", values)
    assert (row["count"], row["num_nulls"], row["min"], row["max"]) == (1000, 0, 1, 1000)
    assert row["avg"] == pytest.approx(500.5)
    assert row["stddev"] == pytest.approx(np.std(values, ddof=1))
    assert row["median"] == pytest.approx(500, rel=0.05)
    assert len(row["quantiles"]) == 101
    assert row["distinct_count"] == pytest.approx(1000, rel=0.05)


def test_what_is_no_number_is_counted_as_what_it_is():
    row = profile_numbers("n", [0, 0.0, None, math.nan, math.inf, "x"])
    assert (row["count"], row["num_nulls"], row["num_nan"], row["num_zeros"]) == (6, 1, 2, 2)
    assert (row["max"], row["avg"], row["stddev"]) == (math.inf, 0, 0)
    assert row["percent_null"] == pytest.approx(100 / 6)


@pytest.mark.parametrize("values", [[], [None, None], [math.nan], [7], [math.inf] * 3, [5] * 100])
def test_a_poor_numeric_column_gets_a_row_that_says_so(values):
    row = profile_numbers("n", values)
    assert row["count"] == len(values)
    assert ("avg" in row) == any(v is not None and not math.isnan(v) for v in values)
    assert row["distinct_count"] == len({v for v in values if v is not None and v == v})


def test_texts_are_summarised_by_length_and_repetition():
    row = profile_texts("input", ["late again", "late again", "thanks", "", None])
    assert (row["min_length"], row["max_length"], row["avg_length"]) == (0, 10, 6.5)
    assert (row["num_nulls"], row["distinct_count"]) == (1, 3)
    assert row["frequent_items"] == [{"item": "late again", "count": 2}]


@pytest.mark.parametrize("values", [[], [None], [""], ["\ud83d"], ["x" * 1_000_000, "你好", "😀"]])
def test_a_poor_text_column_gets_a_row_that_says_so(values):
    row = profile_texts("input", values)
    assert row["count"] == len(values)
    assert row["frequent_items"] == []


def test_categories_list_every_value():
    row = profile_categories("prediction", ["a", "b", "a", None])
    assert row["frequent_items"] == [{"item": "a", "count": 2}, {"item": "b", "count": 1}]


def test_frequent_items_survive_a_crowd_of_rare_ones():
    row = profile_categories("prediction", ["often"] * 5000 + [str(i) for i in range(20_000)])
    assert row["frequent_items"][0]["item"] == "often"
    assert row["frequent_items"][0]["count"] == pytest.approx(5000, rel=0.02)


def test_the_table_row_names_the_columns_that_hold_anything():
    row = profile_table({"input": ["a", None], "ttft_ms": [None, None]})
    assert (row["count"], row["non_null_columns"]) == (2, ["input"])
    assert profile_table({})["count"] == 0


def test_rows_fit_the_table():
    rows = [
        profile_numbers("n", [1, math.inf, None]),
        profile_texts("t", ["a", "a"]),
        profile_table({"n": [1]}),
    ]
    table = pa.Table.from_pylist(rows, schema=PROFILE_METRICS)
    assert set().union(*rows) <= set(PROFILE_METRICS.names)
    assert table.num_rows == 3
