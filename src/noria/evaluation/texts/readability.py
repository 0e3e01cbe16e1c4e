"""How easy a text is to read."""

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LOOKED_AT: Final = 20_000
"""Characters at the beginning of a text that are read."""
FEWEST_WORDS: Final = 5
LOWEST, HIGHEST = -100.0, 121.22
"""The formula has no lowest value; 121.22 is that of sentences of one word of one syllable."""
_WORDS: Final = r"[a-zà-ɏ]+(?:['\x{2019}-][a-zà-ɏ]+)*"
_FOREIGN: Final = r"[^\x{00}-\x{24F}\x{300}-\x{36F}\x{2000}-\x{2BFF}\x{FE00}-\x{FE0F}\x{1F000}-\x{1FAFF}]"
"""A letter that isn't Latin: what is no Latin, accent, punctuation, symbol or emoji."""
_SENTENCES: Final = r"[.!?\x{2026}]+(?:[\s\"'\x{201D}\x{2019})\]]|$)"
_VOWELS: Final = r"[aeiouyàáâãäåæèéêëìíîïòóôõöøùúûüýÿœ]+"
_SILENT: Final = r"[aeiouy][^aeiouy\W\d_]{1,2}e(?:s|d)?\b"
"""An e at a word's end that isn't spoken: late, makes, liked."""
_SPOKEN: Final = r"[aeiouy](?:[^aeiouy\W\d_]le|[td]ed|[szxcg]es)\b"
"""One that is, though it looks like that: able, wanted, faces."""


def readability(texts: pa.Array) -> pa.Array:
    """Flesch reading ease: 100 is very easy, 60 plain English, 30 an academic paper; from -100 to 121.22.

    206.835 - 1.015 * words / sentences - 84.6 * syllables / words (Flesch 1948, Journal of Applied Psychology 32, 221).
    Syllables are groups of vowels without a silent e at the end: right for nine words of English in ten. Null for fewer
    than five words and for texts that aren't mostly in Latin letters: the formula is one for English. Other languages
    in Latin letters get a number that moves when their texts do and can't be compared with English. Lists without full
    stops are one long sentence. It knows nothing of meaning.
    """
    read = pc.utf8_lower(pc.fill_null(pc.utf8_slice_codeunits(texts, 0, LOOKED_AT), ""))
    words, sentences = _count(read, _WORDS), np.maximum(_count(read, _SENTENCES), 1)
    syllables = np.maximum(_count(read, _VOWELS) - _count(read, _SILENT) + _count(read, _SPOKEN), words)
    with np.errstate(divide="ignore", invalid="ignore"):
        ease = 206.835 - 1.015 * words / sentences - 84.6 * syllables / words
    foreign = _count(read, _FOREIGN) > words  # a word or two in other letters do no harm
    unknown = pc.is_null(texts).to_numpy(zero_copy_only=False) | foreign | (words < FEWEST_WORDS)
    return pa.array(np.clip(np.nan_to_num(ease), LOWEST, HIGHEST), pa.float64(), mask=unknown)


def _count(texts: pa.Array, pattern: str) -> Any:
    found = pc.count_substring_regex(texts, pattern)
    return found.to_numpy(zero_copy_only=False).astype(np.float64)
