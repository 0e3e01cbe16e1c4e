"""Where an experiment stands: every version's numbers with intervals, and what they come to, as pure functions.

All intervals of one measure hold together with probability 1 - alpha, at every look: each version's has its share of
alpha. The one metric that the experiment was asked about decides; the other measures are shown beside it. Where that is
a rate, evidence decides that adds up over blocks of answers (STATISTICS 5), which is sooner sure than two intervals
that no longer touch.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import permutations

from noria.domain.endpoint import FULL_WEIGHT
from noria.domain.experiment import BINS, Experiment, Metric, Tally, edges
from noria.evaluation.sequential.blocks import log_e_block
from noria.evaluation.sequential.intervals import Interval, mean, proportion, quantile

TAIL = 0.95
BLOCK = 10
"""Answers that each of two versions has to show before a block is weighed."""
DRAWS = 2000
"""How often Thompson sampling asks which version is best."""
_EDGES = tuple(edges(number) for number in range(BINS))
_RATES = frozenset({Metric.SUCCESS, Metric.ERRORS})
_LOWER_IS_BETTER = frozenset({Metric.ERRORS, Metric.LATENCY, Metric.COST})
_NAMES = {
    Metric.SUCCESS: "success rate",
    Metric.ERRORS: "error rate",
    Metric.LATENCY: "median time",
    Metric.COST: "mean cost",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One version's numbers.

    Attributes:
        ref: `model/version`.
        weight: Per cent of the traffic.
        requests: That it got.
        measures: Measure → interval: the four metrics, and `latency_p95`; times are milliseconds, costs US dollars.
        against: The same as differences from the champion; empty for the champion.
    """

    ref: str
    weight: int
    requests: int
    measures: Mapping[str, Interval]
    against: Mapping[str, Interval]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Whether it is known which version is better.

    Attributes:
        over: Whether the experiment ends here.
        winner: The better one, empty if there is none.
        sentence: What was found.
    """

    over: bool
    winner: str
    sentence: str


def standings(experiment: Experiment) -> list[Standing]:
    """Every version's numbers, in the order of the variants; the champion is first."""
    alpha = experiment.alpha / len(experiment.variants)
    measured = {v.ref: measures(experiment.tallies.get(v.ref, Tally()), alpha) for v in experiment.variants}
    champion = measured[experiment.variants[0].ref]
    return [
        Standing(
            ref=v.ref,
            weight=v.weight,
            requests=experiment.tallies.get(v.ref, Tally()).requests,
            measures=measured[v.ref],
            against={n: i.minus(champion[n]) for n, i in measured[v.ref].items()} if place else {},
        )
        for place, v in enumerate(experiment.variants)
    ]


def measures(tally: Tally, alpha: float) -> dict[str, Interval]:
    """A version's measures, each with an interval that errs with probability alpha."""
    times = tally.times or (0,) * BINS
    return {
        Metric.SUCCESS: proportion(tally.labelled - tally.wrong, tally.labelled, alpha),
        Metric.ERRORS: proportion(tally.errors, tally.requests, alpha),
        Metric.LATENCY: quantile(times, _EDGES, 0.5, alpha),
        "latency_p95": quantile(times, _EDGES, TAIL, alpha),
        Metric.COST: mean(tally.priced, tally.cost, tally.cost_squares, alpha),
    }


def weigh(experiment: Experiment) -> Experiment:
    """The experiment with the evidence of all blocks that are full, for each version against each other one."""
    weighed, log_e = dict(experiment.weighed), dict(experiment.log_e)
    for metric in {Metric.ERRORS, experiment.metric} & _RATES:
        for better, worse in permutations([v.ref for v in experiment.variants], 2):
            pair = _pair(metric, better, worse)
            a, b = _bad(experiment, metric, better), _bad(experiment, metric, worse)
            bad_a, all_a, bad_b, all_b = weighed.get(pair, (0, 0, 0, 0))
            if min(a[1] - all_a, b[1] - all_b) < BLOCK:
                continue
            block = (a[0] - bad_a, a[1] - all_a), (b[0] - bad_b, b[1] - all_b)
            log_e[pair] = log_e.get(pair, 0.0) + log_e_block(*block, (bad_a, all_a), (bad_b, all_b))
            weighed[pair] = (*a, *b)
    return replace(experiment, weighed=weighed, log_e=log_e)


def _bad(experiment: Experiment, metric: Metric, ref: str) -> tuple[int, int]:
    tally = experiment.tallies.get(ref, Tally())
    return (tally.errors, tally.requests) if metric is Metric.ERRORS else (tally.wrong, tally.labelled)


