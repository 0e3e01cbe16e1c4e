import json
from datetime import UTC, datetime
from typing import Any

import pytest

from noria.training.labelling import to_label, uncertainty

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def row(name: str, text: str, answer: str = "good", sure: float | None = None, shadow_of: str = "") -> dict[str, Any]:
    response: dict[str, Any] = {"predictions": [answer]}
    if sure is not None:
        response["probabilities"] = [{"good": sure, "bad": 1 - sure}]
    request = json.dumps({"input": text})
    return {"id": name, "time": NOW, "request": request, "response": json.dumps(response), "shadow_of": shadow_of}


def chosen(rows: list[dict[str, Any]], *labelled: str, most: int = 10) -> list[str]:
    return [one.request_id for one in to_label(rows, labelled, most)]


@pytest.mark.parametrize("measure", ["margin", "entropy"])
def test_a_toss_up_is_least_sure_and_a_certainty_most(measure: Any) -> None:
    assert uncertainty({"a": 0.5, "b": 0.5}, measure) == pytest.approx(1)
    assert uncertainty({"a": 1.0, "b": 0.0}, measure) == 0
    assert uncertainty({"a": 1.0}, measure) is None


def test_the_two_measures_differ_where_a_third_class_counts() -> None:
    shares = {"a": 0.5, "b": 0.5, "c": 0.0}
    assert uncertainty(shares) == 1
    assert uncertainty(shares, "entropy") == pytest.approx(0.6309, abs=1e-4)


def test_the_least_sure_come_first() -> None:
    assert chosen([row("1", "red", sure=0.99), row("2", "green", sure=0.55), row("3", "blue", sure=0.8)]) == [
        "2",
        "3",
        "1",
    ]


def test_what_a_candidate_calls_otherwise_comes_before_all_else() -> None:
    rows = [row("1", "red", sure=0.5), row("2", "green", sure=0.9), row("s", "green", "bad", shadow_of="2")]
    found = to_label(rows, (), 5)
    assert [(one.request_id, one.candidate) for one in found] == [("2", "bad"), ("1", None)]


def test_what_is_like_one_before_comes_later() -> None:
    rows = [row("1", "my parcel is late", sure=0.5), row("2", "my parcel is very late", sure=0.52)]
    assert chosen([*rows, row("3", "refund please", sure=0.7)]) == ["1", "3", "2"]


def test_what_has_a_label_and_what_says_the_same_is_not_asked_again() -> None:
    rows = [row("1", "red"), row("2", "Red "), row("3", "blue"), row("4", "blue"), row("5", "")]
    assert chosen(rows, "1") == ["3"]


def test_no_more_than_asked_for_are_shown() -> None:
    assert len(chosen([row(str(n), f"text {n}") for n in range(30)], most=4)) == 4
