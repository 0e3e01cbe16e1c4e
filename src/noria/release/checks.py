"""The gates, one function each: what a version has to show before it gets traffic.

A gate looks at the case and says passed or not, with every number and every threshold that it used. One that can't
look, raises: that is a gate which has not passed (`gates.judge`).
"""

from collections.abc import Mapping
from datetime import date
from math import log

import numpy as np
from numpy.typing import NDArray

from noria.domain.errors import InvalidData
from noria.domain.gate import GateResult
from noria.evaluation.quality import measure
from noria.evaluation.sequential import NonInferiority, non_inferiority
from noria.release.case import Case, Rows, result

ENOUGH = 50
"""Rows of each origin that it takes to judge the origins one by one."""
ORIGINS: Mapping[str, str] = {"baseline": "the project's own rows", "production": "labelled production rows"}
"""Where held-out rows come from: what the version must not forget, and what it must learn."""


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


def quality(case: Case) -> GateResult:
    """Not worse than the champion by the margin, on old rows and on fresh ones; a first version has a floor."""
    return _against_champion(case) if case.champion else _against_floor(case)


def _against_floor(case: Case) -> GateResult:
    rows, rules = case.held_out, case.policy.rules
    found = measure(rows.labels, case.said.predictions)
    floor = rules.min_accuracy or 0.0
    asked = f"at least {floor:.3f} is asked" if rules.min_accuracy is not None else "the policy sets no floor"
    return result(
        "quality",
        found.accuracy >= floor,
        f"Accuracy {found.accuracy:.3f} on {found.rows} rows (95% sure of {found.interval.low:.3f}); {asked}.",
        found.numbers(),
        {"min_accuracy": floor},
    )


def _against_champion(case: Case) -> GateResult:
    rows, rules = case.held_out, case.policy.rules
    new = case.hits(case.said)
    old = case.hits(case.champion_said)
    numbers = {"candidate_accuracy": float(new.mean()), "champion_accuracy": float(old.mean()), "rows": len(new)}
    passed, says = True, []
    for origin, name, chosen in _parts(rows):
        test = non_inferiority((new - old)[chosen], rules.margin, rules.alpha)
        good = test.log_e >= -log(rules.alpha)
        passed &= good
        numbers |= _test_numbers(origin, test, float(new[chosen].mean()), float(old[chosen].mean()))
        says.append(
            f"on {test.rows} {name} {new[chosen].mean():.3f} against {old[chosen].mean():.3f}, "
            f"difference at least {test.lower:+.3f}" + ("" if good else f", which may be worse than -{rules.margin:g}")
        )
    return result(
        "quality",
        passed,
        f"{'Not worse than' if passed else 'Not shown to be as good as'} {case.champion}: {'; '.join(says)}.",
        numbers,
        {"margin": rules.margin, "alpha": rules.alpha, "log_e": -log(rules.alpha)},
    )


def _parts(rows: Rows) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """The rows by origin where there are enough of each, else all together."""
    origins = np.asarray(rows.origins)
    parts = [(origin, name, origins == origin) for origin, name in ORIGINS.items()]
    if all(chosen.sum() >= ENOUGH for _, _, chosen in parts):
        return parts
    return [("all", "held-out rows", np.ones(len(rows.labels), bool))]


def _test_numbers(origin: str, test: NonInferiority, new: float, old: float) -> dict[str, float]:
    return {
        f"{origin}_rows": test.rows,
        f"{origin}_candidate_accuracy": new,
        f"{origin}_champion_accuracy": old,
        f"{origin}_difference": test.mean,
        f"{origin}_difference_low": test.lower,
        f"{origin}_difference_high": test.upper,
        f"{origin}_log_e": test.log_e,
    }


def latency(case: Case) -> GateResult:
    """Fast enough on the host that will serve it, beside the traffic that goes on there."""
    times = case.said.latencies_ms
    if not times:
        raise InvalidData("No request was timed.", "Give the trial held-out rows.")
    middle, high = (float(q) for q in np.quantile(times, [0.5, 0.95], method="higher"))
    allowed = case.policy.rules.max_latency_p95_ms
    return result(
        "latency",
        high <= allowed,
        f"95 of 100 answers came within {high:.0f} ms ({len(times)} timed); {allowed:g} ms is allowed.",
        {"p50_ms": middle, "p95_ms": high, "requests": len(times)},
        {"max_latency_p95_ms": allowed},
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
