import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import accuracy_score, auc, f1_score, precision_score, recall_score, roc_auc_score

from noria.domain.errors import InvalidData
from noria.evaluation.calibration import Calibration, calibration_if_needed, miscalibration
from noria.evaluation.cbpe import estimate, estimate_windows

ROWS = st.lists(st.tuples(st.floats(0.01, 0.99), st.integers(0, 1)), min_size=2, max_size=8)


def outcomes(chances):
    """Every way in which the labels can turn out, shape (2^n, n), and how likely each is."""
    labels = np.array(list(itertools.product([0, 1], repeat=len(chances))))
    return labels, np.where(labels == 1, chances, 1 - chances).prod(axis=1)


@given(ROWS)
def test_accuracy_precision_and_confusion_are_the_expectation_over_all_outcomes(rows) -> None:
    chances, said = np.array([p for p, _ in rows]), np.array([s for _, s in rows])
    found = estimate(chances, said)
    labels, likely = outcomes(chances)
    accuracies = (labels == said).mean(axis=1)
    assert found.accuracy.value == pytest.approx(likely @ accuracies)
    assert found.accuracy.error**2 == pytest.approx(likely @ accuracies**2 - (likely @ accuracies) ** 2, abs=1e-9)
    precisions = (labels & said).sum(axis=1) / max(said.sum(), 1)
    assert found.precision.value == pytest.approx(likely @ precisions)
    assert found.precision.error**2 == pytest.approx(likely @ precisions**2 - (likely @ precisions) ** 2, abs=1e-9)
    for label, guess in itertools.product([0, 1], repeat=2):
        counts = ((labels == label) & (said == guess)).sum(axis=1)
        assert found.confusion[label, guess] == pytest.approx(likely @ counts)


@given(ROWS)
def test_recall_f1_and_auc_are_measured_on_the_expected_confusion_matrices(rows) -> None:
    """That is NannyML's definition: the measures' formulas on sums of probabilities."""
    chances, said = np.array([p for p, _ in rows]), np.array([s for _, s in rows])
    found = estimate(chances, said)
    hits, false, missed = chances @ said, (1 - chances) @ said, chances @ (1 - said)
    assert found.recall.value == pytest.approx(hits / (hits + missed))
    assert found.f1.value == pytest.approx(hits / (hits + 0.5 * (false + missed)))
    cuts = [*np.unique(chances)[::-1]]
    right = [0.0, *(chances[chances >= cut].sum() for cut in cuts)]
    wrong = [0.0, *((1 - chances)[chances >= cut].sum() for cut in cuts)]
    assert found.roc_auc.value == pytest.approx(auc(np.array(wrong) / wrong[-1], np.array(right) / right[-1]))


def test_scores_rank_and_calibrated_probabilities_weigh() -> None:
    rng = np.random.default_rng(3)
    scores = rng.random(50)
    chances = np.round(scores, 1)  # as isotonic regression leaves them: many ties
    found = estimate(chances, (scores > 0.5).astype(int), scores)
    order = np.argsort(-scores)
    right, wrong = np.cumsum(chances[order]), np.cumsum(1 - chances[order])
    expected = auc(np.r_[0, wrong] / wrong[-1], np.r_[0, right] / right[-1])
    assert found.roc_auc.value == pytest.approx(expected)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_error_is_how_far_the_true_measures_lie_from_the_estimate(classes: int) -> None:
    rng = np.random.default_rng(7)
    chances = rng.dirichlet([0.6] * classes, 1500)
    said = chances.argmax(axis=1)
    binary = classes == 2
    found = estimate(chances[:, 1] if binary else chances, said).measures()
    average = "binary" if binary else "macro"
    seen = {name: [] for name in found}
    for _ in range(200):
        labels = (rng.random((1500, 1)) > chances.cumsum(axis=1)).sum(axis=1)
        seen["accuracy"].append(accuracy_score(labels, said))
        seen["precision"].append(precision_score(labels, said, average=average))
        seen["recall"].append(recall_score(labels, said, average=average))
        seen["f1"].append(f1_score(labels, said, average=average))
        seen["roc_auc"].append(roc_auc_score(labels, chances[:, 1] if binary else chances, multi_class="ovr"))
    for name, values in seen.items():
        assert found[name].value == pytest.approx(np.mean(values), abs=5 * found[name].error / 200**0.5 + 2e-3), name
        assert found[name].error == pytest.approx(np.std(values), rel=0.2), name


