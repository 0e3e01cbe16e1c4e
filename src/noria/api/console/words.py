"""How numbers, times and names are written on a page: the templates' filters."""

from collections.abc import Callable, Mapping
from datetime import datetime
from urllib.parse import quote

from markupsafe import Markup

from noria.monitoring.words import number, odds, percent, points

_ORIGINS = ("baseline", "production", "all")
"""Where held-out rows come from, as the quality gate's numbers name it."""
_LABELS = {
    "baseline": "the project's own",
    "production": "labelled production",
    "all": "all held-out",
    "population_stability_index": "PSI",
    "js_distance": "JS distance",
    "tv_distance": "TV distance",
    "l_infinity_distance": "L∞ distance",
    "wasserstein_distance": "Wasserstein distance",
    "log_e": "evidence (ln E)",
    "text_drift": "text",
    "categorical_drift": "classes",
    "numeric_drift": "number",
}
Numbers = Mapping[str, float | None]
__all__ = ["FILTERS", "by_origin", "grouped", "label", "link", "number", "odds", "percent", "points", "seconds", "when"]


def seconds(value: float | None) -> str:
    """A duration given in seconds."""
    if value is None:
        return "–"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def when(moment: str | None) -> Markup:
    """A moment (ISO 8601, UTC) as an element that the page's script turns into an age; an en dash if there is none."""
    if not moment:
        return Markup("–")
    at = datetime.fromisoformat(moment)
    return Markup('<time datetime="{}">{:%Y-%m-%d %H:%M:%S}</time>').format(moment, at)


def label(name: str) -> str:
    """A field's name in words."""
    return _LABELS.get(name, name.replace("_", " "))


def grouped(numbers: Numbers) -> tuple[dict[str, dict[str, float | None]], dict[str, float | None]]:
    """Numbers named `measure:group` as group → measure → number, and the numbers that belong to no group."""
    return _split(numbers, lambda name: tuple(reversed(name.split(":", 1))) if ":" in name else None)


def by_origin(numbers: Numbers) -> tuple[dict[str, dict[str, float | None]], dict[str, float | None]]:
    """Numbers named `origin_measure` as origin → measure → number, and the numbers of no origin."""
    return _split(
        numbers, lambda name: next(((o, name[len(o) + 1 :]) for o in _ORIGINS if name.startswith(f"{o}_")), None)
    )


def _split(
    numbers: Numbers, part: Callable[[str], tuple[str, ...] | None]
) -> tuple[dict[str, dict[str, float | None]], dict[str, float | None]]:
    """Numbers whose names have two parts as first → second → number, and the others."""
    tables: dict[str, dict[str, float | None]] = {}
    rest: dict[str, float | None] = {}
    for name, value in numbers.items():
        found = part(name)
        if found is None:
            rest[name] = value
        else:
            tables.setdefault(found[0], {})[found[1]] = value
    return tables, rest


def link(kind: str, id: str) -> str:
    """Address of a page: `link("runs", "run-3")`."""
    return f"/{kind}/{quote(id, safe='/:')}"


FILTERS = {f.__name__: f for f in (number, percent, points, odds, seconds, when, label)}
"""What the templates use."""