def _pair(metric: Metric, better: str, worse: str) -> str:
    return f"{metric}:{better}>{worse}"


def _is_better(experiment: Experiment, metric: Metric, one: Standing, other: Standing) -> bool:
    """Whether it is known that one version does better than another."""
    if metric in _RATES:
        versions = len(experiment.variants)
        line = math.log(versions * (versions - 1) / experiment.alpha)
        return experiment.log_e.get(_pair(metric, one.ref, other.ref), 0.0) >= line
    return one.measures[metric].high < other.measures[metric].low


def outcome(experiment: Experiment) -> Outcome:
    """What the numbers come to."""
    found = standings(experiment)
    champion, others = found[0], found[1:]
    for other in others:
        if _is_better(experiment, Metric.ERRORS, champion, other):
            shown = _both(other, champion, Metric.ERRORS)
            return Outcome(over=True, winner="", sentence=f"{other.ref} fails more often than the champion: {shown}.")
    metric = experiment.metric
    best = _best(experiment, found)
    if best is not None:
        rest = ", ".join(_both(best, other, metric) for other in found if other is not best)
        word = "lower" if metric in _LOWER_IS_BETTER else "higher"
        sentence = f"{best.ref} has a {word} {_NAMES[metric]} than all others: {rest}."
        return Outcome(over=True, winner=best.ref, sentence=sentence)
    if experiment.margin and all(_equal(o.against[metric], experiment.margin) for o in others):
        sentence = f"No version's {_NAMES[metric]} differs from the champion's by {experiment.margin:g} or more."
        return Outcome(over=True, winner="", sentence=sentence)
    if experiment.requests >= experiment.max_requests:
        sentence = f"After {experiment.requests} requests it is still open which version's {_NAMES[metric]} is better."
        return Outcome(over=True, winner="", sentence=sentence)
    return Outcome(over=False, winner="", sentence=f"Still open: {_NAMES[metric]}, {experiment.requests} requests.")


def split(experiment: Experiment) -> tuple[int, ...]:
    """Per cent of the traffic for each variant by Thompson sampling: how likely each is the best, at least the floor.

    A version's rate of success is drawn from its posterior (Beta, uniform prior); its share of the traffic is how often
    its draw is the highest. What is drawn depends on the counts alone, so a look that is repeated finds the same.
    """
    tallies = [experiment.tallies.get(v.ref, Tally()) for v in experiment.variants]
    if experiment.metric is Metric.ERRORS:
        counts = [(tally.requests - tally.errors, tally.errors) for tally in tallies]
    else:
        counts = [(tally.labelled - tally.wrong, tally.wrong) for tally in tallies]
    chance = random.Random(repr(counts))  # noqa: S311 - no secret
    wins = [0] * len(counts)
    for _ in range(DRAWS):
        drawn = [chance.betavariate(1 + good, 1 + bad) for good, bad in counts]
        wins[drawn.index(max(drawn))] += 1
    free = FULL_WEIGHT - experiment.floor * len(counts)
    shares = [experiment.floor + int(free * won / DRAWS) for won in wins]
    shares[wins.index(max(wins))] += FULL_WEIGHT - sum(shares)
    return tuple(shares)


def evenly(variants: int) -> tuple[int, ...]:
    """The same per cent of the traffic for each; what is left over goes to the first."""
    share = FULL_WEIGHT // variants
    return (FULL_WEIGHT - share * (variants - 1), *[share] * (variants - 1))


def shown(measure: str, interval: Interval) -> str:
    """An interval for a person: `0.842 (0.801 to 0.877)`."""
    if math.isnan(interval.value):
        return "unknown"
    bounds = f" ({_said(measure, interval.low)} to {_said(measure, interval.high)})"
    return _said(measure, interval.value) + ("" if interval.low == -math.inf else bounds)


def _said(measure: str, value: float) -> str:
    if measure.startswith(Metric.LATENCY):
        return f"{value:.0f} ms" if value < math.inf else "any"
    return f"${value * 1000:.4g} a thousand" if measure == Metric.COST else f"{value:.3f}"


def _best(experiment: Experiment, found: list[Standing]) -> Standing | None:
    """The version that does better than every other."""
    for one in found:
        if all(_is_better(experiment, experiment.metric, one, other) for other in found if other is not one):
            return one
    return None


def _equal(difference: Interval, margin: float) -> bool:
    return -margin < difference.low and difference.high < margin


def _both(one: Standing, other: Standing, metric: Metric) -> str:
    return f"{shown(metric, one.measures[metric])} against {shown(metric, other.measures[metric])} of {other.ref}"
