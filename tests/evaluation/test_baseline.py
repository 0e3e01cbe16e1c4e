import numpy as np
import pytest

from noria.domain.errors import StorageCorrupted
from noria.evaluation.baseline import Baseline, lengths

TEXTS = [f"my order {i % 7} is {'late' if i % 3 else 'lost'} again" for i in range(200)]
PREDICTIONS = ["negative" if i % 3 else "neutral" for i in range(100)]


@pytest.fixture(scope="module")
def baseline():
    return Baseline.fit(TEXTS[:100], TEXTS[100:], PREDICTIONS, [True] * 80 + [False] * 20)


def test_a_baseline_counts_the_held_out_half(baseline):
    assert baseline.rows == 100
    assert baseline.text.counts.sum() == baseline.length.counts.sum() == baseline.prediction.counts.sum() == 100
    assert baseline.prediction.cells.known == ("negative", "neutral")


def test_the_floor_lies_surely_below_the_measured_accuracy(baseline):
    assert 0.65 < baseline.floor < 0.75


def test_a_baseline_survives_storage(baseline):
    again = Baseline.from_bytes(baseline.to_bytes())
    assert again.text.cells.assign(TEXTS).tolist() == baseline.text.cells.assign(TEXTS).tolist()
    assert again.length.cells.count(lengths(TEXTS)).tolist() == baseline.length.cells.count(lengths(TEXTS)).tolist()
    assert again.prediction.cells.names == baseline.prediction.cells.names
    assert again.text.counts.tolist() == baseline.text.counts.tolist()
    assert (again.floor, again.rows) == (baseline.floor, baseline.rows)


def test_free_text_answers_have_no_prediction_monitor_and_no_floor():
    again = Baseline.from_bytes(Baseline.fit(TEXTS[:50], TEXTS[50:]).to_bytes())
    assert again.prediction is None
    assert again.floor is None


def test_arrays_will_do_as_well_as_lists():
    fitted = Baseline.fit(TEXTS, TEXTS, np.array(PREDICTIONS), np.array([True, False]))
    assert fitted.floor is not None


def test_no_texts_make_a_baseline_too():
    empty = Baseline.from_bytes(Baseline.fit([], [], [], []).to_bytes())
    assert (empty.rows, empty.floor) == (0, None)


@pytest.mark.parametrize("damage", [lambda raw: b"", lambda raw: b"junk", lambda raw: raw[: len(raw) // 2]])
def test_a_damaged_file_is_named(baseline, damage):
    with pytest.raises(StorageCorrupted, match="baseline"):
        Baseline.from_bytes(damage(baseline.to_bytes()))
