"""Pictures of evidence: how it grows with and without a change, and how many unchanged streams ever alarm."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.statistics.counted import numbers
from benchmarks.statistics.kinds import LINE, LOOKS

REFERENCE = 5000
_WIDTH, _HEIGHT = 620, 300
_LOOKS, _ROWS = 60, 150
_NULL, _SHIFTED = 20, 5
_LOWEST = -12
_COLOURS = {"unchanged": "#9aa7ad", "moved by 0.1 sd": "#d9902f", "moved by 0.2 sd": "#b3402e"}
_TOOLS = {
    "Noria": "#2a7f86",
    "Evidently, defaults": "#b3402e",
    "NannyML, defaults": "#d9902f",
    "Kolmogorov-Smirnov at each look": "#6b5b95",
}


def _spec(title: str, values: Sequence[Mapping[str, Any]], layer: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": title,
        "width": _WIDTH,
        "height": _HEIGHT,
        "data": {"values": list(values)},
        "layer": list(layer),
        "background": "white",
    }


def _colour(colours: Mapping[str, str]) -> dict[str, Any]:
    scale = {"domain": list(colours), "range": list(colours.values())}
    return {"field": "what", "type": "nominal", "title": None, "scale": scale, "legend": {"orient": "bottom"}}


def evidence() -> dict[str, Any]:
    """Vega-Lite specification: evidence of streams of numbers, row by row."""
    values = []
    for number, (what, shift) in enumerate(zip(_COLOURS, (0.0, 0.1, 0.2), strict=True)):
        for run in range(_SHIFTED if shift else _NULL):
            # Runs 0, 8, 16, … are bell-shaped: a shift in standard deviations means the same for all.
            path = numbers(np.random.default_rng([90, number, run]), REFERENCE, shift, run * 8).evidence(_LOOKS, _ROWS)
            values += [
                {
                    "what": what,
                    "stream": f"{what} {run}",
                    "rows": look * _ROWS,
                    "ln e": round(max(float(log_e), _LOWEST), 2),
                }
                for look, log_e in enumerate(np.minimum(path, 3 * LINE), 1)
            ]
    line = {
        "mark": {"type": "line", "strokeWidth": 1.2, "opacity": 0.75, "clip": True},
        "encoding": {
            "x": {"field": "rows", "type": "quantitative", "title": "rows since the baseline"},
            "y": {"field": "ln e", "type": "quantitative", "title": "ln evidence", "scale": {"domainMax": 3 * LINE}},
            "color": _colour(_COLOURS),
            "detail": {"field": "stream", "type": "nominal"},
        },
    }
    alarm = {
        "mark": {"type": "rule", "strokeDash": [5, 4], "color": "#333333"},
        "encoding": {"y": {"datum": LINE, "type": "quantitative"}},
    }
    return _spec("Evidence against “nothing has changed”; the alarm line is ln 20", values, [line, alarm])


def false_alarms(first: Mapping[str, Sequence[int | None]]) -> dict[str, Any]:
    """Vega-Lite specification: share of unchanged streams that have alarmed after so many looks.

    Args:
        first: Tool → the look at which each stream alarmed for the first time.
    """
    looks = np.unique(np.geomspace(1, LOOKS, 60).round().astype(int)).tolist()
    values = [
        {"what": tool, "looks": look, "share": sum(f is not None and f <= look for f in found) / len(found)}
        for tool, found in first.items()
        if found
        for look in looks
    ]
    line = {
        "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2},
        "encoding": {
            "x": {"field": "looks", "type": "quantitative", "title": "looks", "scale": {"type": "log"}},
            "y": {"field": "share", "type": "quantitative", "title": "streams that alarmed", "axis": {"format": "%"}},
            "color": _colour({tool: colour for tool, colour in _TOOLS.items() if first.get(tool)}),
        },
    }
    promise = {
        "mark": {"type": "rule", "strokeDash": [5, 4], "color": "#333333"},
        "encoding": {"y": {"datum": math.exp(-LINE), "type": "quantitative"}},
    }
    return _spec("Unchanged streams of numbers that have alarmed; alpha is 5%", values, [line, promise])


def save(spec: Mapping[str, Any], file: Path) -> None:
    """Write a picture as SVG."""
    import altair

    altair.Chart.from_dict(dict(spec)).save(str(file))
