"""The gates about how a version runs on the host that will serve it: how fast, and for how much."""

from collections.abc import Sequence

import numpy as np

from noria.domain.errors import InvalidData
from noria.domain.gate import GateResult
from noria.release.case import Case, result
from noria.release.trial import Answers


def latency(case: Case) -> GateResult:
    """Fast enough on the host that will serve it, beside the traffic that goes on there; and not too much slower than
    the champion, if the policy says how much that is."""
    rules = case.policy.rules
    middle, high = _quantiles(case.said.latencies_ms)
    numbers = {"p50_ms": middle, "p95_ms": high, "requests": len(case.said.latencies_ms)}
    thresholds = {"max_latency_p95_ms": rules.max_latency_p95_ms}
    says = f"95 of 100 answers came within {high:.0f} ms ({len(case.said.latencies_ms)} timed)"
    problems = [f"{rules.max_latency_p95_ms:g} ms is allowed"] if high > rules.max_latency_p95_ms else []
    if rules.max_latency_ratio is not None and case.champion:
        theirs = _quantiles(case.champion_said.latencies_ms)[1]
        numbers |= {"champion_p95_ms": theirs, "ratio": high / theirs}
        thresholds |= {"max_latency_ratio": rules.max_latency_ratio}
        if high > theirs * rules.max_latency_ratio:
            allowed = f"{rules.max_latency_ratio:g} times as long is allowed"
            problems.append(f"the champion's came within {theirs:.0f} ms, and {allowed}")
    allowed = "; ".join(problems) or f"{rules.max_latency_p95_ms:g} ms is allowed"
    return result("latency", not problems, f"{says}; {allowed}.", numbers, thresholds)


def _quantiles(times: Sequence[float]) -> tuple[float, float]:
    if not times:
        raise InvalidData("No request was timed.", "Give the trial held-out rows.")
    middle, high = (float(q) for q in np.quantile(times, [0.5, 0.95], method="higher"))
    return middle, high


def cost(case: Case) -> GateResult:
    """Cheap enough: what a thousand of its answers cost, from the tokens that it used and the price of its model."""
    rules = case.policy.rules
    limits = {"max_usd_per_1000": rules.max_usd_per_1000, "max_cost_ratio": rules.max_cost_ratio}
    thresholds = {name: limit for name, limit in limits.items() if limit is not None}
    if not thresholds:
        usd = _usd(case.said)
        says = "its price is not known" if usd is None else f"a thousand answers cost {usd:.4g} US dollars"
        return result("cost", True, f"The policy sets no limit; {says}.", {} if usd is None else {"usd_per_1000": usd})
    usd = _demand(case.said, case.candidate.ref)
    numbers, problems = {"usd_per_1000": usd}, []
    if rules.max_usd_per_1000 is not None and usd > rules.max_usd_per_1000:
        problems.append(f"{rules.max_usd_per_1000:g} are allowed")
    if rules.max_cost_ratio is not None and case.champion:
        theirs = _demand(case.champion_said, case.champion)
        numbers |= {"champion_usd_per_1000": theirs}
        if usd > theirs * rules.max_cost_ratio:
            problems.append(f"the champion's cost {theirs:.4g}, and {rules.max_cost_ratio:g} times that is allowed")
    says = f"A thousand answers cost {usd:.4g} US dollars"
    return result("cost", not problems, f"{says}; {'; '.join(problems) or 'that is allowed'}.", numbers, thresholds)


def _usd(said: Answers) -> float | None:
    return None if said.usd is None or not said.asked else 1000 * said.usd / said.asked


def _demand(said: Answers, ref: str) -> float:
    usd = _usd(said)
    if usd is None:
        raise InvalidData(
            f"What {ref} costs is not known.", "Write the endpoint's price in noria.yaml, or leave the limit out."
        )
    return usd
