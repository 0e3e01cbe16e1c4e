import pytest

from noria.evaluation.topics import TextCells
from noria.evaluation.wording import risen

BEFORE = ["my flight is late", "the crew lost my bag", "late flight again"] * 40
NOW = ["my flight is late"] * 60 + ["my iphone battery is dead", "dead iphone again"] * 10 + ["love the store"] * 5


@pytest.fixture(scope="module")
def cells():
    return TextCells.fit(BEFORE)


def test_words_that_rose_are_named_with_their_company_shares_and_texts(cells):
    first, *rest = risen(cells, NOW)
    assert set(first.words) <= {"iphone", "dead", "battery"}
    assert (first.share_before, first.share_now) == pytest.approx((0, 20 / 85))
    assert [NOW[i] for i in first.texts[:2]] == ["my iphone battery is dead", "dead iphone again"]
    assert {"love", "store"} & set(rest[0].words)


def test_a_words_share_before_is_that_of_the_reference(cells):
    found = risen(cells, ["the crew lost my bag"] * 50)
    assert found[0].share_before == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.parametrize("texts", [[], [""] * 5, ["one"], ["!!!", "123"] * 9, BEFORE])
def test_nothing_rose_where_nothing_is_new(cells, texts):
    assert all(r.share_now - r.share_before < 0.05 for r in risen(cells, texts))


def test_other_scripts_have_words_too(cells):
    assert risen(cells, ["我的订单在哪里", "我要退款"] * 20)[0].share_now >= 0.5


def test_cells_that_learnt_nothing_know_no_words():
    assert risen(TextCells.fit([]), NOW)[0].share_before == 0
