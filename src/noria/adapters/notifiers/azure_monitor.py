"""Sending alerts to Azure Monitor as custom events of Application Insights, through Microsoft's own exporter.

There they are rows of `customEvents` named `noria.alert`, on which an alert rule of Azure's can be made.
"""

import logging
from typing import TYPE_CHECKING, Any, Final

from noria.adapters.notifiers.words import printable, sentence
from noria.domain.alert import Alert
from noria.domain.delivery import Notice
from noria.domain.errors import InvalidProject, MissingExtra, NotDelivered
from noria.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadableLogRecord

EVENT: Final = "noria.alert"
VARIABLE: Final = "APPLICATIONINSIGHTS_CONNECTION_STRING"
_NAME: Final = "microsoft.custom_event.name"
"""The attribute by which the exporter knows an event."""


class AzureMonitorNotifier:
    """Sends each alert as an event.

    Args:
        settings: Says where to, and whose the alerts are.
    """

    name = "azure_monitor"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._exporter: Any = None

    def notify(self, notice: Notice) -> None:
        """See the port.

        Raises:
            MissingExtra: The exporter isn't installed.
            InvalidProject: There is no connection string, or none that can be read.
            NotDelivered: The ingestion endpoint did not take it.
        """
        from opentelemetry.sdk._logs.export import LogRecordExportResult

        from noria.adapters.telemetry.opentelemetry import LastWords

        if self._exporter is None:
            self._exporter = _exporter(self._settings.azure_monitor)
        said = LastWords("azure.monitor.opentelemetry.exporter.export.logs")
        try:
            done = self._exporter.export([self._event(alert, notice) for alert in notice.alerts])
        finally:
            said.close()
        if done is not LogRecordExportResult.SUCCESS:
            why = said.text or "it was not taken"
            raise NotDelivered(f"Azure Monitor was not told: {why}.", f"Noria tries again; see {VARIABLE}.")

    def _event(self, alert: Alert, notice: Notice) -> "ReadableLogRecord":
        from opentelemetry._logs import LogRecord, SeverityNumber
        from opentelemetry.sdk._logs import ReadableLogRecord

        from noria.adapters.telemetry.opentelemetry import SCOPE, resource

        grave = {"info": SeverityNumber.INFO, "warning": SeverityNumber.WARN, "critical": SeverityNumber.FATAL}
        at = int(alert.changed_at.timestamp() * 1_000_000_000)
        facts = {
            _NAME: EVENT,
            "noria.alert.id": alert.id,
            "noria.alert.state": alert.state.value,
            "noria.alert.severity": alert.severity.value,
            "noria.alert.since": alert.since.isoformat(),
            "noria.alert.how_sure": alert.how_sure,
            "noria.alert.next": printable(notice.next.get(alert.id, "")),
            "noria.endpoint": alert.endpoint,
            "noria.monitor": alert.monitor,
            "noria.slice": alert.slice,
            "noria.delivery": notice.id,
            "message": printable(sentence(alert)),
        }
        record = LogRecord(
            timestamp=at,
            observed_timestamp=at,
            severity_number=grave[alert.severity.value],
            body=printable(sentence(alert)),
            attributes={name: value for name, value in facts.items() if value},
        )
        return ReadableLogRecord(record, resource(self._settings), SCOPE)


def _exporter(connection_string: str) -> Any:
    if not connection_string:
        raise InvalidProject(
            f"notify.azure_monitor is on, but {VARIABLE} isn't set.", "Copy it from the resource's overview page."
        )
    from noria.adapters.telemetry.opentelemetry import keep_quiet

    keep_quiet()
    try:
        from azure.monitor.opentelemetry.exporter import AzureMonitorLogExporter
    except ImportError:
        raise MissingExtra(
            "notify.azure_monitor needs Azure Monitor's exporter, which isn't installed.", "pip install 'noria[azure]'."
        ) from None
    logging.getLogger("azure").setLevel(logging.WARNING)
    try:
        return AzureMonitorLogExporter(connection_string=connection_string, disable_offline_storage=True, retry_total=1)
    except ValueError as error:
        raise InvalidProject(
            f"{VARIABLE} can't be read: {error}.", "Copy it from the resource's overview page."
        ) from None
