"""A chat's answers beside those that were wanted."""

import pytest

from noria.domain.errors import InvalidData
from noria.training.grading import certain, grade_chat

RIGHT, FAR = "The parcel comes on Monday.", "No idea at all, sorry"


def test_a_chat_is_measured_by_how_near_it_comes_by_group_too() -> None:
    said = [RIGHT] * 60 + [FAR] * 60
    rows = {"prediction": said, "label": [RIGHT] * 120, "group": ["east"] * 60 + ["west"] * 60}
    numbers, groups = grade_chat(rows, seed=1)
    assert numbers["exact_match"] == numbers["rouge_l"] == numbers["near"] == 0.5
    assert numbers["near_low"] < 0.5 < numbers["near_high"]
    assert 0 < numbers["bleu"] < 100
    assert (groups.gap, groups.worst.group if groups.worst else "") == (1.0, "west")


def test_a_chat_whose_answers_are_all_near_is_no_special_case() -> None:
    numbers, groups = grade_chat({"prediction": [RIGHT] * 2, "label": [RIGHT] * 2, "group": [None] * 2}, seed=1)
    assert (numbers["near"], numbers["rows"], groups.gap) == (1.0, 2.0, 0.0)
    with pytest.raises(InvalidData, match="no held-out rows"):
        grade_chat({"prediction": [], "label": [], "group": []}, seed=1)


def test_a_model_that_only_says_labels_is_not_called_certain() -> None:
    assert certain([0.9, 1.0])
    assert not certain([1.0, 1.0])
    assert not certain([0.9, None])
