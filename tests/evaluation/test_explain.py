import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from noria.evaluation.explain import MOST_ROWS, auc_interval, explain, explain_texts

SUBJECTS = ["my bag is lost", "where is my refund", "the flight is late", "thanks to the crew"]
scores = st.lists(st.floats(-5, 5).map(lambda x: round(x, 1)), min_size=2, max_size=30)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def messages(rng, number, new=0.0):
    """Messages of which a share is about a phone."""
    return [
        "the battery of my phone is empty" if chance < new else f"{rng.choice(SUBJECTS)} again"
        for chance in rng.random(number)
    ]


def rows(rng, number, *, shift=0.0, rare="c"):
    return pa.table(
        {
            "amount": rng.normal(shift, 1, number),
            "kind": rng.choice(["a", "b", rare], number, p=[0.5, 0.4, 0.1]),
            "record": np.arange(number),
            "odd": [[1]] * number,
            "nothing": pa.nulls(number),
        }
    )


def test_unchanged_rows_can_hardly_be_told_apart(rng):
    found = [explain(rows(rng, 300), rows(rng, 300)) for _ in range(20)]
    assert sum(f.low <= 0.5 for f in found) >= 17
    assert abs(np.mean([f.auc for f in found]) - 0.5) < 0.05


def test_a_new_topic_is_named_by_its_words(rng):
    found = explain_texts(messages(rng, 500, 0.2), messages(rng, 500))
    assert found.low > 0.5
    assert {"battery", "phone", "empty"} <= {sign.name for sign in found.signs}
    battery = next(sign for sign in found.signs if sign.name == "battery")
    assert battery.column == "input"
    assert battery.share_before == 0
    assert battery.share_now == pytest.approx(0.2, abs=0.06)
    assert battery.weight > 0


def test_moved_numbers_and_new_values_are_named_by_range_and_value(rng):
    found = explain(rows(rng, 1000, shift=1.5, rare="d"), rows(rng, 1000))
    assert found.auc > 0.75
    named = {(sign.column, sign.name) for sign in found.signs}
    assert ("kind", "d") in named
    assert any(column == "amount" and name.endswith("or more") for column, name in named)
    assert {column for column, _ in named} == {"amount", "kind"}


@pytest.mark.parametrize(
    ("new", "old", "word"),
    [
        ("我的手机电池坏了", ["航班又延误了", "行李在哪里", "请退款"], "电"),
        ("بطارية هاتفي فارغة", ["الرحلة متأخرة", "أين حقيبتي", "أريد استرداد المال"], "هاتفي"),
        ("मेरे फ़ोन की बैटरी खराब है", ["उड़ान देर से है", "मेरा सामान कहाँ है", "पैसे वापस करो"], "बैटरी"),
        ("📱🔋😡", ["✈️😴", "🧳❓", "💸🙏"], "🔋"),
    ],
    ids=["chinese", "arabic", "hindi", "emoji"],
)
def test_words_of_other_scripts_are_whole(rng, new, old, word):
    before = rng.choice(old, 200).tolist()
    found = explain_texts([*rng.choice(old, 150).tolist(), *[new] * 50], before, most=30)
    assert word in {sign.name for sign in found.signs}


def test_too_few_rows_and_nothing_to_look_at_explain_nothing(rng):
    assert explain(rows(rng, 19), rows(rng, 500)) is None
    assert explain(rows(rng, 100).select(["odd", "nothing", "record"]), rows(rng, 100)) is None
    assert explain_texts([""] * 50, ["", None] * 50).auc == 0.5


def test_the_same_rows_on_both_sides_are_no_sign_of_anything(rng):
    table = rows(rng, 200)
    found = explain(table, table)
    assert found.low <= 0.5
    assert found.signs == ()
    assert explain(table, table) == found


def test_many_and_long_rows_are_sampled_and_cut(rng):
    long = ["word " * 50_000] * 30
    found = explain_texts(messages(rng, 50_000, 0.1) + long, messages(rng, 50_000) + long)
    assert (found.rows_before, found.rows_now) == (MOST_ROWS, MOST_ROWS)


@given(scores, scores)
def test_the_auc_is_the_one_of_mann_and_whitney(new, old):
    auc, low, high = auc_interval(new, old)
    wanted = stats.mannwhitneyu(new, old).statistic / (len(new) * len(old))
    assert auc == pytest.approx(wanted)
    assert 0 <= low <= auc <= high <= 1
    turned = auc_interval(old, new)
    assert turned == pytest.approx((1 - auc, 1 - high, 1 - low))


def test_the_interval_covers_the_true_auc(rng):
    true = stats.norm.cdf(0.8 / math.sqrt(2))
    covered = 0
    for _ in range(200):
        _, low, high = auc_interval(rng.normal(0.8, 1, 60), rng.normal(0, 1, 80))
        covered += low <= true <= high
    assert 180 <= covered <= 199
