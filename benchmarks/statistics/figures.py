"""The figures for people: what is promised, what was measured, what others do."""

from collections.abc import Mapping
from typing import Any

from benchmarks.statistics.kinds import KINDS, LOOKS, TOLD

PEERS = {"evidently": "Evidently", "nannyml": "NannyML", "daily_test": "a test a look"}


def verdict(found: Mapping[str, Any] | None) -> str:
    """`met` if unchanged streams alarm at most as often as promised, `missed` if not, empty without a figure."""
    if not found or found.get("alarm_rate_null") is None:
        return ""
    return "met" if found["alarm_rate_null"] <= found["alpha"] else "missed"


def table(figures: Mapping[str, Any]) -> str:
    """All figures, for people."""
    lines = []
    for kind in KINDS:
        found = figures.get(kind) or {}
        lines.append(f"{kind:12} {verdict(found):7} unchanged: {_rate(found)}")
        for peer, name in PEERS.items():
            other = found.get("peers", {}).get(peer)
            if other:
                lines.append(f"{'':21}{name}: {_rate(other)}")
        for change, rows in found.get("median_delay", {}).items():
            lines.append(f"{'':21}{change}: {_rows(rows)} rows (one look at the right moment: {_fixed(found, change)})")
        if "equal_passes" in found:
            shares = ", ".join(f"{share:.0%} with {rows} rows" for rows, share in found["equal_passes"].items())
            lines.append(f"{'':21}an equally good candidate passes in {shares}")
        if "after_calm" in found:
            told = found["after_calm"]
            says = f"{told['change']} after {told['calm_rows']:,} calm rows: {_rows(told['median_delay'])} rows"
            lines.append(f"{'':21}{says}")
        if "detector" in found:
            told = found["detector"]
            lines.append(
                f"{'':21}detector: {told['mean_run']:,.0f} scores to a false alarm, {told['promised_run']:,} promised"
            )
    lines += [f"{name} is missing: {reason}" for name, reason in figures.get("reasons", {}).items()]
    return "\n".join(lines)


def markdown(figures: Mapping[str, Any]) -> str:
    """The same as the tables of docs/explanation/statistics.md."""
    lines = [
        "| unchanged streams that alarmed | Noria | Evidently | NannyML | a test a look |",
        "|---|---|---|---|---|",
    ]
    for kind in KINDS:
        found = figures.get(kind) or {}
        others = [_rate(found.get("peers", {}).get(peer)) for peer in PEERS]
        lines.append(f"| {kind} | {' | '.join([_rate(found), *others])} |")
    lines += ["", "| change | reference | found after (median) | one look | streams found |", "|---|---|---|---|---|"]
    for kind in KINDS:
        found = figures.get(kind) or {}
        parts = found.get("by_reference") or {"": found}
        for change in found.get("median_delay", {}):
            for reference, part in parts.items():
                size = f"{int(reference):,}" if reference else "—"
                delay, bound = _rows(part["median_delay"][change]), _fixed(part, change)
                lines.append(f"| {kind}: {change} | {size} | {delay} | {bound} | {part['found'][change]:.0%} |")
    return "\n".join(lines)


def _rate(found: Mapping[str, Any] | None) -> str:
    if not found or found.get("alarm_rate_null") is None:
        return "—"
    low, high = found["interval"]
    looks = f" after {found['looks']:,} looks" if found.get("looks") not in (None, LOOKS) else ""
    return f"{found['alarm_rate_null']:.1%} of {found['streams']:,}{looks} ({low:.1%} to {high:.1%})"


def _rows(rows: float | None) -> str:
    return "—" if rows is None else f"{rows:,.0f}"


def _fixed(found: Mapping[str, Any], change: str) -> str:
    return _rows(found["fixed_n"].get(change))


def settings() -> dict[str, Any]:
    """What the figures were measured with."""
    from benchmarks.statistics import kinds, others

    return {
        "looks": kinds.LOOKS,
        "rows_a_look": kinds.ROWS,
        "references": list(kinds.REFERENCES),
        "delays_for_reference": TOLD,
        "delay_rows_a_look": kinds.DELAY_ROWS,
        "peers_reference": others.REFERENCE,
        "peers_installed_as": {name: " ".join(packages) for name, packages in others.PACKAGES.items()},
    }
