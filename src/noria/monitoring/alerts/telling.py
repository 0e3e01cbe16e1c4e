"""Telling people, turn by turn; a notifier that is deaf for long is an alert to the others."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from noria.domain.alert import Alert
from noria.monitoring.alerts.lifecycle import Alerts
from noria.monitoring.alerts.outbox import Outbox
from noria.ports import NOTIFIER

DEAF: Final = timedelta(minutes=10)
"""A notifier that delivers nothing for so long is an alert of its own."""


@dataclass(frozen=True, slots=True)
class Telling:
    """Hands on what is due.

    Attributes:
        outbox: What is owed to whom.
        alerts: Where a deaf notifier is an alert.
    """

    outbox: Outbox
    alerts: Alerts

    def turn(self, submit: Callable[[Callable[[], None]], object]) -> list[str]:
        """Tell what is due, each recipient in a task of his own; what fails at the moment, in words."""
        self.outbox.turn(submit)
        now, failing = self.outbox.clock.now(), []
        told = self.outbox.status()
        for name, status in told.items():
            if status.failing_since is None:
                self.alerts.resolve_system("", f"{NOTIFIER}{name}", f"{name} delivers again.")
                continue
            failing.append(f"{name}: {status.problem}")
            if now - status.failing_since >= DEAF:
                summary = f"{name} has told nobody of any alert since {status.failing_since:%Y-%m-%d %H:%M} UTC."
                self.alerts.raise_system("", f"{NOTIFIER}{name}", summary)
        self._forget(set(told))
        return failing

    def _forget(self, known: set[str]) -> None:
        """Resolve what was wrong with notifiers that the project names no more."""
        for alert in self.outbox.state.find(Alert, endpoint=""):
            name = alert.monitor.removeprefix(NOTIFIER)
            if alert.fires and name != alert.monitor and name not in known:
                self.alerts.resolve_system("", alert.monitor, f"the project names no notifier {name} any more.")
