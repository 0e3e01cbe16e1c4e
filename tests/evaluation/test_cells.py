import io
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.evaluation.cells import Categories, NumericBins, apart
from noria.evaluation.sequential import log_e_two_sample
from noria.evaluation.topics import TextCells

ODD = ["", "   ", None, 5, "😀🔥", "你好,我的订单在哪里", "مرحبا كيف حالك", "नमस्ते", "\ud83d", "\x00", "a " * 500_000]
SUBJECTS = {
    "baggage": ["bag", "lost", "suitcase", "luggage", "claim"],
    "refund": ["money", "back", "refund", "charged", "card"],
    "delay": ["late", "delayed", "hours", "gate", "waiting"],
    "praise": ["great", "thanks", "crew", "love", "friendly"],
}
NEWS = {"apple": ["iphone", "battery", "screen", "update", "macbook"]}


def messages(rng, number, subjects=SUBJECTS):
    """Messages of a few words, each about one subject."""
    chosen = [list(subjects.values())[i] for i in rng.integers(len(subjects), size=number)]
    return [f"{' '.join(rng.choice(words, 3))} {rng.choice(['today', 'again', 'please'])}" for words in chosen]


@pytest.fixture(scope="module")
def text_cells():
    return TextCells.fit(messages(np.random.default_rng(1), 600))


