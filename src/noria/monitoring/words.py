"""How numbers are written for people: on the console's pages, in reports and at the command line."""

from noria.domain.odds import odds

__all__ = ["number", "odds", "percent", "points"]


def number(value: float | int | None) -> str:
    """A number for a table: whole ones with separators, others with about three digits that matter."""
    if value is None:
        return "–"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:.2f}" if 1 <= abs(value) < 10 else (f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}")


def percent(share: float | None, digits: int = 1) -> str:
    """A share between 0 and 1, in per cent."""
    return "–" if share is None else f"{share * 100:.{digits}f} %"


def points(change: float | None) -> str:
    """A difference of two shares, in percentage points with its sign."""
    return "–" if change is None else f"{change * 100:+.1f}".replace("-", "−")
