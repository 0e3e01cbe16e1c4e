"""The loop as it turns, in the terminal."""

import time
from collections import deque
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from demo.traffic import Traffic, accuracy

WIDTH = 28


def bar(share: float, colour: str = "cyan", width: int = WIDTH) -> Text:
    """A bar that is full at 1."""
    filled = round(max(0.0, min(1.0, share)) * width)
    return Text("█" * filled, colour) + Text("░" * (width - filled), "grey37")


class View:
    """Collects what happened and draws it."""

    def __init__(self, traffic: Traffic, console: Console) -> None:
        self.traffic = traffic
        self.console = console
        self.started = time.monotonic()
        self.phase = "starting"
        self.status: dict[str, Any] = {}
        self.news: deque[Text] = deque(maxlen=9)
        self.told: list[str] = []

    def tell(self, what: str, style: str = "white") -> None:
        """Add a line to the story; where nobody watches a terminal, print it."""
        line = f"{time.monotonic() - self.started:6.1f} s  {what}"
        self.told.append(line)
        self.news.append(Text(line, style))
        if not self.console.is_terminal:
            self.console.print(Text(line), soft_wrap=True)

    def __rich__(self) -> RenderableType:
        return Group(
            Panel(self._traffic(), title=f"[bold]{self.phase}", title_align="left", border_style="cyan"),
            Panel(self._evidence(), title="evidence against the baseline", title_align="left"),
            Panel(Group(*self.news), title="what happened", title_align="left", border_style="green"),
        )

    def _traffic(self) -> Table:
        answers = self.traffic.answers[-800:]
        table = Table.grid(padding=(0, 2))
        table.add_row("new world", bar(self.traffic.share_new, "magenta"), f"{self.traffic.share_new:4.0%} of messages")
        for name, rows in (
            ("accuracy, old", [a for a in answers if not a.message.is_new]),
            ("accuracy, new", [a for a in answers if a.message.is_new]),
        ):
            value = accuracy(rows)
            shown = "no messages" if value is None else f"{value:.0%} of the last {len(rows)}"
            table.add_row(name, bar(value or 0.0, "green" if (value or 0) > 0.55 else "red"), shown)
        table.add_row(
            "traffic",
            f"{self.traffic.sent:,} messages, {self.traffic.labels:,} labels",
            f"{sum(self.traffic.failures.values())} failed",
        )
        return table

    def _evidence(self) -> Table:
        table = Table.grid(padding=(0, 2))
        endpoint = next((e for e in self.status.get("endpoints", []) if e["name"] == "triage"), {})
        for monitor in endpoint.get("monitors", []):
            share = monitor["log_e"] / monitor["log_threshold"]
            note = "[bold red]alarm" if monitor["alarms"] else f"{monitor['rows']:,} rows"
            table.add_row(monitor["monitor"], bar(share, "red" if monitor["alarms"] else "cyan"), note)
        rollout = next((r for r in self.status.get("rollouts", []) if r["endpoint"] == "triage"), None)
        if rollout is not None:
            table.add_row(f"version {rollout['version']}", bar(rollout["weight"] / 100, "yellow"), rollout["stage"])
        return table
