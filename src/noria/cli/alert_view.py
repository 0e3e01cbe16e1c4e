"""An alert for a terminal; what callers wrote is in it, so control characters are taken out."""

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from noria.cli.shared import printable, when
from noria.domain.alert import Alert, Silence
from noria.domain.delivery import Delivery


def view(alert: Alert, held: Silence | None, told: Sequence[Delivery], then: str) -> Iterator[RenderableType]:
    """An alert for a terminal."""
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(alert, held, then):
        if value:
            facts.add_row(Text(name, "dim"), Text(printable(value)))
    yield Text(printable(alert.summary), "bold")
    yield facts
    if alert.moved:
        table = _table("what moved", "before", "now", "for example")
        for cell in alert.moved:
            examples = "\n".join(printable(e) for e in cell.examples)
            table.add_row(
                Text(printable(cell.name)), f"{cell.share_before:.1%}", f"{cell.share_now:.1%}", Text(examples)
            )
        yield table
    if alert.slices:
        table = _table("slice", "measure", "value", "records")
        for part in alert.slices:
            what = Text(printable(f"{part.key} = {part.value}"))
            table.add_row(what, part.measure, f"{part.now:.4g}", f"{part.rows:,}")
        yield table
    if alert.records:
        table = _table("record", "value", "text")
        for record in alert.records:
            value = "" if record.value is None else f"{record.value:.4g}"
            table.add_row(record.request_id, value, Text(printable(record.text)))
        yield table
    if told:
        table = _table("told", "of", "stands", "tries", "why not")
        for each in told:
            table.add_row(Text(each.notifier), each.state.value, _delivered(each), str(each.attempts), _why(each))
        yield table


def _facts(alert: Alert, held: Silence | None, then: str) -> Iterator[tuple[str, str]]:
    looks = alert.acknowledged
    yield "state", alert.state.value
    yield "severity", alert.severity.value
    yield "raised", when(alert.raised_at)
    yield "since", when(alert.since)
    yield "how sure", alert.how_sure
    yield "records", f"{alert.rows:,}" if alert.rows else ""
    yield "windows", "  ".join(f"{seen.value:.4g}" for seen in alert.trail[-12:])
    yield "looked after", f"by {looks.by} since {when(looks.at)} {looks.reason}" if looks else ""
    yield "silenced", f"until {when(held.until)} by {held.by}: {held.reason} ({held.id})" if held else ""
    yield "resolved", f"{when(alert.resolved_at)}: {alert.resolution}" if alert.resolved_at else ""
    yield "next", then


def _delivered(delivery: Delivery) -> str:
    if delivery.delivered_at is not None:
        return f"delivered {when(delivery.delivered_at)}"
    return "closed" if delivery.closed else f"due {when(delivery.due_at)}"


def _why(delivery: Delivery) -> Text:
    return Text(printable(delivery.closed or delivery.last_error))


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
