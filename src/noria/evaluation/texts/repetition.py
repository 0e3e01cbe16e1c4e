"""How much of a text says again what it said already."""

import re
from typing import Final

import pyarrow as pa

LOOKED_AT: Final = 6000
"""Characters at the beginning, and as many at the end, that are looked at: loops are where an answer ends."""
GRAM: Final = 4
"""Words in a row that are compared."""
_WORD: Final = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\w+|[^\w\s]"
)
"""A word, or a character of a script that writes no spaces."""
_RUN: Final = re.compile(r"(\S)\1{24,}")
_SHORTEST_RUN: Final = 25
"""One character again and again, longer than any rule in a table."""


def repetition(texts: pa.Array) -> pa.Array:
    """The share of a text that is repetition, 0 to 1.

    The share of its 4-grams of words that occurred before (`seq-rep-4`: Welleck et al. 2020, arXiv:1908.04319), or of
    its characters in runs of a single one, whichever is more. An answer caught in a loop is near 1, prose below 0.05;
    tables, lists, verse and code repeat themselves by design. Of scripts without spaces every character is a word, so
    that 4 characters make a gram. Of a long text 6,000 characters at each end are read: what is said again only across
    the middle isn't seen, nor is the same said in other words.
    """
    return pa.array([None if text is None else _repeated(text) for text in texts.to_pylist()], pa.float64())


def _repeated(text: str) -> float:
    if len(text) > 2 * LOOKED_AT:
        text = f"{text[:LOOKED_AT]}\n{text[-LOOKED_AT:]}"
    words = _WORD.findall(text)
    grams = len(words) - GRAM + 1
    said = 0.0 if grams < 2 else 1 - len(set(zip(words, words[1:], words[2:], words[3:], strict=False))) / grams
    return max(said, _in_runs(text))


def _in_runs(text: str) -> float:
    if len(text) < _SHORTEST_RUN:
        return 0.0
    return sum(len(match.group()) for match in _RUN.finditer(text)) / len(text)
