"""What a monitor watches, what it compares with, and what its evidence means, in sentences."""

import math

from noria.domain.monitor import MonitorKind, MonitorState
from noria.monitoring.words import number, odds, percent
from noria.settings import Monitors
from noria.settings.monitors import FAULTS, column_of

_WATCHES = {
    "input": "what callers write: topics of words, crossed with how unusual a text is",
    "input_length": "how long prompts are, in characters",
    "prediction": "the mix of answers that the champion gives",
    "quality": "whether answers are right, as far as labels and feedback have come in",
    "output": "what the model writes: topics of words, crossed with how unusual a text is",
    "output_length": "how long answers are, in characters",
    "execution_duration_ms": "how long answers take, in milliseconds",
    "ttft_ms": "how long callers wait for the first streamed token, in milliseconds",
    "cost_usd": "what a request costs, in US dollars",
    "input_tokens": "how many tokens a request has",
    "output_tokens": "how many tokens an answer has",
    "input_language": "which languages prompts are in",
    "output_language": "which languages answers are in",
    "error": "how many requests fail",
    "output_refusal": "how many answers decline",
    "refusal": "how many requests are declined",
    "confidence": "how sure the model is of its predictions",
}
_HARDLY, _HALF = 0.25, 0.5
_ROUND = 10


def watches(monitor: MonitorState) -> str:
    """What a monitor watches."""
    column = column_of(monitor.monitor)
    if column in _WATCHES:
        return _WATCHES[column]
    name = column.removeprefix("feature.")
    if column.startswith("feature."):
        return f"the column {name} of callers' data frames"
    side, _, measure = column.partition("_")
    where = {"input": "of prompts", "output": "of answers"}.get(side)
    said = measure.replace("_", " ") if where else column.replace("_", " ")
    return f"{said} {where}" if where else f"{said} of requests"


def baseline_of(monitor: MonitorState, settings: Monitors) -> str:
    """What it compares with."""
    if "floor" in monitor.numbers:
        promised = number(monitor.numbers["floor"])
        most = monitor.monitor in FAULTS or column_of(monitor.monitor) in FAULTS
        return f"a promised average of at {'most' if most else 'least'} {promised}"
    match settings.baseline:
        case "training":
            return (
                f"the baseline of version {monitor.model_version}: what its trainer left, or its first "
                f"{settings.baseline_records:,} records"
            )
        case "first":
            return f"the first {settings.baseline_records:,} records of version {monitor.model_version}"
        case span:
            return f"the records from {span.since:%Y-%m-%d %H:%M} to {span.until:%Y-%m-%d %H:%M} UTC"


def evidence_in_words(monitor: MonitorState) -> str:
    """How things stand, in one sentence."""
    if not monitor.rows:
        return "It has seen no record since its baseline began."
    seen = f"after {monitor.rows:,} {'value' if monitor.rows == 1 else 'values'}"
    if monitor.alarms:
        return f"It alarms: {odds(monitor.log_e)} to 1 speak for a change {seen}."
    share = monitor.log_e / monitor.log_threshold if monitor.log_threshold else 0.0
    if monitor.log_e <= 0:
        return f"Nothing speaks for a change {seen}."
    said = f"{odds(monitor.log_e)} to 1 speak for a change {seen}"
    if share < _HARDLY:
        return f"{said}: what no change looks like."
    return f"{said}: {'worth a look' if share >= _HALF else 'hardly anything'}, no alarm."


def to_an_alarm(monitor: MonitorState, settings: Monitors) -> str:
    """What would make it alarm."""
    line = odds(monitor.log_threshold)
    why = f"so that all monitors of the endpoint together ever raise a false alarm with probability {settings.alpha:g}"
    if monitor.alarms:
        return f"The line is {line} to 1, {why}. An alarm is final for this version: the next one begins anew."
    times = math.exp(min(monitor.log_threshold - max(monitor.log_e, 0.0), 700))
    how = _by_how_much(monitor)
    return f"The evidence has to become {_times(times)} times as much, {line} to 1, {why}.{how}"


def _times(factor: float) -> str:
    return f"{factor:,.0f}" if factor >= _ROUND else f"{factor:.1f}"


def _by_how_much(monitor: MonitorState) -> str:
    """What has to happen for that."""
    if "floor" in monitor.numbers and "mean" in monitor.numbers:
        floor, mean = monitor.numbers["floor"], monitor.numbers["mean"]
        worse = "above" if column_of(monitor.monitor) in FAULTS else "below"
        shown = percent if 0 <= floor <= 1 and 0 <= mean <= 1 else number
        return f" Its average since the beginning is {shown(mean)}; it has to stay {worse} {shown(floor)}."
    if monitor.kind is MonitorKind.QUALITY:
        return ""
    psi = monitor.numbers.get("population_stability_index")
    so_far = f" So far its PSI against the baseline is {number(psi)}." if psi is not None else ""
    return f"{so_far} A large change takes few records, a small one many; how many came in says nothing by itself."
