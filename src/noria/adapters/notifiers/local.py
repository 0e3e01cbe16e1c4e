"""Telling people on this machine: in the log, as a table on the terminal."""

import logging

from rich.console import Console
from rich.table import Table
from rich.text import Text

from noria.adapters.notifiers.words import printable, sentence
from noria.domain.alert import Alert
from noria.domain.delivery import Notice

log = logging.getLogger("noria.alerts")


class LogNotifier:
    """Writes one line for each alert."""

    name = "log"

    def notify(self, notice: Notice) -> None:
        """Write to the log `noria.alerts`: a warning for what fires, information for what is resolved."""
        for alert in notice.alerts:
            level = logging.WARNING if alert.fires else logging.INFO
            log.log(level, "%s %s: %s", alert.state.value, printable(alert.id), printable(sentence(alert)))


class ConsoleNotifier:
    """Prints a table of what moved, with examples, on the terminal."""

    name = "console"

    def __init__(self, console: Console) -> None:
        self._console = console

    def notify(self, notice: Notice) -> None:
        """Print the alerts."""
        for alert in notice.alerts:
            self._print(alert, notice.next.get(alert.id, ""))

    def _print(self, alert: Alert, then: str) -> None:
        head = Text.assemble(
            (" ALERT " if alert.fires else " RESOLVED ", "bold reverse red" if alert.fires else "bold reverse green"),
            (f" {printable(alert.endpoint)} · {printable(alert.monitor)} ", "bold"),
            (f"{alert.raised_at:%Y-%m-%d %H:%M:%S} UTC", "dim"),
        )
        self._console.print(head)
        self._console.print(Text(printable(sentence(alert))))
        if alert.fires and alert.how_sure:
            self._console.print(Text(printable(f"{alert.severity.value}, {alert.how_sure}"), "dim"))
        if alert.fires and alert.moved:
            self._console.print(_moved(alert))
        if alert.fires and then:
            self._console.print(Text(printable(f"Next: {then}"), "dim"))


def _moved(alert: Alert) -> Table:
    table = Table("what moved", "before", "now", "for example")
    for column in table.columns[1:3]:
        column.justify = "right"
    for cell in alert.moved:
        examples = Text("\n".join(printable(e) for e in cell.examples))
        table.add_row(Text(printable(cell.name)), f"{cell.share_before:.1%}", f"{cell.share_now:.1%}", examples)
    return table
