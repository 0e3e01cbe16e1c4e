"""How much a text is: characters, tokens, and whether it says anything at all."""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_TOKENS: Final = (
    (r"[a-zA-ZÀ-ɏḀ-ỿ]+", 0.61),
    (r"[À-ɏ]", 1.13),
    (r"[Ḁ-ỿ]", 0.4),
    (r"\p{Cyrillic}", 0.36),
    (r"[\p{Greek}\p{Armenian}\p{Georgian}]", 0.39),
    (r"\p{Arabic}", 0.42),
    (r"\p{Hebrew}", 0.47),
    (
        r"[\p{Devanagari}\p{Bengali}\p{Gurmukhi}\p{Gujarati}\p{Tamil}\p{Telugu}\p{Kannada}\p{Malayalam}\p{Sinhala}]",
        0.44,
    ),
    (r"\p{Han}", 0.73),
    (r"[\p{Hiragana}\p{Katakana}ー]", 0.62),
    (r"\p{Hangul}", 0.68),
    (r"[\p{Thai}\p{Lao}]", 0.39),
    (r"[\p{Khmer}\p{Myanmar}\p{Tibetan}]", 0.73),
    (r"\p{Ethiopic}", 1.9),
    (r"\p{N}{1,3}", 1.8),
    (r"[!-/:-@\[-`{-~]{1,3}|[\x{A1}-\x{BF}\x{2010}-\x{205E}\x{3001}-\x{3003}\x{3008}-\x{3020}\x{FF01}-\x{FF0F}]", 0.72),
    (r"\n+", 0.77),
    (r"[\x{2600}-\x{27BF}\x{1F000}-\x{1FAFF}]", 1.6),
)
"""What tokens are counted by, and how many of them each is worth."""
_ASCII_LETTER: Final = 0.11
"""What a letter adds to its word."""


def length(texts: pa.Array) -> pa.Array:
    """Characters (Unicode code points) of each text.

    Range 0 and up. What a person takes for one sign may be several: an emoji with a skin colour is two, an accent
    may stand alone. Source: the Unicode Standard, section 3.9.
    """
    return pc.utf8_length(texts).cast(pa.float64())


def tokens_estimate(texts: pa.Array) -> pa.Array:
    """About how many tokens a current tokenizer makes of each text, whatever it is written in.

    Range 0 and up. A sum over words, letters of each script, digits, punctuation and emoji. The weights are a
    non-negative least-squares fit to the tokenizer `o200k_base` on 40,000 short texts in 75 languages, this project's
    prose and its code. Summed over many texts it is within 6% for English, German, French, Spanish, Chinese, Japanese,
    Korean, Hindi and Hebrew, 10% for Arabic, 20% for Russian, Polish and Finnish; a single text is off by 15%.
    Older tokenizers need two to three times as many for Arabic and Indian scripts. What a model server counted for a
    whole request stands in `input_tokens` and `output_tokens`.
    """
    whole = pc.fill_null(texts, "")
    letters = pc.binary_length(pc.replace_substring_regex(whole, r"[^a-zA-Z]+", ""))
    total = _ASCII_LETTER * letters.to_numpy(zero_copy_only=False)
    for pattern, weight in _TOKENS:
        total = total + weight * pc.count_substring_regex(whole, pattern).to_numpy(zero_copy_only=False)
    rounded = np.where(pc.utf8_length(whole).to_numpy(zero_copy_only=False) > 0, np.maximum(1, np.round(total)), 0)
    return _where_known(texts, rounded)


def empty(texts: pa.Array) -> pa.Array:
    """1 for a text that holds nothing but white space, else 0.

    An answer that only calls a tool is null, not empty. Characters without width count as something.
    """
    return pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0).cast(pa.float64())


def _where_known(texts: pa.Array, values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> pa.Array:
    """Values, with null where there is no text."""
    return pa.array(values, pa.float64(), mask=pc.is_null(texts).to_numpy(zero_copy_only=False))
