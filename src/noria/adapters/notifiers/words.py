"""What a notice says to a person. What callers wrote to a model is in it, so control characters are taken out first."""

from collections.abc import Iterator

from noria.domain.alert import Alert
from noria.domain.delivery import Notice

_JOINER = "\u2060"
"""WORD JOINER: nothing to be seen, and no longer the same word."""
_CELLS, _EXAMPLES, _SLICES, _LONGEST = 3, 2, 3, 200


def printable(text: str) -> str:
    """The text without characters that a terminal or a log would obey; runs of white space become one blank."""
    return "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))


def sentence(alert: Alert) -> str:
    """What is wrong, or why it no longer is."""
    return alert.summary if alert.fires else f"{alert.resolution} (was: {alert.summary})"


def title(notice: Notice) -> str:
    """One line for a notice as a whole."""
    first = notice.alerts[0]
    where = first.endpoint or "noria"
    what = first.monitor if len(notice.alerts) == 1 else f"{len(notice.alerts)} alerts"
    worst = max((alert.severity for alert in notice.alerts), key=lambda s: s.rank)
    grave = f" ({worst.value})" if first.fires else ""
    return printable(f"{notice.state.value}: {where} · {what}{grave}")


def text(notice: Notice) -> str:
    """All of a notice, as plain text."""
    return "\n\n".join("\n".join(_lines(alert, notice.next.get(alert.id, ""))) for alert in notice.alerts)


def _lines(alert: Alert, then: str) -> Iterator[str]:
    yield printable(sentence(alert))
    if not alert.fires:
        return
    sure = f", {alert.how_sure}" if alert.how_sure else ""
    yield printable(f"Since {alert.since:%Y-%m-%d %H:%M} UTC; {alert.severity.value}{sure}.")
    for cell in alert.moved[:_CELLS]:
        yield f"- {_cut(cell.name)}: {cell.share_before:.1%} before, {cell.share_now:.1%} now"
        yield from (f"    “{_cut(example)}”" for example in cell.examples[:_EXAMPLES])
    for part in alert.slices[:_SLICES]:
        yield f"- {_cut(part.key)} = {_cut(part.value)}: {part.measure} {part.now:.4g} ({part.rows:,} records)"
    for record in alert.records[:_EXAMPLES]:
        yield f"- record {printable(record.request_id)}: “{_cut(record.text)}”"
    if then:
        yield printable(f"Next: {then}")
    yield printable(f"noria alerts show {alert.id}")


def _cut(said: str) -> str:
    """What a caller wrote, so that it calls nobody: a chat takes `@everyone` and `<!channel>` for a call."""
    shown = printable(said)
    shown = shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"
    return shown.replace("@", f"@{_JOINER}").replace("<!", f"<{_JOINER}!")
