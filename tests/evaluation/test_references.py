import random
from itertools import starmap

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from noria.evaluation.references import bleu, bleu_counts, likeness

TEXT = "the Flight was late. don't 3.5 U.S. a-b $5, 12-13 (ok) &amp; x_y bag; and crew 'quoted' 50% e.g. 1,000"
WORDS = TEXT.split()


def pairs(number=200, seed=0):
    rng = random.Random(seed)

    def text() -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 30)))

    return [(text(), text()) for _ in range(number)]


def test_rouge_agrees_with_rouge_score() -> None:
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    for answer, reference in pairs():
        expected, found = scorer.score(reference, answer), likeness(answer, reference)
        assert found.rouge1 == pytest.approx(expected["rouge1"].fmeasure)
        assert found.rouge2 == pytest.approx(expected["rouge2"].fmeasure)
        assert found.rouge_l == pytest.approx(expected["rougeL"].fmeasure)


def test_bleu_agrees_with_sacrebleu_for_one_answer_and_for_many() -> None:
    texts = pairs()
    for answer, reference in texts:
        expected = sacrebleu.corpus_bleu([answer], [[reference]]).score
        assert bleu(bleu_counts(answer, reference)) == pytest.approx(expected)
    together = sum(starmap(bleu_counts, texts[1:]), bleu_counts(*texts[0]))
    expected = sacrebleu.corpus_bleu([a for a, _ in texts], [[r for _, r in texts]]).score
    assert bleu(together) == pytest.approx(expected)


def test_chinese_is_read_by_character_as_sacrebleu_reads_it() -> None:
    answer, reference = "我的航班晚点了两个小时", "我的航班晚点了三个小时"
    expected = sacrebleu.corpus_bleu([answer], [[reference]], tokenize="zh").score
    assert bleu(bleu_counts(answer, reference)) == pytest.approx(expected)
    assert likeness(answer, reference).rouge1 == pytest.approx(10 / 11)


@pytest.mark.parametrize(
    ("answer", "reference", "shared"),
    [
        ("मेरी उड़ान देर से है", "मेरी उड़ान रद्द है", 2 * 3 / 9),
        ("رحلتي متأخرة", "رحلتي متأخرة", 1),
        ("航班 late", "late 航班", 1),
        ("", "", 0),
        ("👍🏽", "👍🏽", 0),
    ],
)
def test_other_scripts_have_words_and_what_has_none_shares_none(answer: str, reference: str, shared: float) -> None:
    assert likeness(answer, reference).rouge1 == pytest.approx(shared)


def test_an_exact_match_is_the_same_text_but_for_blanks_at_its_ends() -> None:
    assert likeness(" Paris\n", "Paris").exact_match == 1
    assert likeness("paris", "Paris").exact_match == 0
    assert likeness("👍🏽", "👍🏽").exact_match == 1


def test_a_long_answer_is_compared_as_well() -> None:
    assert likeness("word " * 20_000, "word again " * 10_000).rouge_l == pytest.approx(2 * 10_000 / 40_000)
