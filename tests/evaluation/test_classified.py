import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from noria.domain.errors import InvalidData
from noria.evaluation.classified import classified

CLASSES = ["bad", "good", "meh"]


def answers(rows=400, classes=3, seed=1):
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet([0.7] * classes, rows)
    labels = (rng.random((rows, 1)) > chances.cumsum(axis=1)).sum(axis=1)
    names = np.array(CLASSES[:classes])
    return names[labels].tolist(), names[chances.argmax(axis=1)].tolist(), chances


@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_every_column_agrees_with_scikit_learn(average: str) -> None:
    labels, said, chances = answers()
    found = classified(labels, said, chances, CLASSES).columns
    assert found["accuracy_score"] == pytest.approx(accuracy_score(labels, said))
    assert found["precision"][average] == pytest.approx(precision_score(labels, said, average=average))
    assert found["recall"][average] == pytest.approx(recall_score(labels, said, average=average))
    assert found["f1_score"][average] == pytest.approx(f1_score(labels, said, average=average))
    assert found["roc_auc_score"][average] == pytest.approx(
        roc_auc_score(labels, chances, multi_class="ovr", average=average, labels=CLASSES)
    )
    assert found["log_loss"] == pytest.approx(log_loss(labels, chances, labels=CLASSES))
    by_class = f1_score(labels, said, average=None, labels=CLASSES)
    assert found["f1_score"]["one_vs_all"] == pytest.approx(dict(zip(CLASSES, by_class, strict=True)))
    matrix = confusion_matrix(labels, said, labels=CLASSES)
    cells = {(c["label"], c["prediction"]): c["count"] for c in found["confusion_matrix"]}
    for i, label in enumerate(CLASSES):
        for j, prediction in enumerate(CLASSES):
            assert cells.get((label, prediction), 0) == matrix[i, j]


def test_the_auc_of_two_classes_is_that_of_either() -> None:
    labels, said, chances = answers(classes=2)
    found = classified(labels, said, chances, CLASSES[:2])
    expected = roc_auc_score([label == "good" for label in labels], chances[:, 1])
    assert found.columns["roc_auc_score"]["one_vs_all"] == pytest.approx({"good": expected, "bad": expected})
    assert found.measures["roc_auc"].value == pytest.approx(expected)


def test_accuracy_has_its_interval_and_calibration_its_error() -> None:
    labels, said, chances = answers(4000)
    found = classified(labels, said, chances, CLASSES).measures
    accuracy = found["accuracy"]
    assert accuracy.low < accuracy.value < accuracy.high
    assert accuracy.rows == 4000
    assert found["calibration_error"].value < 0.03  # these probabilities are true


def test_rows_without_probabilities_count_for_all_that_needs_none() -> None:
    labels, said, chances = answers(50)
    chances[10:] = np.nan
    found = classified(labels, said, chances, CLASSES).measures
    assert (found["accuracy"].rows, found["log_loss"].rows) == (50, 10)
    bare = classified(labels, said, np.empty((50, 0)), []).columns
    assert not {"roc_auc_score", "log_loss"} & set(bare)


def test_labels_that_the_model_does_not_know_are_wrong_and_break_nothing() -> None:
    found = classified(["other", "good"], ["good", "good"], np.array([[0.4, 0.6], [0.1, 0.9]]), ["bad", "good"])
    assert found.columns["accuracy_score"] == 0.5
    assert found.columns["roc_auc_score"]["one_vs_all"] == {"good": 1.0}
    assert found.columns["log_loss"] > 10


def test_one_class_alone_has_no_auc_and_no_rows_are_refused() -> None:
    found = classified(["good"], ["good"], np.array([[0.2, 0.8]]), ["bad", "good"])
    assert "roc_auc_score" not in found.columns
    with pytest.raises(InvalidData, match="no labelled rows"):
        classified([], [], np.empty((0, 2)), ["bad", "good"])
