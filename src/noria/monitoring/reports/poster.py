"""A report as one picture: what a channel or a slide has room for. Black on white, drawn without a browser."""

import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from noria.monitoring.charts import Spec
from noria.monitoring.reports import figures
from noria.monitoring.reports.page import clock

WIDTH = 900
"""Of the plot area, pixels; the picture has twice as many for each."""
SCALE = 2.0
_INK, _MUTED, _ALARM = figures.LIGHT["--ink"], figures.LIGHT["--muted"], figures.LIGHT["--alarm"]
_LONGEST = 130
"""Characters of a line."""
MOST_LINES = 3
"""Lines of one text."""
_PICTURES: tuple[tuple[str, Callable[[Mapping[str, Any]], Spec | None]], ...] = (
    ("Evidence of a change, to 1; the dashed line alarms", figures.evidence),
    ("Quality of answers, with 95% intervals", figures.quality),
    ("Quality of answers", figures.judged),
    ("Requests", figures.traffic),
    ("Duration, milliseconds: median to 95th percentile", figures.latency),
    ("Shares of requests", figures.rates),
    ("Cost, US dollars", figures.cost),
)


def poster(report: Mapping[str, Any]) -> bytes:
    """The report's main pictures below one another, as PNG.

    Args:
        report: What `Reporter.report` gave.
    """
    import vl_convert

    drawn: bytes = vl_convert.vegalite_to_png(specification(report), scale=SCALE, allowed_base_urls=[])
    return drawn


def specification(report: Mapping[str, Any]) -> Spec:
    """The same as a Vega-Lite specification."""
    parts = [part for endpoint in report["endpoints"] for part in _endpoint(endpoint)]
    made = figures.alone({"vconcat": parts or [said("Nothing to show: no window has closed.")]})
    config: Spec = next((part.pop("config") for part in made["vconcat"] if "config" in part), {})
    for part in made["vconcat"]:
        for shared in ("config", "$schema", "background", "padding"):
            part.pop(shared, None)
    title = {
        "text": _cut(f"{report['project']}: {report['headline']}"),
        "subtitle": f"{clock(report['since'])} to {clock(report['until'])} UTC",
        "anchor": "start", "color": _INK, "fontSize": 17, "subtitleColor": _MUTED, "subtitleFontSize": 13, "offset": 18,
    }  # fmt: skip
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": title,
        "background": "white",
        "padding": 28,
        "spacing": 26,
        "config": {**config, "concat": {"columns": 1}},
        "vconcat": made["vconcat"],
        "resolve": {"scale": {"color": "independent", "x": "independent"}, "legend": {"color": "independent"}},
    }


def _endpoint(endpoint: Mapping[str, Any]) -> list[Spec]:
    firing = [a for a in endpoint["alerts"] if a["state"] == "firing"]
    parts = [said(endpoint["name"], size=19, bold=True)]
    parts += [said(alert["summary"], colour=_ALARM) for alert in firing[:3]]
    for words, picture in _PICTURES:
        spec = picture(endpoint)
        if spec is not None:
            title = {
                "text": words,
                "anchor": "start",
                "frame": "group",
                "color": _MUTED,
                "fontSize": 13,
                "fontWeight": 600,
                "offset": 8,
            }
            parts.append({**spec, "title": title, "width": WIDTH})
    return parts


def said(text: str, size: int = 14, colour: str = _INK, *, bold: bool = False) -> Spec:
    """A text, on as many lines as it takes and there is room for."""
    lines = _lines(text)
    mark = {
        "type": "text",
        "align": "left",
        "baseline": "middle",
        "fontSize": size,
        "color": colour,
        "text": lines,
        "lineHeight": round(size * 1.35),
    }
    return {
        "data": {"values": [{}]},
        "width": WIDTH,
        "height": round(size * 1.35) * (len(lines) - 1) + size,
        "view": {"stroke": None},
        "mark": {**mark, "fontWeight": "bold" if bold else "normal"},
        "encoding": {"x": {"value": 0}, "y": {"value": size / 2}},
    }


def _lines(text: str) -> list[str]:
    """A text as lines that fit the picture; what is too long even so is cut."""
    lines = textwrap.wrap(_printable(text), _LONGEST)
    return (
        [*lines[: MOST_LINES - 1], " ".join(lines[MOST_LINES - 1 :])[: _LONGEST - 1] + "…"]
        if (len(lines) > MOST_LINES)
        else lines or [""]
    )


def _cut(text: str) -> str:
    """A text on one line that fits the picture."""
    shown = _printable(text)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))
