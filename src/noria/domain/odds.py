"""How evidence is written for people: the same in an alert's sentence, on a page and at the command line."""

import math

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def odds(log_e: float | None) -> str:
    """Evidence E given as its natural logarithm: how many to one it speaks for a change."""
    if log_e is None:
        return "–"
    power = log_e / math.log(10)
    if power >= 6:
        digits, exponent = 10 ** (power % 1), int(power // 1)
        return f"{digits:.1f} × 10{str(exponent).translate(_SUPERSCRIPT)}"
    value = math.exp(log_e)
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2g}" if value >= 0.01 else "< 0.01"
