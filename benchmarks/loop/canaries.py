"""How seldom an equal candidate is rolled back, and how soon a bad one: whole simulated rollouts."""

from statistics import median

from benchmarks.parts import Found
from noria.domain.rollout import Stage
from noria.release.simulation import Rates, share_rolled_back, simulate
from noria.settings import RolloutPlan

RUNS = {True: 300, False: 2_000}
"""Simulated rollouts of each kind, in a quick run and in a whole one."""
GOOD = Rates()
BAD = {
    "errors": Rates(errors=0.1),
    "slow": Rates(slow=0.2),
    "refusals": Rates(refusals=0.2),
    "guardrails": Rates(guardrails=0.1),
    "wrong": Rates(wrong=0.4),
}
"""Ten times as many failures, stopped answers, slow ones and refusals, twice as many wrong ones."""


def measure(quick: bool) -> Found:
    """Rollouts by the default plan, all guards on: `bad_canary_median_requests` is that of a candidate that fails in
    10% of its answers instead of 1%, from the first canary or shadow answer on."""
    plan, runs = RolloutPlan(), RUNS[quick]
    equal = [simulate(plan, GOOD, GOOD, seed) for seed in range(runs)]
    low, high = _interval(sum(run.stage is Stage.ROLLED_BACK for run in equal), runs)
    kinds = {}
    for name, rates in BAD.items():
        found = [simulate(plan, GOOD, rates, seed) for seed in range(runs // 4)]
        caught = [run for run in found if run.stage is Stage.ROLLED_BACK]
        kinds[name] = {
            "rolled_back": share_rolled_back(found),
            "median_requests": median(run.requests for run in caught) if caught else None,
            "median_answers_to_callers": median(run.candidate_requests for run in caught) if caught else None,
        }
    return {
        "false_rollback_rate": share_rolled_back(equal),
        "false_rollback_rate_95": [low, high],
        "rollout_alpha": plan.alpha,
        "bad_canary_median_requests": kinds["errors"]["median_requests"],
        "bad_canaries": kinds,
        "simulated_rollouts": runs,
    }, {}


def _interval(count: int, of: int) -> tuple[float, float]:
    """Clopper and Pearson's, 95%."""
    from scipy.stats import binomtest

    found = binomtest(count, of).proportion_ci(0.95, "exact")
    return float(found.low), float(found.high)
