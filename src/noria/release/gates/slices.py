"""The gate that looks at parts of the rows one by one: an average may rise while a part of it falls."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, wilcoxon

from noria.domain.gate import GateResult
from noria.release.case import Case, Hits, result

LONGEST = 48
"""Characters of a label that are shown."""


def slices(case: Case) -> GateResult:
    """No part of the rows is answered much worse than by the champion: none with the same label, none of the same
    origin, and none of the same origin in one group.

    A part's loss counts when it is larger than the policy allows *and* more than chance: an exact one-sided test on the
    rows on which the two differ, at alpha shared by all parts (Bonferroni), so that many parts don't make a false
    accusation likely. Parts with too few rows are counted and not judged.
    """
    rules = case.policy.rules
    thresholds = {"max_slice_loss": rules.max_slice_loss, "min_group_rows": rules.min_group_rows, "alpha": rules.alpha}
    if not case.champion:
        return result("slices", True, "There is no champion to lose against.", {}, thresholds)
    new, old = case.hits(case.said), case.hits(case.champion_said)
    parts = list(_parts(case))
    judged = [(name, chosen) for name, chosen in parts if chosen.sum() >= rules.min_group_rows]
    numbers = {"slices": len(parts), "slices_judged": len(judged), "largest_loss": 0.0, "largest_loss_p_value": 1.0}
    wrong = []
    for name, chosen in judged:
        loss = float(old[chosen].mean() - new[chosen].mean())
        p_value = chance_of_loss(new[chosen], old[chosen])
        if loss > numbers["largest_loss"]:
            numbers |= {"largest_loss": loss, "largest_loss_p_value": p_value}
        if loss > rules.max_slice_loss and p_value <= rules.alpha / len(judged):
            wrong.append(
                f"{name} ({chosen.sum()} rows) falls from {old[chosen].mean():.3f} to {new[chosen].mean():.3f} "
                f"(p = {p_value:.2g}), where a loss of {rules.max_slice_loss:g} is allowed"
            )
    says = f"None of {len(judged)} parts loses {rules.max_slice_loss:g} or more beyond chance"
    return result("slices", not wrong, f"{'; '.join(wrong) or says}.", numbers, thresholds)


def _parts(case: Case) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Parts of the rows by what they have in common; those that are all rows are none."""
    rows = case.held_out
    labels, origins, groups = (np.asarray(each, object) for each in (rows.labels, rows.origins, rows.groups))
    for word, values in (("label", labels), ("origin", origins)):
        named = sorted(set(values.tolist()))
        if 1 < len(named) <= len(values) / 2:  # wanted answers of a chat are all different
            for value in named:
                yield f"Label {value[:LONGEST]}" if word == "label" else f"Origin {value}", values == value
    if len(set(origins.tolist())) > 1:
        for origin in sorted(set(origins.tolist())):
            for group in sorted(set(groups.tolist()) - {""}):
                chosen = (origins == origin) & (groups == group)
                if chosen.any():
                    yield f"Group {group} of origin {origin}", chosen


def chance_of_loss(new: Hits, old: Hits) -> float:
    """Probability of such a loss if both are equally good.

    Of right and wrong answers: so many rows lost among those on which one of the two was right (McNemar's exact test,
    one-sided); of scores Wilcoxon's signed ranks.
    """
    lost, won = int((new < old).sum()), int((new > old).sum())
    if not lost + won:
        return 1.0
    if set(np.unique([new, old]).tolist()) <= {0.0, 1.0}:
        return float(binomtest(lost, lost + won, 0.5, alternative="greater").pvalue)
    return float(wilcoxon(old, new, alternative="greater").pvalue)
