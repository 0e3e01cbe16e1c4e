"""Telling services of alerts through apprise: Slack, Teams, e-mail, PagerDuty and a hundred more.

Each notice is told by a process of its own (`apprise_process.py`): the worker stays as small as it is, a service that
hangs can be ended, and the process connects to no address that no service can have.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Final

from noria.adapters.notifiers.words import text, title
from noria.domain.alert import Severity
from noria.domain.delivery import Notice
from noria.domain.errors import MissingExtra, NotDelivered

TIMEOUT_S: Final = 30.0
"""Longest time that a service may take in all."""
MODULE: Final = "noria.adapters.notifiers.apprise_process"
_PICTURES: Final = 3
_TYPES: Final = {Severity.INFO: "info", Severity.WARNING: "warning", Severity.CRITICAL: "failure"}
_RETRY: Final = "Noria tries again; see that {name} holds the service's apprise URL and that the service is up."


class ServiceNotifier:
    """Tells one service.

    Args:
        variable: Environment variable that holds its apprise URL; the URL itself is never shown.
        secret: Environment variable → what it holds, empty for nothing.
        timeout_s: Longest time in all, seconds.
    """

    def __init__(self, variable: str, secret: Callable[[str], str], timeout_s: float = TIMEOUT_S) -> None:
        self.name = f"apprise {variable}"
        self._variable, self._secret, self._timeout_s = variable, secret, timeout_s

    def notify(self, notice: Notice) -> None:
        """See the port.

        Raises:
            MissingExtra: apprise isn't installed.
            NotDelivered: No URL, or the service did not take it.
        """
        remedy = _RETRY.format(name=self._variable)
        url = self._secret(self._variable)
        if not url:
            raise NotDelivered(f"The environment variable {self._variable} isn't set, so nobody can be told.", remedy)
        if find_spec("apprise") is None:
            raise MissingExtra("notify.services needs apprise, which isn't installed.", "pip install 'noria[notify]'.")
        worst = max((alert.severity for alert in notice.alerts), key=lambda s: s.rank)
        told = {
            "url": url,
            "title": title(notice),
            "body": f"{text(notice)}\n\nDelivery {notice.id}",
            "type": _TYPES[worst] if notice.alerts[0].fires else "success",
            "pictures": [spec for _, spec in list(notice.pictures.items())[:_PICTURES]],
        }
        if problem := self._run(told):
            raise NotDelivered(f"The service of {self._variable} was not told: {problem}", remedy)

    def _run(self, told: dict[str, Any]) -> str:
        """Tell it in a process of its own; what went wrong, empty if nothing did."""
        try:
            done = subprocess.run(
                [sys.executable, "-m", MODULE],
                input=json.dumps(told).encode(),
                capture_output=True,
                timeout=self._timeout_s,
                check=False,
            )
            problem = json.loads(done.stdout)["problem"]
        except subprocess.TimeoutExpired:
            return f"it took longer than {self._timeout_s:g} s."
        except (ValueError, KeyError):
            return f"the process that tells it ended with {done.returncode}."
        return str(problem)
