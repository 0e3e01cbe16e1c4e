"""How good a chat's answers are on held-out rows: how near they come to the answers that were wanted."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from noria.domain.errors import InvalidData
from noria.evaluation.fairness import FairnessTable, assess
from noria.evaluation.quality import wilson
from noria.evaluation.references import bleu, bleu_counts, likeness

NEAR = 0.5
"""ROUGE-L from which an answer counts as near the wanted one, where groups are compared."""


def grade_chat(rows: Mapping[str, Sequence[Any]], seed: int) -> tuple[dict[str, float], FairnessTable]:
    """Measures of a chat's answers, and the share of each group whose answers come near.

    Args:
        rows: `prediction` (what was answered), `label` (what was wanted) and `group`, equally long.
        seed: Of the comparison of groups.

    Raises:
        InvalidData: There are no rows.
    """
    if not len(rows["label"]):
        raise InvalidData("There are no held-out rows to measure on.", "Give the evaluation at least one row.")
    pairs = list(zip(rows["prediction"], rows["label"], strict=True))
    alike = [likeness(said, wanted) for said, wanted in pairs]
    near = [each.rouge_l >= NEAR for each in alike]
    interval = wilson(sum(near), len(near))
    numbers = {
        "exact_match": float(np.mean([each.exact_match for each in alike])),
        "rouge1": float(np.mean([each.rouge1 for each in alike])),
        "rouge2": float(np.mean([each.rouge2 for each in alike])),
        "rouge_l": float(np.mean([each.rouge_l for each in alike])),
        "bleu": float(bleu(np.sum([bleu_counts(said, wanted) for said, wanted in pairs], axis=0))),
        "near": sum(near) / len(near),
        "near_low": interval.low,
        "near_high": interval.high,
        "rows": float(len(near)),
    }
    groups = assess(["near"] * len(near), ["near" if each else "far" for each in near], rows["group"], seed=seed)
    return numbers, groups


def certain(scores: Sequence[float | None]) -> bool:
    """Whether a classifier's scores are probabilities: a model that only says labels is given 1 for each."""
    return any(score is not None and score < 1 for score in scores) and None not in scores
