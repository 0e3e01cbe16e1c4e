"""How near a free answer comes to a reference: exact match, ROUGE-1, -2, -L and BLEU.

Words are runs of letters, digits and their marks in any script; a Chinese or Japanese character is a word. On English
texts the numbers are those of rouge-score (without stemming) and of sacrebleu (tokenizer 13a); both know only ASCII
words. BLEU of many answers is a function of counts that add up, so it needs none of the texts again.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from noria.evaluation.cells import Ints

ORDERS = 4
"""BLEU looks at runs of up to so many words."""
_BY_CHARACTER = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff\u0e31-\u0e4e\u0eb1-\u0ecd"
_WORDS = re.compile(rf"[{_BY_CHARACTER}]|(?:(?![{_BY_CHARACTER}])[^\W_]|[{_MARKS}])+")
_CHARACTER = re.compile(rf"([{_BY_CHARACTER}])")
# The rules of NIST's mteval-v13a, which BLEU's published numbers are made with.
_SYMBOLS = re.compile(r"([{-~[-` -&(-+:-@/])")
_STOP_AFTER_TEXT, _STOP_BEFORE_TEXT = re.compile(r"([^0-9])([.,])"), re.compile(r"([.,])([^0-9])")
_DASH_AFTER_DIGIT = re.compile(r"([0-9])(-)")
_ESCAPES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))


@dataclass(frozen=True, slots=True)
class Likeness:
    """How like one answer is to its reference, each 0 to 1.

    Attributes:
        exact_match: 1 if they are the same but for blanks at the ends.
        rouge1: F-measure of the words that both have.
        rouge2: F-measure of the pairs of words that both have.
        rouge_l: F-measure of the longest common subsequence of words.
    """

    exact_match: float
    rouge1: float
    rouge2: float
    rouge_l: float


def likeness(answer: str, reference: str) -> Likeness:
    """Compare one answer with its reference. Source of ROUGE: Lin 2004."""
    said, meant = _WORDS.findall(answer.lower()), _WORDS.findall(reference.lower())
    return Likeness(
        exact_match=float(answer.strip() == reference.strip()),
        rouge1=_overlap(said, meant, 1),
        rouge2=_overlap(said, meant, 2),
        rouge_l=_f_measure(_common(said, meant), len(said), len(meant)),
    )


def bleu_counts(answer: str, reference: str) -> Ints:
    """What an answer adds to BLEU: runs of 1 to 4 words that the reference has too, all such runs, words of both.

    Shape (10,); those of many answers are added up.
    """
    said, meant = _bleu_words(answer), _bleu_words(reference)
    found = [_runs(said, n) for n in range(1, ORDERS + 1)]
    right = [(runs & _runs(meant, n)).total() for n, runs in enumerate(found, 1)]
    return np.array([*right, *(runs.total() for runs in found), len(said), len(meant)], np.int64)


def bleu(counts: Ints) -> float:
    """BLEU of what many answers added up to, 0 to 100.

    Orders without any match count as half, a quarter, … of one match (Chen & Cherry 2014, method 3), as in sacrebleu.
    """
    right, runs = counts[:ORDERS].tolist(), counts[ORDERS : 2 * ORDERS].tolist()
    said, meant = counts[2 * ORDERS :].tolist()
    if not any(right) or not all(runs):
        return 0.0
    logs, halving = 0.0, 1
    for matched, of in zip(right, runs, strict=True):
        if not matched:
            halving *= 2
        logs += math.log((matched or 1 / halving) / of)
    return 100 * math.exp(min(0.0, 1 - meant / said) + logs / ORDERS)


def _overlap(said: Sequence[str], meant: Sequence[str], n: int) -> float:
    ours, theirs = _runs(said, n), _runs(meant, n)
    return _f_measure((ours & theirs).total(), ours.total(), theirs.total())


def _f_measure(common: int, said: int, meant: int) -> float:
    return 2 * common / (said + meant) if common else 0.0


def _runs(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def _common(said: Sequence[str], meant: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the table as the bits of one number (Hyyrö 2004)."""
    if not said or not meant:
        return 0
    places: dict[str, int] = {}
    for place, word in enumerate(meant):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(meant)) - 1
    row = every
    for word in said:
        matching = row & places.get(word, 0)
        row = (row + matching | row - matching) & every
    return len(meant) - row.bit_count()


def _bleu_words(text: str) -> list[str]:
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    if "&" in text:
        for escape, character in _ESCAPES:
            text = text.replace(escape, character)
    text = _SYMBOLS.sub(r" \1 ", f" {text} ")
    text = _STOP_BEFORE_TEXT.sub(r" \1 \2", _STOP_AFTER_TEXT.sub(r"\1 \2 ", text))
    return _CHARACTER.sub(r" \1 ", _DASH_AFTER_DIGIT.sub(r"\1 \2 ", text)).split()
