import math
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.domain.errors import InvalidData, StorageCorrupted
from noria.evaluation.cells import Categories, NumericBins, ScoreGrid, apart
from noria.evaluation.sequential import log_e_two_sample
from noria.evaluation.sketches import distinct, frequent, quantiles
from noria.evaluation.states import ColumnState, merged

BINS = NumericBins.fit(np.arange(100.0), 20)
NAMES = Categories.fit(["a", "a", "b", "你好", "😀"])
EXACT = (
    "name",
    "count",
    "nulls",
    "nans",
    "zeros",
    "finite",
    "low",
    "high",
    "texts",
    "shortest",
    "longest",
    "characters",
)

BAD_UTF8 = pa.Array.from_buffers(
    pa.string(), 2, [None, pa.array([0, 1, 3], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xc3\x28")]
)

numbers = st.lists(st.none() | st.floats() | st.integers(-5, 200).map(float), max_size=60)
words = st.lists(
    st.none() | st.sampled_from(["a", "b", "你好", "مرحبا", "नमस्ते", "😀", ""]) | st.text(max_size=4), max_size=60
)


def split(values, cuts, order):
    """Values in parts of any sizes and in any order."""
    bounds = sorted({0, len(values), *(cut % (len(values) + 1) for cut in cuts)})
    parts = [values[a:b] for a, b in pairwise(bounds)] or [values]
    return [parts[i] for i in np.random.default_rng(order).permutation(len(parts))]


def same(one, other):
    """What has to be equal to the last bit."""
    assert [getattr(one, fact) for fact in EXACT] == [getattr(other, fact) for fact in EXACT]
    assert one.cells.tolist() == other.cells.tolist()
    assert one.hll == other.hll


# --- of values


def test_numbers_are_counted_for_what_they_are():
    state = ColumnState.of("n", pa.array([0.0, -0.0, 3.0, None, math.nan, math.inf], pa.float64()), BINS)
    assert (state.data_type, state.count, state.nulls, state.nans, state.zeros) == ("double", 6, 1, 1, 2)
    assert (state.finite, state.mean, state.m2, state.low, state.high) == (3, 1, 6, 0, math.inf)
    assert state.cells.sum() == 4
    assert distinct(state.hll) == 3


def test_moments_agree_with_numpy():
    values = np.random.default_rng(0).gamma(3, 10, 5000)
    state = ColumnState.of("n", pa.array(values))
    assert state.mean == pytest.approx(values.mean(), rel=1e-12)
    assert state.m2 / (state.finite - 1) == pytest.approx(values.var(ddof=1), rel=1e-12)


def test_texts_are_measured_in_characters_whatever_the_script():
    state = ColumnState.of("t", pa.array(["你好", "مرحبا", "😀", "", None, "a" * 1_000_000]), NAMES)
    assert (state.data_type, state.texts, state.shortest, state.longest) == ("string", 5, 0, 1_000_000)
    assert state.characters == 2 + 5 + 1 + 1_000_000
    assert state.cells.tolist() == [0, 0, 1, 1, 3]
    assert all(len(item) <= 200 for item in frequent(state.items).items)


@pytest.mark.parametrize(
    ("values", "kind", "mean"),
    [
        (pa.array([1, 2, None]), "double", 1.5),
        (pa.array([Decimal("1.5"), Decimal("2.5")]), "double", 2),
        (pa.array([True, False, True, True]), "boolean", 0.75),
        (pa.array([date(1970, 1, 3)]), "date", 172_800),
        (pa.array([datetime(1970, 1, 1, 0, 1, tzinfo=UTC)]), "timestamp", 60),
        (pa.array([1.5], pa.float16()), "double", 1.5),
        (pa.array(["a", "b"]).dictionary_encode(), "string", 0),
        (pa.array([b"\xff", b"a"]), "string", 0),
        (pa.array([[1, 2], None]), "string", 0),
        (pa.array([{"a": "\x00"}]), "string", 0),
        (pa.array(["a"], pa.string_view()), "string", 0),
        (pa.nulls(3), "void", 0),
        (pa.array([(1, 2, 3), None], pa.month_day_nano_interval()), "string", 0),
        (pa.array([b"\xff\x00", None], pa.binary(2)), "string", 0),
        (pa.array([b"ab", None], pa.binary_view()), "string", 0),
        (pa.array([bytes(range(240, 256)), None], pa.uuid()), "string", 0),
        (pa.RunEndEncodedArray.from_arrays(pa.array([2, 4], pa.int32()), pa.array([1.5, 2.5])), "double", 2),
        (pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]), "string", 0),
        (pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())), "string", 0),
        (pa.array([90, None], pa.duration("s")), "double", 90),
        (BAD_UTF8, "string", 0),
        (pa.chunked_array([pa.array([1.0]), pa.array([2.0, None])]), "double", 1.5),
        (pa.chunked_array([], pa.string()), "string", 0),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_a_column_of_any_type_has_a_state(values, kind, mean):
    state = ColumnState.of("c", values, BINS)
    assert (state.data_type, state.mean, state.count) == (kind, mean, len(values))
    assert len(state.cells) == BINS.size
    assert ColumnState.of("c", values, NAMES).cells.sum() == len(values) - values.null_count


