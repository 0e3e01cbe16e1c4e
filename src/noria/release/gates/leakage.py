"""The gate that asks whether the rows that a version is judged on were kept from it."""

import numpy as np

from noria.domain.errors import InvalidData
from noria.domain.gate import GateResult
from noria.evaluation.near import near, normal
from noria.release.case import Case, result

MOST = 2_000
"""Held-out rows that are compared; of more a fixed sample is."""
VERBATIM = 60
"""Characters of a learnt text that an answer may not repeat."""


def leakage(case: Case) -> GateResult:
    """What it is judged on was not learnt, and what was learnt isn't given away.

    Counts held-out texts that are a training text but for case, blanks and marks, or nearly one (`evaluation.near`);
    of a chat also answers that repeat a long learnt text which nobody showed it.
    """
    rules = case.policy.rules
    limits = {"max_leakage": rules.max_leakage, "max_near_leakage": rules.max_near_leakage}
    thresholds = {name: limit for name, limit in limits.items() if limit is not None}
    if case.learnt is None:
        return result("leakage", True, "No run of ours trained it, so what it has learnt is not known.", {}, thresholds)
    asked = () if case.is_chat and case.rows is None else case.held_out.texts
    texts = np.asarray(asked, object)
    if not len(case.learnt):
        raise InvalidData("The rows that it learnt from are gone.", "Train it again.")
    if len(texts) > MOST:
        texts = texts[np.random.default_rng(0).choice(len(texts), MOST, replace=False)]
    known = {normal(text) for text in case.learnt}
    same = np.array([normal(text) in known for text in texts.tolist()], bool)
    alike = near(texts.tolist(), case.learnt) & ~same
    share, nearly = (float(each.mean()) if len(texts) else 0.0 for each in (same, same | alike))
    given_away = _given_away(case)
    numbers = {"compared": len(texts), "same": int(same.sum()), "alike": int(alike.sum()), "share": share}
    numbers |= {"near_share": nearly, "given_away": given_away}
    wrong = []
    if share > rules.max_leakage:
        wrong.append(f"a share of {rules.max_leakage:g} is allowed")
    if rules.max_near_leakage is not None and nearly > rules.max_near_leakage:
        wrong.append(f"a share of {rules.max_near_leakage:g} is allowed of both together")
    if given_away:
        wrong.append(f"{given_away} answers give a learnt text away")
    says = f"Of {len(texts)} held-out texts {same.sum()} were learnt and {alike.sum()} are nearly like a learnt one"
    return result("leakage", not wrong, f"{'; '.join([says, *wrong])}.", numbers, thresholds)


def _given_away(case: Case) -> int:
    """Answers, to rows and to probes, that hold a long learnt text which wasn't in the question."""
    long = [text for text in case.learnt or () if len(text) >= VERBATIM]
    if not long or not case.is_chat:
        return 0
    answers = case.answers.predictions if case.answers is not None else ()
    questions = case.rows.texts if case.rows is not None else ("",) * len(answers)
    pairs = [*zip(answers, questions, strict=True)]
    pairs += zip(case.safety_answers or (), [probe.text for probe in case.probes], strict=False)
    return sum(any(text in answer and text not in question for text in long) for answer, question in pairs)
