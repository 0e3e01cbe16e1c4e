"""Pictures of what monitors and alerts saw, as Vega-Lite specifications: plain dictionaries, which anybody can draw.

The colours stand on white, so that a picture looks the same in a message, in a report and on a page. Nothing is fetched
to draw one, and what callers wrote is in it only as text.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from noria.domain.alert import Alert, Seen
from noria.domain.monitor import Moved

Spec = dict[str, Any]

BEFORE, NOW, LIMIT, INK, FAINT = "#9aa5b1", "#c2410c", "#b91c1c", "#1f2933", "#e4e7eb"
WIDTH: Final = 520
"""Of the plot area, pixels."""
_LONGEST = 48
_SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
_CONFIG: Spec = {
    "font": "system-ui, sans-serif",
    "background": "white",
    "padding": 12,
    "view": {"stroke": None},
    "axis": {"labelColor": INK, "gridColor": FAINT, "domain": False, "ticks": False, "labelPadding": 6, "title": None},
    "title": {"anchor": "start", "color": INK, "fontSize": 13, "offset": 10},
    "legend": {"orient": "top", "title": None, "labelColor": INK},
}


def of_alert(alert: Alert) -> Spec | None:
    """What an alert is about: the cells that moved, or a rule's windows against its threshold; None for neither."""
    if alert.moved:
        return moved(alert.moved, f"{alert.endpoint} · {alert.monitor}: what moved")
    if alert.trail and alert.limit is not None:
        return trail(alert.trail, alert.limit, f"{alert.metric} of {alert.endpoint}")
    return None


def moved(cells: Sequence[Moved], title: str) -> Spec:
    """Shares before and now, one pair of bars for each cell."""
    values = [
        {"cell": _cut(cell.name), "when": when, "share": round(share, 6)}
        for cell in cells
        for when, share in (("before", cell.share_before), ("now", cell.share_now))
    ]
    names = list(dict.fromkeys(v["cell"] for v in values))
    return _picture(
        values,
        title,
        height={"step": 15},
        mark={"type": "bar", "cornerRadiusEnd": 2},
        encoding={
            "y": {"field": "cell", "type": "nominal", "sort": names, "axis": {"labelLimit": 240}},
            "yOffset": {"field": "when", "sort": ["before", "now"]},
            "x": {"field": "share", "type": "quantitative", "axis": {"format": ".0%", "tickCount": 5}},
            "color": {
                "field": "when",
                "type": "nominal",
                "scale": {"domain": ["before", "now"], "range": [BEFORE, NOW]},
            },
        },
    )


def trail(seen: Iterable[Seen], limit: float, title: str) -> Spec:
    """A value over the windows, and the threshold."""
    values = [
        {"at": int(each.start.timestamp() * 1000), "value": each.value} for each in seen if math.isfinite(each.value)
    ]
    x: Spec = {
        "field": "at",
        "type": "temporal",
        "scale": {"type": "utc"},
        "axis": {"format": _clock(values), "tickCount": 5, "labelOverlap": "greedy", "grid": False},
    }
    y: Spec = {"field": "value", "type": "quantitative", "scale": {"zero": False, "nice": True}}
    rule = {
        "data": {"values": [{}]},
        "mark": {"type": "rule", "color": LIMIT, "strokeDash": [5, 4], "size": 1.5},
        "encoding": {"y": {"datum": limit, "type": "quantitative"}},
    }
    line = {
        "mark": {"type": "line", "color": NOW, "strokeWidth": 2, "point": {"color": NOW, "size": 20}},
        "encoding": {"x": x, "y": y},
    }
    return _picture(values, title, height=160, layer=[rule, line])


def _picture(values: Sequence[Mapping[str, Any]], title: str, **more: Any) -> Spec:
    return {
        "$schema": _SCHEMA,
        "title": _cut(title, 80),
        "data": {"values": list(values)},
        "width": WIDTH,
        "config": _CONFIG,
        **more,
    }


def _clock(values: Sequence[Mapping[str, Any]]) -> str:
    """How moments are written on the axis: with seconds, or with the day, where the picture needs them."""
    times = [value["at"] for value in values]
    span_s = (max(times) - min(times)) / 1000 if times else 0.0
    return "%H:%M:%S" if span_s < 600 else "%H:%M" if span_s < 86_400 else "%-d %b %H:%M"


def _cut(text: str, longest: int = _LONGEST) -> str:
    shown = "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def svg(spec: Spec) -> str:
    """The picture as SVG. Drawing takes 100 MB and loads `vl_convert`, which is imported at the first picture."""
    import vl_convert

    drawn: str = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    return drawn


def png(spec: Spec, scale: float = 2.0) -> bytes:
    """The picture as PNG, so many pixels for each of the specification's."""
    import vl_convert

    drawn: bytes = vl_convert.vegalite_to_png(spec, scale=scale, allowed_base_urls=[])
    return drawn
