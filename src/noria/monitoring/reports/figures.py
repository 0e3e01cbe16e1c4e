"""A report's pictures, as Vega-Lite specifications in the look of all charts."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from noria.monitoring import charts
from noria.monitoring.charts import Spec, frame, time_axis

Said = Mapping[str, Any]
_PALETTE = [f"var(--c{number})" for number in range(1, 9)]
_FEW = 112
"""Points of a line that can be told apart; of more windows, several make a point."""
MOST_MEASURES = 6
_MEASURES = ("accuracy", "estimated_accuracy", "f1", "exact_match", "score", "rougeL")
"""Measures of answers that are drawn, and what judges say; between 0 and 1."""
_NAMES = {
    "error": "failed",
    "guardrail_hit": "stopped by a guardrail",
    "refusal": "declined",
    "cache_hit": "from the cache",
    "pii": "personal data taken out",
}
LIGHT = {
    "--paper": "#ffffff", "--card": "#ffffff", "--ink": "#15211f", "--muted": "#55645f", "--line": "#dde4e1",
    "--alarm": "#b3261e", "--c1": "#0b7a75", "--c2": "#7b5ea7", "--c3": "#b06a00", "--c4": "#2f5fa8", "--c5": "#b0456e",
    "--c6": "#5b7f1f", "--c7": "#8a5a3c", "--c8": "#6b7672",
}  # fmt: skip
"""What the page's colours are on white, for pictures that stand alone."""


def evidence(endpoint: Said) -> Spec | None:
    """Every monitor's evidence over the windows against the line at which it alarms."""
    return charts.evidence(_timed(endpoint["drift"]))


def effect(endpoint: Said, measure: str) -> Spec | None:
    """A classic effect size of every monitor over the windows."""
    return charts.effect(_timed(endpoint["drift"]), measure)


def judged(endpoint: Said) -> Spec | None:
    """The average of what people and judges said, against what was promised, where the table has no measure of it."""
    return None if endpoint["quality"] else charts.accuracy(_timed(endpoint["drift"]))


def traffic(endpoint: Said) -> Spec | None:
    """Requests of each window, those that failed on top."""
    rows = endpoint["traffic"]
    points = [
        _span(row) | {"how": how, "low": low, "high": high}
        for row in rows
        for how, low, high in (
            ("answered", 0, row["count"] - row["errors"]),
            ("failed", row["count"] - row["errors"], row["count"]),
        )
        if high > low
    ]
    if not points:
        return None
    scale = {"domain": ["answered", "failed"], "range": ["var(--c1)", "var(--alarm)"]}
    legend = {"orient": "top", "title": None, "symbolType": "square"} if any(r["errors"] for r in rows) else None
    return _bars(points, {"field": "how", "type": "nominal", "scale": scale, "legend": legend}, ",.0f")


def cost(endpoint: Said) -> Spec | None:
    """US dollars of each window."""
    rows = endpoint["spent"].get("cost_usd", ())
    points = [_span(row) | {"low": 0, "high": row["avg"] * row["count"]} for row in rows]
    return _bars(points, {"value": "var(--c3)"}, "$~g") if any(p["high"] for p in points) else None


def tokens(endpoint: Said) -> Spec | None:
    """Tokens of a request and of its answer, on average in each window."""
    names = {"input_tokens": "asked", "output_tokens": "answered"}
    series = {said: endpoint["spent"][name] for name, said in names.items() if name in endpoint["spent"]}
    return _lines(series, {"format": "~s", "tickCount": 4})


def latency(endpoint: Said) -> Spec | None:
    """The median and the 95th percentile of each window, milliseconds."""
    return _between(endpoint["latency"].get("execution_duration_ms"), "var(--c4)")


def first_token(endpoint: Said) -> Spec | None:
    """The same of the time to the first token."""
    return _between(endpoint["latency"].get("ttft_ms"), "var(--c2)")


def rates(endpoint: Said) -> Spec | None:
    """Shares of requests in each window; those that are always zero are left out."""
    found = {_NAMES.get(n, n): rows for n, rows in endpoint["rates"].items() if any(row["avg"] for row in rows)}
    return _lines(found, {"format": "~%", "tickCount": 4})


def quality(endpoint: Said) -> Spec | None:
    """The main measures of answers by window with their 95% intervals: shares of what is right, or good."""
    names = [name.removeprefix("quality.") for name in endpoint["quality"]]
    main = sorted((name for name in names if _is_main(name)), key=_rank)[:MOST_MEASURES]
    found = {name.replace("_", " "): endpoint["quality"][f"quality.{name}"] for name in main}
    return _lines(found, {"format": "~%", "tickCount": 5}, height=190, zero=False)


def _rank(name: str) -> tuple[int, str]:
    return (_MEASURES.index(name) if name in _MEASURES else len(_MEASURES), name)


def _is_main(name: str) -> bool:
    """Whether a measure is one that is drawn: the others stand in the table."""
    return name in _MEASURES or (name.startswith("judge:") and "." not in name)


def alone(spec: Spec) -> Spec:
    """A picture that stands without a page: the page's colours on white instead of its variables."""
    text = json.dumps(spec)
    for name, colour in LIGHT.items():
        text = text.replace(f"var({name})", colour)
    made: Spec = json.loads(text)
    return made


