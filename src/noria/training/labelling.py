"""Which records are worth a label most: where the model is least sure, a candidate disagrees, and unlike each other.

A record's worth is how unsure its answer was, from 0 to 1 (one less the margin between the two likeliest classes, or
the entropy over its greatest: Settles, Active Learning Literature Survey, 2009, section 3.1), one more where the copy
that a candidate answered said something else (query by committee, section 3.2), less how like it is to those chosen
before it (Carbonell and Goldstein, maximal marginal relevance, 1998).
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from noria.evaluation.near import normalised
from noria.evaluation.payloads import inputs, outputs, probabilities

Measure = Literal["margin", "entropy"]
UNKNOWN = 0.5
"""How unsure an answer without probabilities counts as."""
POOL = 500
"""Records, the worthiest, among which the unlike are chosen."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToLabel:
    """A record that wants a label.

    Attributes:
        request_id: The answer's x-request-id.
        time: When it was requested.
        text: What was asked.
        answer: What was answered.
        uncertainty: 0 for sure, 1 for a toss-up; None where the answer came without probabilities.
        candidate: What a candidate answered to the same, where that is something else; None otherwise.
    """

    request_id: str
    time: datetime
    text: str
    answer: str
    uncertainty: float | None
    candidate: str | None

    @property
    def worth(self) -> float:
        """Worth of a label before likeness counts: 0 to 2."""
        return (UNKNOWN if self.uncertainty is None else self.uncertainty) + (self.candidate is not None)


def uncertainty(shares: Mapping[str, float], measure: Measure = "margin") -> float | None:
    """How unsure a prediction was, 0 to 1; None if it doesn't say how likely at least two classes were."""
    if len(shares) < 2:
        return None
    if measure == "margin":
        first, second, *_ = sorted(shares.values(), reverse=True)
        return min(1.0, max(0.0, 1.0 - (first - second)))
    entropy = -sum(share * math.log(share) for share in shares.values() if share > 0)
    return min(1.0, max(0.0, entropy / math.log(len(shares))))


def to_label(
    records: Iterable[Mapping[str, Any]], labelled: Collection[str], most: int, measure: Measure = "margin"
) -> list[ToLabel]:
    """The records that are worth a label most, worthiest first.

    Args:
        records: Rows of the inference table, newest first; shadow copies name their record by `shadow_of`.
        labelled: Ids of the records that have a label.
        most: How many to choose.
        measure: How unsure an answer was.
    """
    rows = list(records)
    copies = {row["shadow_of"]: row for row in rows if row["shadow_of"]}
    done = {normalised(text) for row in rows if row["id"] in labelled for text in inputs(row["request"] or "")}
    found: dict[str, ToLabel] = {}
    for row in rows:
        texts, answers = inputs(row["request"] or ""), outputs(row["response"] or "")
        if row["shadow_of"] or len(texts) != 1 or len(answers) != 1 or not texts[0].strip():
            continue
        key = normalised(texts[0])
        if key not in done and key not in found:
            found[key] = _entry(row, texts[0], answers[0], copies.get(row["id"]), measure)
    worthiest = sorted(found.values(), key=lambda one: (-one.worth, one.request_id))[:POOL]
    return _unlike(worthiest, most)


def _entry(row: Mapping[str, Any], text: str, answer: str, copy: Mapping[str, Any] | None, measure: Measure) -> ToLabel:
    shares = probabilities(row["response"])
    other = outputs(copy["response"] or "") if copy is not None else []
    return ToLabel(
        request_id=row["id"],
        time=row["time"],
        text=text,
        answer=answer,
        uncertainty=uncertainty(shares[0], measure) if shares else None,
        candidate=other[0] if len(other) == 1 and other[0] != answer else None,
    )


def _unlike(worthiest: Sequence[ToLabel], most: int) -> list[ToLabel]:
    """Chosen one after another, each by its worth less its greatest likeness to one chosen before."""
    words = [frozenset(_WORD.findall(one.text.casefold())) for one in worthiest]
    likeness = [0.0] * len(worthiest)
    left, chosen = list(range(len(worthiest))), list[int]()
    while left and len(chosen) < most:
        best = max(left, key=lambda place: (worthiest[place].worth - likeness[place], -place))
        left.remove(best)
        chosen.append(best)
        for place in left:
            union = len(words[place] | words[best])
            shared = len(words[place] & words[best]) / union if union else 1.0
            likeness[place] = max(likeness[place], shared)
    return [worthiest[place] for place in chosen]
