"""A report as one HTML file that needs nothing else: styles and pictures are in it, no script is, nothing is fetched.

What callers wrote is in it only as text. It follows the reader's light or dark, and fits a phone and a printer.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from noria.monitoring import charts
from noria.monitoring.reports import figures
from noria.monitoring.reports.summary import account, tiles
from noria.monitoring.words import number, odds, percent, points

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""The file's Content-Security-Policy: were there a hole in it, nothing could come through."""
_SPARK = (120, 28)
"""Width and height of a small line."""
_EFFECTS = {
    "population_stability_index": "PSI",
    "js_distance": "Jensen–Shannon",
    "ks_statistic": "KS",
    "wasserstein_distance": "Wasserstein",
    "tv_distance": "total variation",
    "l_infinity_distance": "L∞",
    "chi_squared": "chi-squared",
}
_COLUMNS = {"execution_duration_ms": "duration", "ttft_ms": "time to first token"}


def page(report: Mapping[str, Any]) -> str:
    """The report as HTML.

    Args:
        report: What `Reporter.report` gave.
    """
    style = Markup(files("noria.monitoring.reports").joinpath("report.css").read_text(encoding="utf-8"))  # noqa: S704 - ours
    template = _environment().get_template("report.html.j2")
    return template.render(r=report, style=style, policy=POLICY).lstrip()


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("noria.monitoring.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": number, "odds": odds, "percent": percent, "points": points, "clock": clock}
    made.filters |= {"spark": spark, "words": words, "effects": effects}
    made.globals |= {"draw": charts.draw, "figures": figures, "tiles": tiles, "account": account}
    return made


def clock(moment: str | None) -> str:
    """A moment in UTC, to the minute."""
    return "–" if moment is None else f"{datetime.fromisoformat(moment):%-d %b %Y, %H:%M}"


def words(name: str) -> str:
    """A column's name in words."""
    return _COLUMNS.get(name, name.removeprefix("quality.").replace("_", " "))


def effects(found: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Effect sizes by the names that people know, tests by their statistic."""
    flat = dict(found)
    for test, name in (("ks_test", "ks_statistic"), ("chi_squared_test", "chi_squared")):
        if isinstance(flat.get(test), Mapping):
            flat[name] = flat[test].get("statistic")
    return [(said, flat[name]) for name, said in _EFFECTS.items() if flat.get(name) is not None]


def spark(values: Sequence[float | None]) -> Markup:
    """A small line without axes; nothing for a single value."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Markup("")
    (width, height), low, high = _SPARK, min(known), max(known)
    scale = (height - 6) / (high - low) if high > low else 0.0
    across = (width - 6) / (len(known) - 1)
    places = [(3 + i * across, height - 3 - (value - low) * scale) for i, value in enumerate(known)]
    path = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in _thinned(places))
    x, y = places[-1]
    return Markup(
        '<svg class="spark" viewBox="0 0 {} {}" width="{}" height="{}" aria-hidden="true">'
        '<path d="{}"/><circle cx="{:.1f}" cy="{:.1f}" r="2.4"/></svg>'
    ).format(width, height, width, height, path, x, y)


def _thinned(places: Sequence[tuple[float, float]], most: int = 120) -> Iterable[tuple[float, float]]:
    """No more points than can be told apart; the last one is kept."""
    step = max(1, len(places) // most)
    return [*places[:-1:step], places[-1]]
