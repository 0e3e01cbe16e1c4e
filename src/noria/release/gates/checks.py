"""The gates about a version as such: policy, answers, licence, card, size.

A gate looks at the case and says passed or not, with every number and every threshold that it used. One that can't
look, raises: that is a gate which has not passed (`gates.ask`).
"""

from datetime import date

from noria.domain.errors import InvalidData
from noria.domain.gate import GateResult
from noria.release.case import Case, result


def policy(case: Case) -> GateResult:
    """Somebody answers for the endpoint, and has looked at it lately."""
    due = date.fromisoformat(case.policy.review_by)
    left = (due - case.today).days
    says = f"is good until {due}" if left >= 0 else f"expired on {due}: {case.policy.owner} has to look at it again"
    return result("policy", left >= 0, f"Policy {case.policy.name} {says}.", {"days_left": left}, {"days_left": 0})


def answers(case: Case) -> GateResult:
    """The model server answers everything it is asked, and says something."""
    said = case.said.predictions
    empty = sum(not answer.strip() for answer in said)
    return result(
        "answers",
        bool(said) and not empty,
        f"{len(said) - empty} of {len(said)} answers say something.",
        {"asked": len(said), "empty": empty},
        {"empty": 0},
    )


def licence(case: Case) -> GateResult:
    """The weights' licence is named, and the policy allows it."""
    named, allowed = case.candidate.licence.strip(), case.policy.rules.licences
    if not named:
        named_by = "tag it noria.licence=SPDX in MLflow, and propose it again with noria model add"
        return result("licence", False, f"No licence is named for {case.candidate.ref}: {named_by}.")
    passed = not allowed or named.lower() in {name.lower() for name in allowed}
    says = f"{named} is allowed" if passed else f"{named} isn't among the policy's licences ({', '.join(allowed)})"
    return result("licence", passed, f"{says}.")


def card(case: Case) -> GateResult:
    """Its model card can be read."""
    return result("card", case.has_card, "A model card lies beside it." if case.has_card else "It has no model card.")


def size(case: Case) -> GateResult:
    """Small enough: its own files, which have to be kept, moved and loaded."""
    allowed = case.policy.rules.max_size_mb
    if case.size_bytes is None:
        raise InvalidData("Its files can't be read.", "See whether the registry answers.")
    found = case.size_bytes / 1e6
    limit = f"{allowed:g} MB are allowed" if allowed is not None else "the policy sets no limit"
    passed = allowed is None or found <= allowed
    thresholds = {} if allowed is None else {"max_size_mb": allowed}
    return result("size", passed, f"Its files take {found:.3g} MB; {limit}.", {"size_mb": found}, thresholds)
