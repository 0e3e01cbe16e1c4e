"""What one answered request counts for in a comparison of two versions: pure functions over a row and its body."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from noria.domain.inference import OutcomeKind
from noria.domain.rollout import Arm
from noria.evaluation.near import normalised
from noria.evaluation.payloads import said
from noria.evaluation.texts.refusal import refusal

_FAILED = (OutcomeKind.FAILED, OutcomeKind.TIMED_OUT)
_GUARDRAIL = "GUARDRAIL_"
_STOPPED = "content_filter"
"""What a model server says of an answer that its own filter stopped."""


def rescued(row: Mapping[str, Any], endpoint: str) -> bool:
    """Whether a fallback answered because the version that was picked could not: the caller never knew, we do."""
    return f"fallback_from_{endpoint}" in (row["logging_error_codes"] or ())


def served(row: Mapping[str, Any], saved: bool, limit_ms: float, body: Any) -> Arm:
    """What one request counts for.

    Args:
        row: Of the inference table.
        saved: Whether another version answered in its stead.
        limit_ms: What takes longer is slow; 0 where no times are compared.
        body: The response, parsed.
    """
    failed = saved or row["outcome"] in _FAILED or (row["status_code"] or 0) >= 500
    took = row["execution_duration_ms"]
    timed = limit_ms > 0 and took is not None and not failed and row["outcome"] == OutcomeKind.ANSWERED
    stopped = any(code.startswith(_GUARDRAIL) for code in row["logging_error_codes"] or ()) or _filtered(body)
    return Arm(
        requests=1, errors=int(failed), timed=int(timed), slow=int(timed and took > limit_ms), stopped=int(stopped)
    )


def _filtered(body: Any) -> bool:
    choices = body.get("choices") if isinstance(body, dict) else None
    return isinstance(choices, list) and any(
        isinstance(c, dict) and c.get("finish_reason") == _STOPPED for c in choices
    )


def words(body: Any) -> list[str]:
    """What a model wrote, if the response is a chat's or a completion's."""
    chats = isinstance(body, dict) and isinstance(body.get("choices"), list)
    return [text for text in said(body) if text] if chats else []


def refusals(texts: list[str]) -> Arm:
    """How many of them decline."""
    if not texts:
        return Arm()
    return Arm(worded=len(texts), refused=int(sum(refusal(pa.array(texts, pa.string())).to_pylist())))


def similarity(one: str, other: str) -> float:
    """How much the words of two answers overlap, 0 to 1: the F1 of shared words (as SQuAD scores answers)."""
    left, right = Counter(normalised(one).split()), Counter(normalised(other).split())
    if not left or not right:
        return float(left == right)
    return 2 * (left & right).total() / (left.total() + right.total())