def stored(cells):
    """The cells after a round trip through a file of arrays."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **cells.to_arrays())
    with np.load(io.BytesIO(file.getvalue()), allow_pickle=False) as arrays:
        return type(cells).from_arrays(dict(arrays.items()))


# --- numbers


def test_bins_hold_equal_shares_of_their_reference():
    values = np.random.default_rng(0).normal(size=1000)
    assert NumericBins.fit(values).count(values).tolist() == pytest.approx([100] * 10 + [0], abs=1)


@given(st.lists(st.floats() | st.none() | st.text(max_size=3)), st.lists(st.floats() | st.integers() | st.none()))
def test_every_value_falls_into_one_bin_whatever_the_reference(reference, values):
    bins = NumericBins.fit(reference)
    counts = bins.count(values)
    assert counts.sum() == len(values)
    assert len(counts) == len(bins.names) == len(bins.centres) + 1


def test_the_largest_number_has_a_bin_like_any_other():
    largest = sys.float_info.max
    bins = NumericBins.fit([largest] * 20)
    assert bins.count([0, largest, math.inf]).tolist() == [1, 1, 1, 0]


def test_a_constant_has_a_bin_of_its_own():
    bins = NumericBins.fit([5] * 20)
    assert bins.names == ("below 5", "5", "5 or more", "missing")
    assert bins.count([4, 5, 5, 6, math.inf, -math.inf, math.nan, None, "x"]).tolist() == [2, 2, 2, 3]


# --- categories


def test_unknown_values_share_a_cell():
    known = Categories.fit(["b", "a", "b", None])
    assert known.names == ("b", "a", "other")
    assert known.count(["a", "b", "c", None, 7]).tolist() == [1, 1, 3]


def test_only_the_most_frequent_of_very_many_values_are_known():
    cells = Categories.fit([str(i % 5000) for i in range(6000)], most=50)
    assert len(cells.names) == 51
    assert cells.count([str(i) for i in range(100_000)]).sum() == 100_000


def test_values_that_come_often_choose_their_cells_and_are_counted_all():
    assert apart(["a", "b"] * 5) == (["a", "b"] * 5, ["a", "b"] * 5)
    _, counts = Categories.learnt(["a", "b"] * 5)
    assert counts.tolist() == [5, 5, 0]


def test_of_values_that_come_once_some_choose_and_others_are_counted():
    values = [str(i) for i in range(300)]
    chosen, counted = apart(values)
    assert (len(chosen), len(counted)) == (60, 240)
    assert not set(chosen) & set(counted)
    assert apart([]) == ([], [])
    assert apart(["a"]) == (["a"], [])
    _, counts = Categories.learnt(values)
    assert counts.sum() == counts[-1] == 240


# --- texts


def test_every_text_falls_into_one_cell(text_cells):
    counts = text_cells.count(ODD)
    assert counts.sum() == len(ODD)
    assert counts[-1] == 3
    assert len(counts) == len(text_cells.names)


@pytest.mark.parametrize(
    "texts", [[], [""] * 9, [None], ["same"] * 99, ["a"], ODD, ["退款", "航班延误了"] * 60], ids=range(7)
)
def test_cells_can_be_learnt_from_anything(texts):
    cells = TextCells.fit(texts)
    assert cells.count([*texts, "something else"]).sum() == len(texts) + 1
    assert stored(cells).names == cells.names


def test_topics_are_named_by_their_words(text_cells):
    words = {word for words in SUBJECTS.values() for word in words}
    named = {word for topic in text_cells.topics for word in topic.split(", ")}
    assert len(named & words) >= len(named) / 2


def test_texts_on_a_new_topic_are_unusual(text_cells):
    new = text_cells.assign(messages(np.random.default_rng(2), 50, NEWS))
    assert all(text_cells.names[cell].endswith("(very unusual)") for cell in new)


def test_a_new_topic_is_evidence_and_more_of_the_same_is_not(text_cells):
    rng = np.random.default_rng(3)
    reference = text_cells.count(messages(rng, 1000))
    same, mixed = messages(rng, 1000), messages(rng, 750) + messages(rng, 250, NEWS)
    assert log_e_two_sample(text_cells.count(same), reference, text_cells.groupings) < 1
    assert log_e_two_sample(text_cells.count(mixed), reference, text_cells.groupings) > math.log(80)


def test_the_groupings_are_topics_and_bands(text_cells):
    topics, bands = text_cells.groupings
    assert len(topics) == len(bands) == len(text_cells.names)
    assert topics.max() == len(text_cells.topics)
    assert bands.max() == 3


def test_a_text_lands_in_the_same_cell_alone_in_company_and_after_storage(text_cells):
    texts = messages(np.random.default_rng(4), 200) + ODD
    together = text_cells.assign(texts)
    assert [int(text_cells.assign([text])[0]) for text in texts] == together.tolist()
    assert stored(text_cells).assign(texts).tolist() == together.tolist()


def test_the_same_seed_learns_the_same_cells():
    texts = messages(np.random.default_rng(5), 300)
    assert TextCells.fit(texts, 7).assign(texts).tolist() == TextCells.fit(texts, 7).assign(texts).tolist()


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(0, 30))
def test_counts_add_up_over_parts(values, cut):
    bins, names = NumericBins.fit([0, 1, 2, 3]), Categories.fit(["1", "2"])
    for cells in (bins, names):
        assert (cells.count(values[:cut]) + cells.count(values[cut:])).tolist() == cells.count(values).tolist()


# --- texts in other scripts

SCRIPTS = {
    "chinese": (
        ["航班", "延误", "行李", "丢失", "登机口", "取消", "等待", "座位", "机票", "改签"],
        ["手机", "电池", "屏幕", "充电", "死机"],
        "",
    ),
    "arabic": (
        ["رحلة", "متأخرة", "حقيبة", "ضائعة", "بوابة", "ملغاة", "انتظار", "مقعد", "تذكرة", "تغيير"],
        ["هاتف", "بطارية", "شاشة", "شحن", "معطل"],
        " ",
    ),
    "hindi": (
        ["उड़ान", "देरी", "सामान", "खोया", "द्वार", "रद्द", "प्रतीक्षा", "सीट", "टिकट", "बदलाव"],
        ["फ़ोन", "बैटरी", "स्क्रीन", "चार्ज", "ख़राब"],
        " ",
    ),
    "emoji": (["✈️", "🧳", "⏰", "💺", "🎫", "😴", "😡", "🙏", "💸", "❓"], ["📱", "🔋", "🔌", "💥", "🪫"], ""),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_new_topic_is_found_in_any_script_and_no_alarm_raised_without_one(script):
    old, new, between = SCRIPTS[script]
    rng = np.random.default_rng(6)

    def written(words, number):
        return [between.join(rng.choice(words, rng.integers(2, 6))) for _ in range(number)]

    cells = TextCells.fit(written(old, 400))
    reference = cells.count(written(old, 400))
    same, mixed = written(old, 1500), written(old, 900) + written(new, 100)
    assert log_e_two_sample(cells.count(same), reference, cells.groupings) < 1
    assert log_e_two_sample(cells.count(mixed), reference, cells.groupings) > math.log(80)
    assert script == "emoji" or any(name.split(", ")[0] in "".join(old) for name in cells.topics)


def test_words_of_india_are_not_cut_at_their_vowels():
    cells = TextCells.fit(["मेरी उड़ान देरी से है", "मेरी उड़ान रद्द है"] * 40)
    assert "देरी" in ", ".join(cells.topics)
