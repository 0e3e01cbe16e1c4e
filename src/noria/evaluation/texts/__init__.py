"""Measures of texts, each a pure function over an Arrow array of texts: null stays null, no text makes one raise.

Each says in its docstring where it comes from, which range it has, and what it doesn't see.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from noria.evaluation.texts.counting import empty, length, tokens_estimate
from noria.evaluation.texts.language import language
from noria.evaluation.texts.personal import pii
from noria.evaluation.texts.readability import readability
from noria.evaluation.texts.refusal import refusal
from noria.evaluation.texts.repetition import repetition
from noria.evaluation.texts.toxicity import toxicity

Measuring = Callable[[pa.Array], pa.Array]


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure of texts.

    Attributes:
        name: What its columns end in: `input_` or `output_` and this.
        of: The sides that it is taken of.
        compute: Texts → values, as many.
        data_type: `double` or `string`.
        cheap: Whether it is computed also where nobody asks for it by name.
    """

    name: str
    of: Sequence[str]
    compute: Measuring
    data_type: pa.DataType
    cheap: bool = False


_BOTH = ("input", "output")
_NUMBER = pa.float64()
MEASURES: Final[Mapping[str, Measure]] = {
    measure.name: measure
    for measure in (
        Measure("length", _BOTH, length, _NUMBER, cheap=True),
        Measure("empty", _BOTH, empty, _NUMBER, cheap=True),
        Measure("tokens_estimate", _BOTH, tokens_estimate, _NUMBER),
        Measure("language", _BOTH, language, pa.string()),
        Measure("refusal", ("output",), refusal, _NUMBER),
        Measure("repetition", _BOTH, repetition, _NUMBER),
        Measure("readability", _BOTH, readability, _NUMBER),
        Measure("pii", _BOTH, pii, _NUMBER),
        Measure("toxicity", _BOTH, toxicity, _NUMBER),
    )
}
"""Name → measure."""
