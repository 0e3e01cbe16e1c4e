"""Many monitors at once."""

import math
from collections.abc import Mapping


def log_threshold(alpha: float, monitors: int = 1) -> float:
    """The alarm line ln(K / alpha) for K monitors: together they raise a false alarm with probability alpha."""
    return math.log(max(monitors, 1) / alpha)


def e_bh(log_es: Mapping[str, float], alpha: float) -> frozenset[str]:
    """Which of many hypotheses to reject so that at most alpha of the rejected ones are true, on average.

    The e-value form of Benjamini-Hochberg (Wang & Ramdas 2022); it holds under any dependence.
    """
    ranked = sorted(log_es, key=lambda name: log_es[name], reverse=True)
    passing = [k for k, name in enumerate(ranked, 1) if log_es[name] >= math.log(len(ranked) / (k * alpha))]
    return frozenset(ranked[: max(passing, default=0)])
