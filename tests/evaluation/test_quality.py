import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from noria.domain.errors import InvalidData
from noria.evaluation.quality import calibration_error, measure, wilson

LABELS = st.sampled_from(["good", "bad", "meh"])
PAIRS = st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=60)


@given(PAIRS)
def test_every_measure_agrees_with_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    labels, said = [p[0] for p in pairs], [p[1] for p in pairs]
    quality = measure(labels, said)
    assert quality.accuracy == pytest.approx(accuracy_score(labels, said))
    assert quality.macro_f1 == pytest.approx(f1_score(labels, said, average="macro", zero_division=0))
    names = [c.label for c in quality.classes]
    precision, recall, f1, support = precision_recall_fscore_support(labels, said, labels=names, zero_division=0)
    assert [c.precision for c in quality.classes] == pytest.approx(list(precision))
    assert [c.recall for c in quality.classes] == pytest.approx(list(recall))
    assert [c.f1 for c in quality.classes] == pytest.approx(list(f1))
    assert [c.rows for c in quality.classes] == list(support)


@given(st.integers(0, 500), st.integers(1, 500))
def test_a_wilson_interval_holds_the_share_and_stays_within_zero_and_one(hits: int, rows: int) -> None:
    hits = min(hits, rows)
    interval = wilson(hits, rows)
    assert 0 <= interval.low <= hits / rows + 1e-12
    assert hits / rows - 1e-12 <= interval.high <= 1


def test_a_wilson_interval_agrees_with_the_published_example() -> None:
    interval = wilson(81, 263)  # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)


def test_no_rows_say_nothing_about_a_share() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


def test_scores_that_keep_their_word_have_almost_no_calibration_error() -> None:
    rng = np.random.default_rng(3)
    scores = rng.uniform(0.3, 1, 50_000)
    kept = rng.uniform(size=50_000) < scores
    assert calibration_error(list(kept), list(scores)) < 0.01
    assert calibration_error([False] * 10, [1.0] * 10) == pytest.approx(1.0)


def test_the_numbers_name_every_class() -> None:
    numbers = measure(["a", "b"], ["a", "a"], scores=[0.9, 0.6]).numbers()
    assert numbers["accuracy"] == 0.5
    assert numbers["f1_b"] == 0
    assert numbers["calibration_error"] == pytest.approx(0.35)


def test_rows_that_do_not_match_are_refused_with_their_counts() -> None:
    with pytest.raises(InvalidData, match="2 labels can't be compared with 1 predictions"):
        measure(["a", "b"], ["a"])
    with pytest.raises(InvalidData, match="no labelled rows"):
        measure([], [])
