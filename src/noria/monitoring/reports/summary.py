"""What stands first in a report: how things are in a sentence, and the numbers that everybody asks for."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from noria.monitoring.words import number, odds, percent

Said = Mapping[str, Any]


def headline(endpoints: Sequence[Said]) -> str:
    """How the endpoints are, in a sentence or two."""
    silent = [e["name"] for e in endpoints if not e["windows"]]
    alarming = [f"{e['name']}: {_first(e)}" for e in endpoints if mood(e) == "alarm"]
    if len(silent) == len(endpoints):
        return "No window has closed in this time, so there is nothing to say yet."
    if alarming:
        return " ".join(f"{said.rstrip('.')}." for said in alarming)
    closest = max((m for e in endpoints for m in e["monitors"]), key=_nearness, default=None)
    if closest is None:
        return "Nothing alarms."
    return (
        f"Nothing alarms. The most that speaks for a change is {odds(closest['log_e'])} to 1 ({closest['endpoint']}, "
        f"{closest['monitor']}); an alarm takes {odds(closest['log_threshold'])} to 1."
    )


def mood(endpoint: Said) -> str:
    """How an endpoint is, in a word: `alarm`, `calm`, or `idle` where no window has closed."""
    if endpoint["firing"] or any(monitor["alarms"] for monitor in endpoint["monitors"]):
        return "alarm"
    return "calm" if endpoint["windows"] else "idle"


def tiles(endpoint: Said) -> list[dict[str, Any]]:
    """The numbers that everybody asks for, of the whole span; what nobody knows is left out."""
    totals = endpoint["totals"]
    found = [_tile("requests", number(totals["requests"]), f"in {_windows(endpoint)}")]
    found += _rate(totals, "error", "failed", hot_from=0.05)
    found += _duration(endpoint, "execution_duration_ms", "duration, median")
    found += _duration(endpoint, "ttft_ms", "to the first token, median")
    if (cost := totals.get("cost_usd")) is not None and cost["sum"]:
        each = cost["sum"] / cost["count"]
        found.append(_tile("cost", _money(cost["sum"]), f"{_money(each)} a request"))
    found += _rate(totals, "refusal", "declined") + _rate(totals, "guardrail_hit", "stopped by a guardrail")
    found += _rate(totals, "cache_hit", "from the cache") + _quality(endpoint)
    if endpoint["monitors"]:
        most = max(endpoint["monitors"], key=_nearness)
        found.append(_tile("most evidence", odds(most["log_e"]), f"to 1, {most['monitor']}", hot=most["alarms"]))
    return found


def account(endpoint: Said) -> str:
    """Whether all is counted, and with which monitors."""
    found, drawn = endpoint["completeness"], endpoint["windows_shown"]
    said = f"{found['counted']:,} of {found['recorded']:,} requests of this time are counted in closed windows"
    if found["waiting"]:
        said += f"; {found['waiting']:,} are in windows that are not closed yet, or were not counted"
    said += "."
    if drawn < endpoint["windows"]:
        said += f" Pictures show the newest {drawn} of {endpoint['windows']:,} windows."
    if endpoint["versions"]:
        said += f" Monitors' version: {', '.join(map(str, endpoint['versions']))}."
    return said


def _first(endpoint: Said) -> str:
    """What the newest alert that fires says; of an alarm that no alert was made of yet, what the monitor says."""
    firing = [a for a in endpoint["alerts"] if a["state"] == "firing"]
    if firing:
        return str(max(firing, key=lambda a: a["raised_at"])["summary"])
    alarm = max(endpoint["monitors"], key=_nearness)
    return f"{alarm['monitor']} alarms, {odds(alarm['log_e'])} to 1 speak for a change"


def _nearness(monitor: Said) -> float:
    return float((monitor["log_e"] or 0.0) / (monitor["log_threshold"] or 1.0))


def _windows(endpoint: Said) -> str:
    length = f" of {endpoint['window']}" if endpoint["window"] else ""
    return f"{endpoint['windows']:,} {'window' if endpoint['windows'] == 1 else 'windows'}{length}"


def _rate(totals: Said, column: str, name: str, hot_from: float = 2.0) -> list[dict[str, Any]]:
    """A share of the requests; one that is zero is said only of failures."""
    found = totals.get(column)
    if found is None or (not found["avg"] and column != "error"):
        return []
    return [_tile(name, percent(found["avg"]), f"{found['sum']:,.0f} requests", hot=found["avg"] >= hot_from)]


def _duration(endpoint: Said, column: str, name: str) -> list[dict[str, Any]]:
    spread = endpoint["spread"].get(column)
    if spread is None:
        return []
    return [_tile(name, _ms(spread["p50"]), f"95% within {_ms(spread['p95'])}, 99% within {_ms(spread['p99'])}")]


def _quality(endpoint: Said) -> list[dict[str, Any]]:
    for measure in ("quality.accuracy", "quality.exact_match", "quality.score"):
        rows = endpoint["quality"].get(measure)
        if rows:
            judged = sum(row["count"] for row in rows)
            mean = sum(row["avg"] * row["count"] for row in rows) / max(judged, 1)
            return [_tile("right, as far as known", percent(mean), f"{judged:,} judged")]
    return []


def _tile(name: str, value: str, aside: str = "", *, hot: bool = False) -> dict[str, Any]:
    return {"name": name, "value": value, "aside": aside, "hot": hot}


def _money(value: float) -> str:
    return f"${value:,.2f}" if value >= 1 else f"${value:.2g}"


def _ms(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{number(value)} ms" if value < 1000 else f"{value / 1000:.1f} s"


def firing(alerts: Iterable[Said]) -> int:
    """How many alerts fire."""
    return sum(alert["state"] == "firing" for alert in alerts)
