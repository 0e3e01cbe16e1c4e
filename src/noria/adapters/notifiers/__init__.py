"""Who is told of alerts, and how: one file for each kind of receiver.

A notifier that can't deliver raises; the outbox notes it, shows it and tries again, so a receiver may see the same
notice twice and can tell by its id.
"""

from collections.abc import Sequence

from rich.console import Console

from noria.adapters.notifiers.alertmanager import REPEAT, AlertmanagerNotifier
from noria.adapters.notifiers.local import ConsoleNotifier, LogNotifier
from noria.adapters.notifiers.services import ServiceNotifier
from noria.adapters.notifiers.webhook import WebhookNotifier
from noria.domain.alert import Severity
from noria.ports import Clock, Notifier, Recipient
from noria.settings import Settings, Told, secret

__all__ = ["AlertmanagerNotifier", "ConsoleNotifier", "LogNotifier", "ServiceNotifier", "WebhookNotifier", "recipients"]


def recipients(settings: Settings, clock: Clock) -> Sequence[Recipient]:
    """Those whom the project file asks to tell, each with a name of its own.

    Raises:
        InvalidProject: An address is not http(s).
    """
    asked, project = settings.project.notify, settings.project.project
    found: list[Recipient] = []
    if asked.log:
        found.append(Recipient(notifier=LogNotifier()))
    if asked.console:
        found.append(Recipient(notifier=ConsoleNotifier(Console())))
    for number, webhook in enumerate(asked.webhooks, start=1):
        notifier = WebhookNotifier(webhook.url, number=number, secret=settings.webhook_secret)
        found.append(_recipient(notifier, webhook))
    found += [_recipient(ServiceNotifier(service.url_env, secret), service) for service in asked.services]
    for number, manager in enumerate(asked.alertmanagers, start=1):
        pushing = AlertmanagerNotifier(manager.url, number=number, project=project, now=clock.now)
        told = _recipient(pushing, manager)
        found.append(
            Recipient(notifier=pushing, severity=told.severity, endpoints=told.endpoints, repeat=REPEAT, always=True)
        )
    if asked.azure_monitor:
        from noria.adapters.notifiers.azure_monitor import AzureMonitorNotifier

        found.append(Recipient(notifier=AzureMonitorNotifier(settings)))
    return found


def _recipient(notifier: Notifier, told: Told) -> Recipient:
    severity = Severity(told.severity.value)
    return Recipient(notifier=notifier, severity=severity, endpoints=told.endpoints, repeat=told.repeat)