def test_several_classes_are_averaged_each_against_the_rest() -> None:
    rng = np.random.default_rng(1)
    chances = rng.dirichlet([0.5] * 3, 400)
    said = chances.argmax(axis=1)
    found = estimate(chances, said)
    single = [estimate(chances[:, c], (said == c).astype(int)) for c in range(3)]
    for name in ("precision", "recall", "f1", "roc_auc"):
        assert found.measures()[name].value == pytest.approx(np.mean([s.measures()[name].value for s in single]))
    assert found.accuracy.value == pytest.approx(chances.max(axis=1).mean())
    assert found.confusion.sum() == pytest.approx(400)
    assert found.confusion[1, 2] == pytest.approx(chances[said == 2, 1].sum())


def test_windows_are_estimated_each_by_itself_in_any_order_of_the_rows() -> None:
    rng = np.random.default_rng(2)
    chances, windows = rng.random(600), rng.integers(0, 5, 600)
    windows[windows == 3] = 4  # one window is empty
    said = (chances > 0.4).astype(int)
    found = estimate_windows(chances, said, windows)
    assert [f.rows for f in found] == np.bincount(windows).tolist()
    assert np.isnan(found[3].accuracy.value)
    for number in (0, 1, 2, 4):
        alone = estimate(chances[windows == number], said[windows == number])
        assert found[number].measures()["roc_auc"].value == pytest.approx(alone.roc_auc.value)
        assert found[number].f1.error == pytest.approx(alone.f1.error)


def test_rows_without_probabilities_are_left_out_and_odd_ones_say_so() -> None:
    found = estimate([0.9, np.nan, 0.2], [1, 1, 0])
    assert (found.rows, found.accuracy.value) == (2, pytest.approx(0.85))
    windows = estimate_windows([0.9, np.nan, 0.2], [1, 1, 0], [0, 1, 2])
    assert [w.rows for w in windows] == [1, 0, 1]
    assert np.isnan(estimate([], []).f1.value)
    assert np.isnan(estimate([1.0, 1.0], [1, 1]).roc_auc.value)  # one class only
    assert estimate([1.0, 1.0], [1, 1]).f1.value == 1
    assert estimate([0.5, 0.5], [0, 0]).precision.value == 0  # as scikit-learn has it: nothing was predicted
    with pytest.raises(InvalidData, match="outside"):
        estimate([1.5], [1])
    with pytest.raises(InvalidData, match="fit"):
        estimate([0.5, 0.5], [1])
    with pytest.raises(InvalidData, match="class"):
        estimate([0.5], [2])
    with pytest.raises(InvalidData, match="window"):
        estimate_windows([0.5], [1], [-1])


def test_bounds_are_three_errors_away_within_zero_and_one() -> None:
    found = estimate([0.99] * 10, [1] * 10).accuracy
    assert found.high == 1
    assert found.low == pytest.approx(0.99 - 3 * found.error)


def test_a_model_that_overstates_is_calibrated_and_one_that_does_not_is_left_alone() -> None:
    rng = np.random.default_rng(5)
    chances = rng.random(4000)
    overstated = (rng.random(4000) < 0.25 + 0.5 * chances).astype(int)
    calibrated = calibration_if_needed(chances, overstated)
    assert calibrated is not None
    assert miscalibration(calibrated.apply(chances), overstated) < 0.02 < miscalibration(chances, overstated)
    assert calibrated.apply(chances) == pytest.approx(
        IsotonicRegression(out_of_bounds="clip").fit(chances, overstated).predict(chances)
    )
    assert calibration_if_needed(np.full(4000, 0.5), np.arange(4000) % 2) is None


def test_an_estimate_from_calibrated_probabilities_meets_the_labels_that_come_later() -> None:
    rng = np.random.default_rng(11)
    truth = rng.dirichlet([0.5] * 3, 8000)
    stated = truth**2 / (truth**2).sum(axis=1, keepdims=True)  # overconfident
    labels = (rng.random((8000, 1)) > truth.cumsum(axis=1)).sum(axis=1)
    calibrated = calibration_if_needed(stated[:4000], labels[:4000])
    assert calibrated is not None
    calibrated = Calibration.from_json(calibrated.to_json())
    said = stated[4000:].argmax(axis=1)
    raw, found = estimate(stated[4000:], said), estimate(calibrated.apply(stated[4000:]), said, stated[4000:])
    true = accuracy_score(labels[4000:], said)
    assert not raw.accuracy.low < true < raw.accuracy.high
    assert found.accuracy.low < true < found.accuracy.high
    assert calibrated.apply(stated).sum(axis=1) == pytest.approx(1)


def test_too_few_labelled_rows_calibrate_nothing() -> None:
    with pytest.raises(InvalidData, match="calibrate nothing"):
        calibration_if_needed([0.5, 0.5], [0, 1])
