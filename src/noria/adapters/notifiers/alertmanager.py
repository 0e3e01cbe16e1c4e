"""Pushing alerts to Prometheus Alertmanager, which groups, silences and routes them as its own configuration says.

Alertmanager takes an alert for over once nobody has repeated it for a while, so it is told again while the alert fires,
and each time how long the news is good. Its API: https://prometheus.io/docs/alerting/latest/alerts_api/
"""

import re
import socket
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from noria.adapters.notifiers.posting import TIMEOUT_S, Post, Resolve
from noria.adapters.notifiers.words import printable
from noria.domain.alert import Alert
from noria.domain.delivery import Notice

REPEAT: Final = timedelta(minutes=1)
"""How often what fires is told again."""
GOOD_FOR: Final = 4 * REPEAT
"""How long Alertmanager believes it; Prometheus itself says four times its interval, too."""
PATH: Final = "/api/v2/alerts"


class AlertmanagerNotifier:
    """POSTs alerts to Alertmanager's API, version 2.

    Args:
        url: Address of Alertmanager, with its path prefix if it has one.
        number: Tells two of them apart.
        project: Label `project` of every alert.
        now: The clock's.
        timeout_s: Longest time in all, seconds.
        resolve: Name and port → addresses; tests give their own.

    Raises:
        InvalidProject: The address is not http(s).
    """

    def __init__(
        self,
        url: str,
        *,
        number: int = 1,
        project: str = "",
        now: Callable[[], datetime],
        timeout_s: float = TIMEOUT_S,
        resolve: Resolve = socket.getaddrinfo,
    ) -> None:
        key = f"notify.alertmanagers[{number - 1}].url"
        self._post = Post(url, key, f"alertmanager {number}", timeout_s, resolve)
        self._project, self._now = project, now
        self.name = self._post.label

    def notify(self, notice: Notice) -> None:
        """See the port."""
        alerts = [self._alert(alert, notice.next.get(alert.id, "")) for alert in notice.alerts]
        self._post.send(msgspec.json.encode(alerts), {"X-Noria-Delivery": notice.id}, PATH)

    def _alert(self, alert: Alert, then: str) -> dict[str, Any]:
        """As Alertmanager's OpenAPI description has it. Labels are the identity: they stay the same while it fires."""
        labels = {
            "alertname": "Noria" + "".join(part.capitalize() for part in re.findall(r"[A-Za-z0-9]+", alert.monitor)),
            "endpoint": alert.endpoint,
            "monitor": alert.monitor,
            "noria_alert": alert.id,
            "severity": alert.severity.value,
            "project": self._project,
            "slice": alert.slice,
        }
        notes = {
            "summary": alert.summary,
            "how_sure": alert.how_sure,
            "next": then,
            "resolution": alert.resolution,
        }
        end = self._now() + GOOD_FOR if alert.fires else alert.changed_at
        return {
            "labels": {name: value for name, value in labels.items() if value},
            "annotations": {name: printable(value) for name, value in notes.items() if value},
            "startsAt": alert.raised_at.isoformat(),
            "endsAt": end.isoformat(),
        }