def test_what_is_no_value_of_the_references_kind_is_no_evidence():
    before = ColumnState.of("n", pa.array([1.0, 2.0]), BINS)
    assert before.cells.sum() == 2
    for strange in (pa.nulls(50), pa.array(["x"] * 50), pa.array([math.nan] * 50)):
        state = ColumnState.of("n", strange, BINS)
        assert (state.count, state.cells.sum()) == (50, 0)
        assert before.merge(state).cells.tolist() == before.cells.tolist()


def test_a_column_that_turns_from_numbers_to_texts_says_string():
    both = ColumnState.of("n", pa.array([1, 2])).merge(ColumnState.of("n", pa.array(["x", "3"])))
    assert (both.data_type, both.count, both.finite, both.texts, distinct(both.hll)) == ("string", 4, 2, 2, 4)


def test_numbers_that_are_written_as_texts_fall_into_the_cells_of_numbers():
    assert ColumnState.of("n", pa.array(["5", "5.0", "x"]), BINS).cells.sum() == 2


def test_the_largest_numbers_overflow_nothing():
    state = ColumnState.of("n", pa.array([1.7e308, 1.7e308, -1.7e308, -1.7e308]), BINS)
    both = merged([state, ColumnState.of("n", pa.array([1.7e308] * 3))])
    assert not math.isnan(both.mean)
    assert both.mean == pytest.approx(1.7e308 / 7 * 3)
    assert both.m2 == math.inf


@pytest.mark.parametrize("value", [1.7e308, 0.1, -5e-324, 1e200])
def test_a_constant_has_no_deviation_however_it_is_split(value):
    both = merged(ColumnState.of("n", pa.array([value] * rows)) for rows in (3, 1, 7))
    assert (both.mean, both.m2, both.low, both.high) == (value, 0, value, value)


def test_a_million_categories_stay_small():
    state = ColumnState.of("c", pa.array([f"user {i}" for i in range(1_000_000)]), NAMES)
    assert distinct(state.hll) == pytest.approx(1_000_000, rel=0.05)
    assert state.cells.tolist() == [0, 0, 0, 0, 1_000_000]
    assert len(state.to_bytes()) < 50_000


# --- merging


@settings(max_examples=300)
@given(numbers, st.lists(st.integers(0, 1000), max_size=6), st.integers(0, 99))
def test_numbers_split_in_any_way_merge_to_the_same_counts(values, cuts, order):
    whole = ColumnState.of("n", pa.array(values, pa.float64()), BINS)
    parts = [ColumnState.of("n", pa.array(part, pa.float64()), BINS) for part in split(values, cuts, order)]
    both = merged(parts)
    same(whole, both)
    reference = np.full(BINS.size, 7)
    evidence = [log_e_two_sample(state.cells, reference, ordered=BINS.ordered) for state in (whole, both)]
    assert evidence[0] == evidence[1]
    scale = max((abs(v) for v in values if v is not None and math.isfinite(v)), default=1)
    assert both.mean == pytest.approx(whole.mean, rel=1e-9, abs=1e-9 * scale)
    if scale < 1e150:  # else squares are beyond what a double holds
        assert both.m2 == pytest.approx(whole.m2, rel=1e-9, abs=1e-9 * scale**2)


@settings(max_examples=300)
@given(words, st.lists(st.integers(0, 1000), max_size=6), st.integers(0, 99))
def test_texts_split_in_any_way_merge_to_the_same_counts(values, cuts, order):
    whole = ColumnState.of("t", pa.array(values, pa.string()), NAMES)
    both = merged(ColumnState.of("t", pa.array(part, pa.string()), NAMES) for part in split(values, cuts, order))
    same(whole, both)
    assert frequent(whole.items) == frequent(both.items)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 20_000), max_size=5), st.integers(0, 99))