def _bars(points: Sequence[Said], colour: Spec, number: str) -> Spec:
    """One bar a window, as wide as the window."""
    x = time_axis(p["at"] for p in points)
    axis = {"title": None, "tickCount": 4, "grid": True, "format": number}
    y = {"field": "low", "type": "quantitative", "axis": axis, "scale": {"zero": True}}
    gap = 0.6 if len(points) <= _FEW else 0
    marks = {"type": "rect", "stroke": "var(--card)", "strokeWidth": gap}
    encoding = {"x": x, "x2": {"field": "until"}, "y": y, "y2": {"field": "high"}, "color": colour}
    return frame(points, [{"mark": marks, "encoding": encoding}], 130)


def _between(rows: Sequence[Said] | None, colour: str) -> Spec | None:
    """A band from the median to the 95th percentile, with the median as a line."""
    points = [_middle(row) | {"value": row["p50"], "high": row["p95"]} for row in rows or () if row["p95"] is not None]
    if not points:
        return None
    x = time_axis(p["at"] for p in points)
    y = {"type": "quantitative", "axis": {"title": None, "tickCount": 4, "grid": True, "format": "~s"},
         "scale": {"zero": True}}  # fmt: skip
    band = {
        "mark": {"type": "area", "color": colour, "opacity": 0.22},
        "encoding": {"x": x, "y": {"field": "value", **y}, "y2": {"field": "high"}},
    }
    edge = {
        "mark": {"type": "line", "color": colour, "strokeWidth": 1.2, "opacity": 0.7},
        "encoding": {"x": x, "y": {"field": "high", **y}},
    }
    line = {
        "mark": {"type": "line", "color": colour, "strokeWidth": 2, "point": _dots(points)},
        "encoding": {"x": x, "y": {"field": "value", **y}},
    }
    return frame(points, [band, edge, line], 130)


def _lines(series: Mapping[str, Sequence[Said]], axis: Spec, *, height: int = 130, zero: bool = True) -> Spec | None:
    """One line of averages for each series, with its interval where the rows have one."""
    points = [
        _middle(row)
        | {"name": name, "value": row["avg"]}
        | ({"low": row["low"], "high": row["high"]} if row["low"] is not None else {})
        for name, rows in series.items()
        for row in _together(rows)
    ]
    if not points:
        return None
    names = list(series)
    scale = {"domain": names, "range": [_PALETTE[i % len(_PALETTE)] for i in range(len(names))]}
    colour = {"field": "name", "type": "nominal", "scale": scale, "legend": charts.legend_of(names)}
    x = time_axis(p["at"] for p in points)
    y = {"type": "quantitative", "axis": {"title": None, "grid": True, **axis}, "scale": {"zero": zero, "nice": True}}
    layers: list[Spec] = []
    if any("low" in p for p in points):
        edges = {"y": {"field": "low", **y}, "y2": {"field": "high"}}
        area = {"type": "area", "opacity": 0.16}
        layers.append({"mark": area, "encoding": {"x": x, "color": {**colour, "legend": None}, **edges}})
    line = {"type": "line", "strokeWidth": 2, "point": _dots(points)}
    layers.append({"mark": line, "encoding": {"x": x, "y": {"field": "value", **y}, "color": colour}})
    return frame(points, layers, height)


def _together(rows: Sequence[Said]) -> Sequence[Said]:
    """Rows of averages of so many windows together that few enough are left to be told apart.

    An average is that of all values; its interval is as wide as independent windows make it.
    """
    size = -(-len(rows) // _FEW)
    return rows if size <= 1 else [_sum(rows[at : at + size]) for at in range(0, len(rows), size)]


def _sum(rows: Sequence[Said]) -> Said:
    number = sum(row["count"] for row in rows)
    if not number:
        return rows[-1]
    mean = sum(row["avg"] * row["count"] for row in rows) / number
    bounds: dict[str, float | None] = {"low": None, "high": None}
    if all(row["low"] is not None and row["high"] is not None for row in rows):
        half = math.sqrt(sum((row["count"] * (row["high"] - row["low"]) / 2) ** 2 for row in rows)) / number
        bounds = {"low": mean - half, "high": mean + half}
    return {"start": rows[0]["start"], "end": rows[-1]["end"], "count": number, "avg": mean, **bounds}


def _dots(points: Sequence[Said]) -> Any:
    return {"size": 14, "filled": True} if len({p["at"] for p in points}) <= charts.DOTTED else False


def _span(row: Said) -> dict[str, Any]:
    return {"at": _ms(row["start"]), "until": _ms(row["end"])}


def _middle(row: Said) -> dict[str, Any]:
    """The middle of a window: where a line has its point."""
    return {"at": (_ms(row["start"]) + _ms(row["end"])) // 2}


def _ms(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def _timed(rows: Iterable[Said]) -> list[dict[str, Any]]:
    """Rows of the drift table with moments instead of texts."""
    return [{**row, "window": {name: datetime.fromisoformat(at) for name, at in row["window"].items()}} for row in rows]
