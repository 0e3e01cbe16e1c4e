import json

import numpy as np
import pytest

from noria.domain.errors import InvalidData
from noria.evaluation.fairness import NO_GROUP, assess, fairness_chart, permutation_p_value


def rows(**groups: tuple[int, int]) -> tuple[list[str], list[str], list[str]]:
    """Labels, predictions and groups, from group → (rows, right answers)."""
    labels: list[str] = []
    said: list[str] = []
    named: list[str] = []
    for group, (total, right) in groups.items():
        for i in range(total):
            label = "yes" if i % 2 else "no"
            labels.append(label)
            said.append(label if i < right else ("no" if label == "yes" else "yes"))
            named.append(group)
    return labels, said, named


def test_the_gap_is_between_the_best_and_the_worst_group_that_is_large_enough() -> None:
    table = assess(*rows(airline=(200, 160), phone=(100, 50), tiny=(10, 0)))
    assert table.gap == pytest.approx(0.3)
    assert table.worst is not None
    assert table.worst.group == "phone"
    assert table.best is not None
    assert table.best.group == "airline"
    assert [(g.group, g.rows, g.judged) for g in table.groups] == [
        ("airline", 200, True),
        ("phone", 100, True),
        ("tiny", 10, False),
    ]
    assert table.overall.accuracy == pytest.approx(210 / 310)


def test_rows_without_a_group_are_listed_but_not_judged() -> None:
    labels, said, _ = rows(x=(120, 60))
    table = assess(labels, said, [None, ""] * 60)
    assert table.groups[0].group == NO_GROUP
    assert table.gap == 0
    assert table.p_value == 1


def test_shares_of_the_answers_are_counted_for_every_class_in_every_group() -> None:
    table = assess(["a", "b", "c"], ["a", "a", "a"], ["g", "g", "h"], min_rows=1)
    for group in (*table.groups, table.overall):
        assert group.selection == {"a": 1.0, "b": 0.0, "c": 0.0}


def test_a_real_gap_is_told_from_chance() -> None:
    assert assess(*rows(a=(300, 270), b=(300, 180))).p_value < 0.01
    assert assess(*rows(a=(300, 240), b=(300, 243))).p_value > 0.3


def test_the_permutation_test_rarely_accuses_a_fair_model() -> None:
    rng = np.random.default_rng(11)
    sizes = [400, 120, 60, 50]
    accused = sum(
        permutation_p_value(sizes, list(rng.binomial(sizes, 0.7)), rounds=400, seed=i) <= 0.05 for i in range(400)
    )
    assert accused <= 35  # 20 expected of 400; 35 is more than three standard deviations above


def test_the_table_and_its_chart_are_plain_json() -> None:
    table = assess(*rows(a=(60, 50), b=(20, 10)))
    written = json.loads(json.dumps({"rows": table.to_rows(), "chart": fairness_chart(table, "triage/1")}))
    assert [r["group"] for r in written["rows"]] == ["a", "b", "all"]
    assert written["chart"]["data"]["values"][1]["group"] == "b (20)"
    assert json.dumps(table.numbers())


def test_sequences_of_different_length_are_refused() -> None:
    with pytest.raises(InvalidData, match="2 labels, 2 predictions and 1 groups"):
        assess(["a", "b"], ["a", "b"], ["g"])