def test_sketches_of_many_values_stay_within_their_error(seed, cuts, order):
    rng = np.random.default_rng(seed)
    values = np.round(rng.lognormal(3, 2, 20_000), int(rng.integers(5)))
    parts = [ColumnState.of("n", pa.array(part), BINS) for part in split(values, cuts, order)]
    both = merged(parts)
    same(ColumnState.of("n", pa.array(values), BINS), both)
    assert distinct(both.hll) == pytest.approx(len(np.unique(values)), rel=0.1)
    for rank, found in zip((0.1, 0.5, 0.9), quantiles(both.kll, np.array([0.1, 0.5, 0.9])), strict=True):
        assert (values < found).mean() - 0.03 <= rank <= (values <= found).mean() + 0.03


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 5000), max_size=5), st.integers(0, 99))
def test_frequent_values_of_very_many_are_at_most_so_many_too_few(seed, cuts, order):
    draws = np.random.default_rng(seed).zipf(1.3, 5000) % 10_000
    values = [f"word {i}" for i in draws]
    both = merged(ColumnState.of("t", pa.array(part, pa.string())) for part in split(values, cuts, order))
    found = frequent(both.items)
    assert found.error <= 5000 / 257
    for word, times in found.items.items():
        assert times <= values.count(word) <= times + found.error
    assert all(values.count(f"word {i}") <= found.error for i in set(draws) if f"word {i}" not in found.items)


def test_a_state_without_cells_makes_the_whole_have_none():
    one, other = ColumnState.of("n", pa.array([1.0]), BINS), ColumnState.of("n", pa.array([1.0]))
    assert one.merge(other).cells.size == 0
    assert one.merge(ColumnState.of("n", pa.nulls(3))).cells.sum() == 1


def test_states_of_different_columns_do_not_merge():
    with pytest.raises(InvalidData, match="a, b can't be merged"):
        merged([ColumnState(name="a"), ColumnState(name="b")])
    with pytest.raises(InvalidData, match="no column"):
        merged([])


# --- kept


@given(numbers | words)
def test_a_state_is_read_back_as_it_was(values):
    column = pa.array(values, pa.string() if any(isinstance(v, str) for v in values) else pa.float64())
    state = ColumnState.of("c", column, NAMES)
    back = ColumnState.from_bytes(state.to_bytes())
    same(state, back)
    assert (back.mean, back.m2, back.kll, back.items, back.data_type) == (
        state.mean, state.m2, state.kll, state.items, state.data_type,
    )  # fmt: skip
    assert back.merge(state).count == 2 * state.count


@pytest.mark.parametrize("raw", [b"", b"\x00", b"nonsense", ColumnState(name="a").to_bytes()[:-3], b"\x91\x07"])
def test_what_is_no_state_is_said_to_be_none(raw):
    with pytest.raises(StorageCorrupted, match="state of a window can't be read"):
        ColumnState.from_bytes(raw)


# --- cells


@settings(max_examples=200)
@given(st.lists(st.none() | st.integers(-10, 300) | st.floats(-10, 300)))
def test_a_column_of_arrow_falls_into_the_cells_of_the_same_values(values):
    column = pa.array(values, pa.float64())
    plain = [None if value is None else float(value) for value in values]
    for cells in (BINS, Categories.fit(["1", "2.5", "3", "inf"]), ScoreGrid()):
        assert cells.assign(column).tolist() == cells.assign(plain).tolist()
        assert cells.count(column).sum() == len(values)


@given(st.lists(st.sampled_from("abcdef") | st.text(max_size=2), max_size=300))
def test_a_reference_of_arrow_is_taken_apart_like_a_list(values):
    chosen, counted = apart(pa.array(values, pa.string()))
    assert (chosen.to_pylist(), counted.to_pylist()) == apart(values)


def test_categories_are_the_same_learnt_from_arrow_and_from_a_list():
    for values in (["b", "a", "b", None], [True, False, True], [1.0, 2.5, 1.0], [3, 3, 1]):
        assert Categories.fit(pa.array(values)).known == Categories.fit(values).known


@given(st.lists(st.floats(0, 1)))
def test_scores_are_rounded_up_to_the_grid(scores):
    grid = ScoreGrid()
    counted = grid.values[grid.assign(np.array(scores))]
    assert all(score - 1e-11 <= value < score + 1 / 200 for score, value in zip(scores, counted, strict=True))
    assert grid.count(np.array(scores)).sum() == len(scores)


def test_scores_on_the_grid_stay_and_odd_ones_have_a_cell():
    grid = ScoreGrid()
    assert grid.assign([k / 200 for k in range(201)]).tolist() == list(range(201))
    assert grid.assign([-1, 2, math.nan, None, math.inf]).tolist() == [0, 200, 200, 200, 200]
    assert grid.from_arrays(grid.to_arrays()) == grid
    assert len(grid.names) == grid.size == 201
