"""Charts of what monitors saw, as Vega-Lite specifications and as SVG that is drawn beforehand: no script on the page.

Colours are the page's own CSS variables, so that a chart follows light and dark. Each chart is drawn twice, for wide
and for narrow screens, because scaled text can't be read on a phone.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from markupsafe import Markup

WIDTHS = {"full": 1040, "half": 470, "narrow": 282}
"""Of the plot area, in CSS pixels: for a card across the page, for one of two columns, for a phone."""
FLOOR, CEILING = -2.0, 12.0
"""Evidence outside 10^-2 to 10^12 is drawn at these ends: what matters is the way to the line and across it."""
DOTTED = 16
"""Lines with more windows than this are drawn without dots."""
MOST = 400
"""Windows that are drawn: the newest."""
_IN_A_ROW = 4
_COLOURS = {"text": "var(--c1)", "length": "var(--c2)", "prediction": "var(--c3)", "quality": "var(--c4)"}
_OTHERS = ("var(--c5)", "var(--c6)", "var(--c7)", "var(--c8)")
_LN10 = math.log(10)

Spec = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]


def evidence(rows: Rows) -> Spec | None:
    """Each monitor's evidence over the windows (log scale) against the line at which it alarms.

    Args:
        rows: Of the table drift_metrics, of one endpoint.

    Returns:
        A specification without a width; None if there is nothing to draw.
    """
    points = [
        _point(r, min(max(r["log_e"] / _LN10, FLOOR), CEILING))
        for r in _against_baseline(rows)
        if r.get("log_e") is not None
    ]
    if not points:
        return None
    line = max(r["log_threshold"] for r in rows if r.get("log_threshold") is not None) / _LN10
    top = math.ceil(max(line, *(p["value"] for p in points)) + 0.25)
    label = (
        "datum.value < 0 ? '1/' + format(pow(10, -datum.value), ',') : "
        "datum.value < 7 ? format(pow(10, datum.value), ',') : '10^' + datum.value"
    )
    axis = {"values": _powers(top), "labelExpr": label, "title": None, "grid": True}
    scale = {"domain": [FLOOR, top], "nice": False}
    alarm = line_at("var(--alarm)", line, f"alarm at {10**line:,.0f} : 1")
    return _lines(points, {"axis": axis, "scale": scale}, alarm, height=250)


def effect(rows: Rows, measure: str) -> Spec | None:
    """A classic effect size over the windows, one line a monitor; informs and never alarms."""
    points = [_point(r, r[measure]) for r in _against_baseline(rows) if r.get(measure) is not None]
    scale = {"zero": True, "nice": True}
    return (
        _lines(points, {"axis": {"tickCount": 4, "title": None, "grid": True}, "scale": scale}, [], height=130)
        if points
        else None
    )


def accuracy(rows: Rows) -> Spec | None:
    """Share of right answers among the judged records of each window, against the floor that the model promised.

    None if nothing was judged yet.
    """
    judged = [r for r in _against_baseline(rows) if r["monitor"] == "quality" and r.get("mean") is not None]
    if not judged:
        return None
    points = [_point(r, r["mean"]) for r in judged]
    floors = [r["mean"] - r["avg_delta"] for r in judged if r.get("avg_delta") is not None][-1:]
    layers = line_at("var(--muted)", floors[0], f"promised: {floors[0]:.0%}") if floors else []
    low = min(0.5, *floors, *(p["value"] for p in points))
    axis = {"format": "%", "tickCount": 5, "title": None, "grid": True}
    return _lines(points, {"axis": axis, "scale": {"domain": [max(0, low - 0.05), 1]}}, layers, height=170)


def draw(spec: Spec | None, size: str, title: str) -> Markup:
    """Both drawings of a chart with their description, ready for the page; nothing if there is no chart.

    Rendering needs `vl_convert`, which is imported at the first chart.
    """
    if spec is None:
        return Markup("")
    text = json.dumps(spec, sort_keys=True)
    sizes = (size, "narrow")
    frame = Markup('<div class="plot {}" role="img" aria-label="{}">{}</div>')
    return Markup("").join(frame.format(s, title, _svg(text, WIDTHS[s])) for s in sizes)


@lru_cache(maxsize=64)
def _svg(spec: str, width: int) -> Markup:
    import vl_convert

    sized = {**json.loads(spec), "width": width}
    return Markup(vl_convert.vegalite_to_svg(sized, allowed_base_urls=[]))  # noqa: S704 - Vega escapes all text


def line_at(colour: str, at: float, words: str) -> list[Spec]:
    """A dashed line across the chart with words above its beginning."""
    y = {"y": {"datum": at, "type": "quantitative"}}
    text = {"type": "text", "align": "left", "dx": 4, "dy": -9, "fontWeight": 600, "color": colour, "text": words}
    rule = {"type": "rule", "color": colour, "strokeDash": [5, 4], "size": 1.5}
    once: Spec = {"data": {"values": [{}]}}
    return [{**once, "mark": rule, "encoding": y}, {**once, "mark": text, "encoding": {**y, "x": {"value": 0}}}]


def _against_baseline(rows: Rows) -> Iterable[Mapping[str, Any]]:
    """What monitors say of the whole; columns that nobody watches and slices have rows, too."""
    of_monitors = (r for r in rows if r["monitor"] is not None and not r.get("slice_key"))
    return (r for r in of_monitors if r.get("drift_type", "BASELINE") == "BASELINE")


def _point(row: Mapping[str, Any], value: float) -> dict[str, Any]:
    """A point of a line; a new champion begins a new line."""
    end = int(row["window"]["end"].timestamp() * 1000)
    return {"at": end, "monitor": row["monitor"], "version": row.get("model_id") or "", "value": round(value, 6)}


def _powers(top: int) -> list[int]:
    step = max(1, math.ceil((top - FLOOR) / 8))
    return list(range(int(FLOOR), top + 1, step))


def _lines(every: list[dict[str, Any]], y: Spec, layers: list[Spec], height: int) -> Spec:
    """One line for each monitor and version over the newest windows."""
    shown = set(sorted({p["at"] for p in every})[-MOST:])
    points = [p for p in every if p["at"] in shown]
    names = sorted({p["monitor"] for p in points}, key=lambda n: (list(_COLOURS).index(n) if n in _COLOURS else 9, n))
    others = [n for n in names if n not in _COLOURS]
    colours = [_COLOURS.get(n) or _OTHERS[others.index(n) % len(_OTHERS)] for n in names]
    legend = legend_of(names) if len(names) > 1 else None
    scale = {"domain": names, "range": colours}
    colour = {"field": "monitor", "type": "nominal", "scale": scale, "legend": legend}
    value = {"field": "value", "type": "quantitative", **y}
    dots = {"size": 14, "filled": True} if len({p["at"] for p in points}) <= DOTTED else False
    marks: Spec = {
        "mark": {"type": "line", "strokeWidth": 2, "point": dots},
        "encoding": {
            "x": time_axis(p["at"] for p in points),
            "y": value,
            "color": colour,
            "detail": {"field": "version", "type": "nominal"},
        },
    }
    return frame(points, [*layers, marks], height)


def legend_of(names: Sequence[str]) -> Spec:
    """A legend above the chart; of many names, in two columns, which fit a phone."""
    many = {"columns": 2} if len(names) > _IN_A_ROW else {}
    return {"orient": "top", "title": None, "symbolType": "stroke", **many}


def frame(points: Sequence[Mapping[str, Any]], layers: Sequence[Spec], height: int) -> Spec:
    """A chart of layers over the same points, in the look of all charts; without a width.

    Args:
        points: What is drawn.
        layers: Marks with their encodings.
        height: Of the plot area, in CSS pixels.
    """
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": list(points)},
        "height": height,
        "background": None,
        "padding": 2,
        "config": _CONFIG,
        "layer": list(layers),
    }


def time_axis(moments: Iterable[int], field: str = "at") -> Spec:
    """The encoding of moments, milliseconds since the epoch, from left to right in UTC."""
    axis = {"title": None, "format": _clock(list(moments)), "tickCount": 5, "labelOverlap": "greedy"}
    return {"field": field, "type": "temporal", "scale": {"type": "utc"}, "axis": axis}


def _clock(moments: Sequence[int]) -> str:
    """How moments are written on the axis: with the day where the chart spans more than one."""
    span_h = (max(moments) - min(moments)) / 3_600_000
    return "%H:%M:%S" if span_h < 0.1 else ("%H:%M" if span_h < 24 else ("%-d %b %H:%M" if span_h < 120 else "%-d %b"))


_FONT = "system-ui, sans-serif"
_CONFIG: Spec = {
    "font": _FONT,
    "aria": False,  # the figure is described as a whole
    "view": {"stroke": None},
    "axis": {"labelColor": "var(--muted)", "labelFontSize": 12, "gridColor": "var(--line)", "domain": False,
             "ticks": False, "labelPadding": 8},
    "axisX": {"grid": False},
    "legend": {"labelColor": "var(--ink)", "labelFontSize": 12.5, "symbolStrokeWidth": 3, "offset": 8,
               "columnPadding": 22},
    "text": {"fontSize": 12},
}  # fmt: skip
