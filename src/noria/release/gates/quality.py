"""The gate that compares answers with labels: as good as the champion, or better, on old rows and on fresh ones."""

from collections.abc import Mapping
from dataclasses import replace
from math import log

import numpy as np
from numpy.typing import NDArray

from noria.domain.gate import GateResult
from noria.evaluation.quality import measure
from noria.evaluation.sequential import NonInferiority, non_inferiority
from noria.release.case import FROZEN, Case, Rows, result
from noria.settings import Comparison, Task

ENOUGH = 50
"""Rows of each origin that it takes to judge the origins one by one."""
ORIGINS: Mapping[str, str] = {
    "baseline": "the project's own rows",
    "production": "labelled production rows",
    FROZEN: "rows of the frozen set",
}
"""Where rows come from: what the version must not forget, what it must learn, and what never changes."""


def quality(case: Case) -> GateResult:
    """Not worse than the champion by the margin, on old rows, on fresh ones and on the frozen set; a first version has
    a floor. If the policy asks for a superior version, all rows together have to show that it is better, too.

    Of a chat an answer's score is how like the wanted one it is (ROUGE-L, 0 to 1), of a classifier whether it is right.
    """
    rows, rules = case.held_out, case.policy.rules
    if len(rows.labels) < rules.min_rows:
        summary = f"There are {len(rows.labels)} labelled rows to judge it on; {rules.min_rows} are asked for."
        return result("quality", False, summary, {"rows": len(rows.labels)}, {"min_rows": rules.min_rows})
    found = _against_champion(case) if case.champion else _against_floor(case)
    return replace(found, facts=dict(case.facts))


def _against_floor(case: Case) -> GateResult:
    rows, rules = case.held_out, case.policy.rules
    floor = rules.min_accuracy or 0.0
    asked = f"at least {floor:.3f} is asked" if rules.min_accuracy is not None else "the policy sets no floor"
    thresholds = {"min_accuracy": floor, "min_rows": rules.min_rows}
    if case.task is Task.CHAT:
        score = float(case.hits(case.said).mean())
        summary = f"ROUGE-L {score:.3f} on {len(rows.labels)} rows with a wanted answer; {asked}."
        return result("quality", score >= floor, summary, {"score": score, "rows": len(rows.labels)}, thresholds)
    found = measure(rows.labels, case.said.predictions)
    return result(
        "quality",
        found.accuracy >= floor,
        f"Accuracy {found.accuracy:.3f} on {found.rows} rows (95% sure of {found.interval.low:.3f}); {asked}.",
        found.numbers(),
        thresholds,
    )


def _against_champion(case: Case) -> GateResult:
    rows, rules = case.held_out, case.policy.rules
    new, old = case.hits(case.said), case.hits(case.champion_said)
    numbers = {"candidate_accuracy": float(new.mean()), "champion_accuracy": float(old.mean()), "rows": len(new)}
    line = -log(rules.alpha)
    passed, says = True, []
    for origin, name, chosen in _parts(rows):
        test = non_inferiority((new - old)[chosen], rules.margin, rules.alpha)
        good = test.log_e >= line
        passed &= good
        numbers |= _test_numbers(origin, test, float(new[chosen].mean()), float(old[chosen].mean()))
        says.append(
            f"on {test.rows} {name} {new[chosen].mean():.3f} against {old[chosen].mean():.3f}, "
            f"difference at least {test.lower:+.3f}" + ("" if good else f", which may be worse than -{rules.margin:g}")
        )
    told = f"{'Not worse than' if passed else 'Not shown to be as good as'} {case.champion}: {'; '.join(says)}"
    if rules.comparison is Comparison.SUPERIOR:
        better = non_inferiority(new - old, 0.0, rules.alpha)
        numbers |= {"superior_log_e": better.log_e}
        shown = better.log_e >= line
        passed &= shown
        told += f"; {'better' if shown else 'not shown to be better'} on all {better.rows} rows together"
    thresholds = {"margin": rules.margin, "alpha": rules.alpha, "log_e": line, "min_rows": rules.min_rows}
    return result("quality", passed, f"{told}.", numbers, thresholds)


def _parts(rows: Rows) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """The rows by origin where there are enough of each that is there, else all together; the frozen set is always
    judged by itself."""
    origins = np.asarray(rows.origins, object)
    parts = [(origin, name, origins == origin) for origin, name in ORIGINS.items() if origin in origins]
    frozen = [part for part in parts if part[0] == FROZEN]
    others = [part for part in parts if part[0] != FROZEN]
    if len(others) > 1 and all(chosen.sum() >= ENOUGH for _, _, chosen in others):
        return parts
    rest = origins != FROZEN
    return [("all", "held-out rows", rest), *frozen] if rest.any() else frozen


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
