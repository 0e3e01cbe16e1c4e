"""A comparison as a page of its own: one file, no script, a picture of the intervals in it."""

from html import escape

from noria.release.offline import Asked, Comparison

_WIDTH, _LEFT, _ROW = 640, 10, 34
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#123}"
    "table{border-collapse:collapse;width:100%}th,td{padding:.4rem .6rem;text-align:left;border-bottom:1px solid #cdd}"
    "svg{width:100%;height:auto}"
)

COLUMNS = ("version", "right", "difference from the first", "same words", "median", "95th percentile", "cost")
"""What is told of each version."""


def page(found: Comparison) -> str:
    """The HTML of a comparison."""
    title = escape(f"{found.endpoint}: {len(found.versions)} versions on {found.rows} rows")
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in cells(row)) for row in found.versions)
    rows = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{escape(found.sentence)}</p>{picture(found)}"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"<p>Rows from {escape(found.data)}. All intervals hold together with {1 - found.alpha:.0%} confidence.</p>"
        "</html>\n"
    )


def cells(row: Asked) -> tuple[str, ...]:
    """One version's cells, under `COLUMNS`."""
    value, low, high = row.accuracy
    against = "" if row.against is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(*row.against)
    cost = "unknown" if row.usd_per_thousand is None else f"${row.usd_per_thousand:.4g} a thousand"
    return (
        row.ref,
        f"{value:.3f} ({low:.3f} to {high:.3f})",
        against,
        f"{row.overlap:.3f}",
        f"{row.p50_ms:.0f} ms",
        f"{row.p95_ms:.0f} ms",
        cost,
    )


def picture(found: Comparison) -> str:
    """Each version's share of right answers with its interval, as SVG."""
    height = _ROW * len(found.versions) + 30
    parts = []
    for number, row in enumerate(found.versions):
        value, low, high = (_LEFT + (_WIDTH - 2 * _LEFT) * share for share in row.accuracy)
        y = _ROW * number + 26
        parts.append(
            f'<text x="{_LEFT}" y="{y - 8}" font-size="12">{escape(row.ref)}</text>'
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="#0b7a75" stroke-width="3"/>'
            f'<circle cx="{value:.1f}" cy="{y}" r="5" fill="#0b7a75"/>'
        )
    ticks = "".join(
        f'<text x="{_LEFT + (_WIDTH - 2 * _LEFT) * share / 4:.0f}" y="{height - 4}" font-size="11" '
        f'text-anchor="middle">{share / 4:g}</text>'
        for share in range(5)
    )
    body = "".join(parts) + ticks
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Share of right answers">{body}</svg>'
