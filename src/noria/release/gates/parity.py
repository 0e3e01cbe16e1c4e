"""The gate that compares groups of people: none may be served much worse, and none may pay for the others' gain."""

import numpy as np

from noria.domain.gate import GateResult
from noria.evaluation.fairness import FairnessTable, assess
from noria.release.case import Case, result
from noria.release.gates.slices import chance_of_loss
from noria.settings import PolicyRules


def groups(case: Case) -> GateResult:
    """As right for one group as for another, and no group pays for the others' gain.

    The gap between the best and the worst group may not exceed the policy's (or the champion's, if the policy accepts a
    smaller gap than that one as progress). A group's loss against the champion
    counts when it is larger than the policy allows *and* more than chance: the rows of the group on which exactly one
    of the two was right are a fair coin if the candidate is as good (McNemar's exact test, one-sided, at alpha shared
    by the groups). Asking each group for proof that it lost nothing would refuse equal candidates for small groups.

    Measured (alpha 0.05, 0.1 allowed, 4 groups right in 75%, versions that disagree on 12% of the rows): none of 400
    equal candidates was refused with 50 rows a group; of candidates that lose 0.2 in one group, 80% with 50 rows and
    99% with 100; of those that lose 0.3, 97% and all.
    """
    rows, rules = case.held_out, case.policy.rules
    new = assess(rows.labels, case.said.predictions, rows.groups, rules.min_group_rows)
    numbers = {f"candidate_{key.removeprefix('group_')}": value for key, value in new.numbers().items()}
    numbers |= {f"rows:{g.group}": float(g.rows) for g in new.groups} | _by_group("candidate", new)
    thresholds = {"max_group_loss": rules.max_group_loss, "min_group_rows": rules.min_group_rows, "alpha": rules.alpha}
    wrong: list[str] = []
    old = None
    if case.champion:
        old = assess(rows.labels, case.champion_said.predictions, rows.groups, rules.min_group_rows)
    if rules.max_group_gap is not None:
        allowed = _allowed_gap(rules, old)
        thresholds["max_group_gap"] = allowed
        wrong += _gap_problems(new, allowed)
    if old is not None:
        numbers |= {f"champion_{key.removeprefix('group_')}": value for key, value in old.numbers().items()}
        numbers |= _by_group("champion", old)
        lost, losses = _losses(case, new, old)
        wrong += lost
        numbers |= losses
    named = f"{len(new.judged)} groups of at least {rules.min_group_rows} rows"
    says = f"Largest difference in accuracy between {named}: {new.gap:.3f}."
    if rules.max_group_gap is not None and old is not None and new.gap > rules.max_group_gap:
        says = f"{says} That is more than {rules.max_group_gap:g}, but less than the champion's {old.gap:.3f}."
    return result("groups", not wrong, says if not wrong else f"{'; '.join(wrong)}.", numbers, thresholds)


def _allowed_gap(rules: PolicyRules, champion: FairnessTable | None) -> float:
    """The policy's limit, or the champion's gap where that is larger and the policy accepts any smaller one."""
    limit = rules.max_group_gap or 0.0
    if rules.accept_smaller_gap and champion is not None:
        return max(limit, champion.gap)
    return limit


def _by_group(who: str, table: FairnessTable) -> dict[str, float]:
    """Accuracy of every group, those that are too small to judge included, as `who:group`."""
    return {f"{who}:{g.group}": g.accuracy for g in table.groups}


def _gap_problems(table: FairnessTable, allowed: float) -> list[str]:
    if table.best is None or table.worst is None or len(table.judged) < 2:
        return [f"The policy limits the gap between groups, but fewer than two have {table.min_rows} held-out rows"]
    if table.gap <= allowed:
        return []
    best, worst = table.best, table.worst
    return [
        f"Right in {worst.accuracy:.3f} for group {worst.group} ({worst.rows} rows) but in {best.accuracy:.3f} for "
        f"{best.group} ({best.rows} rows): a gap of {table.gap:.3f}, where {allowed:g} is allowed"
    ]


def _losses(case: Case, new: FairnessTable, old: FairnessTable) -> tuple[list[str], dict[str, float]]:
    """What is wrong with any group's loss, and the largest loss with its p-value."""
    rows, rules = case.held_out, case.policy.rules
    hits_new, hits_old = case.hits(case.said), case.hits(case.champion_said)
    named, before = np.asarray(rows.groups, object), {g.group: g.accuracy for g in old.groups}
    numbers, wrong = {"largest_group_loss": 0.0, "largest_group_loss_p_value": 1.0}, []
    for group in new.judged:
        chosen = named == group.group
        loss = before[group.group] - group.accuracy
        p_value = chance_of_loss(hits_new[chosen], hits_old[chosen])
        if loss > numbers["largest_group_loss"]:
            numbers |= {"largest_group_loss": loss, "largest_group_loss_p_value": p_value}
        if loss > rules.max_group_loss and p_value <= rules.alpha / len(new.judged):
            wrong.append(
                f"Group {group.group} ({group.rows} rows) falls from {before[group.group]:.3f} to "
                f"{group.accuracy:.3f} (p = {p_value:.2g}), where a loss of {rules.max_group_loss:g} is allowed"
            )
    return wrong, numbers
