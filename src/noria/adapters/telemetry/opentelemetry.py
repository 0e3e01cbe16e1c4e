"""Records as OpenTelemetry spans, and the exporters that take them: OTLP over HTTP, Azure Monitor.

A span is written when its request is over, with the times of the record. The exporters are the SDK's own and read the
standard variables for headers, certificates, compression and timeouts themselves.
"""

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from noria.adapters.telemetry import genai
from noria.adapters.telemetry.genai import Places
from noria.adapters.telemetry.outlet import Record
from noria.domain.endpoint import Role
from noria.domain.errors import InvalidProject, MissingExtra
from noria.domain.inference import Intent
from noria.settings import Settings

SCOPE: Final = InstrumentationScope("noria", version("noria"))
FIRST_TOKEN: Final = "first_token"  # noqa: S105 (no password)
"""The event of a span at which the first streamed content went out."""
_UNSET, _ERROR = Status(StatusCode.UNSET), StatusCode.ERROR
_NO_REASON: Final = ("Failed to export spans batch due to", "Failed to export metrics batch due to", "Shutdown in")
"""How the exporter begins to say that it gave up, after it has said why."""
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


def resource(settings: Settings) -> Resource:
    """Who sends: the project, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES says otherwise."""
    ours = {
        "service.name": settings.project.project,
        "service.namespace": "noria",
        "service.version": version("noria"),
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": version("opentelemetry-sdk"),
    }
    return Resource(ours).merge(OTELResourceDetector().detect())


def span(places: Places, sender: Resource, record: Record, payloads: bool = False) -> ReadableSpan:
    """A record as a span."""
    intent, outcome = record
    start = intent.received_us * 1000
    found = genai.attributes(places, intent, outcome, payloads)
    events: Sequence[Event] = ()
    if outcome.ttft_us is not None:
        events = (Event(FIRST_TOKEN, timestamp=start + outcome.ttft_us * 1000),)
    status = Status(_ERROR, str(found.get(genai.ERROR_TYPE, ""))) if genai.is_fault(outcome) else _UNSET
    return ReadableSpan(
        name=f"{found[genai.OPERATION]} {intent.endpoint}",
        context=_context(intent, intent.span_id, remote=False),
        parent=_context(intent, intent.parent_span_id, remote=intent.role is not Role.SHADOW),
        resource=sender,
        attributes=found,
        events=events,
        kind=SpanKind.CLIENT if intent.role is Role.SHADOW else SpanKind.SERVER,
        status=status,
        start_time=start,
        end_time=start + outcome.duration_us * 1000,
        instrumentation_scope=SCOPE,
    )


def _context(intent: Intent, span_id: str, *, remote: bool) -> SpanContext | None:
    if not span_id:
        return None
    return SpanContext(int(intent.trace_id, 16), int(span_id, 16), remote, _SAMPLED)


class SpanOutlet:
    """Hands spans to an exporter.

    Args:
        exporter: The SDK's.
        make: Makes a span of a record.
        said: What the exporter said last, in its log.
    """

    def __init__(self, exporter: SpanExporter, make: Callable[[Record], ReadableSpan], said: "LastWords") -> None:
        self._exporter, self._make, self._said = exporter, make, said

    def send(self, records: list[Record]) -> str:
        """Export records; why that failed, empty if it did not. One without a trace has no span."""
        spans = [self._make(record) for record in records if record[0].trace_id and record[0].span_id]
        if not spans or self._exporter.export(spans) is SpanExportResult.SUCCESS:
            return ""
        return self._said.text or "it was not taken"


class WatchedExporter(MetricExporter):
    """An exporter of metrics whose last failure can be seen."""

    def __init__(self, inner: MetricExporter, said: "LastWords") -> None:
        super().__init__(inner._preferred_temporality, inner._preferred_aggregation)
        self.problem = ""
        self._inner, self._said = inner, said

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        """Export; see the SDK."""
        done = self._inner.export(metrics_data, timeout_millis=timeout_millis)
        self.problem = "" if done is MetricExportResult.SUCCESS else self._said.text or "they were not taken"
        return done

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """See the SDK."""
        return self._inner.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:  # noqa: ARG002 (the SDK's signature)
        """See the SDK."""
        self._inner.shutdown()


class LastWords(logging.Handler):
    """Keeps what an exporter logs from flooding the log: the last thing that it said goes into the heartbeat."""

    def __init__(self, logger: str) -> None:
        super().__init__(logging.WARNING)
        self.text = ""
        self._heard = logging.getLogger(logger)
        self._heard.addHandler(self)
        self._heard.propagate = False

    def close(self) -> None:
        """Listen no more."""
        self._heard.removeHandler(self)
        self._heard.propagate = True
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Remember what was said, unless it only says that patience ended."""
        said = " ".join(record.getMessage().split())
        if not said.startswith(_NO_REASON):
            # what changes each time would make each heartbeat's problem a new one
            self.text = re.sub(r", retrying in [\d.]+s\.?$|0x[0-9a-f]+", "", said)[:300]


@dataclass(frozen=True, slots=True)
class Way:
    """Whom spans and metrics go to."""

    name: str
    spans: SpanExporter
    metrics: "WatchedExporter"
    said: "LastWords"


def otlp(traces_url: str, metrics_url: str) -> Way:
    """An OTLP collector, over HTTP."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    said = LastWords("opentelemetry.exporter.otlp.proto.http")
    metrics = WatchedExporter(OTLPMetricExporter(endpoint=metrics_url), said)
    return Way("otlp", OTLPSpanExporter(endpoint=traces_url), metrics, said)


def keep_quiet() -> None:
    """Keep Azure Monitor's exporter from reporting to its makers, and from settings that they may change from afar."""
    for unasked in ("APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL", "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED"):
        os.environ.setdefault(unasked, "true")


def azure_monitor(connection_string: str) -> Way:
    """Azure Monitor; nobody is called but the ingestion endpoint of the connection string.

    Raises:
        MissingExtra: The package isn't installed.
        InvalidProject: The connection string isn't one.
    """
    keep_quiet()
    try:
        from azure.monitor.opentelemetry.exporter import AzureMonitorMetricExporter, AzureMonitorTraceExporter
    except ImportError:
        raise MissingExtra(
            "APPLICATIONINSIGHTS_CONNECTION_STRING is set, but Azure Monitor's exporter isn't installed.",
            "pip install 'noria[azure]', or unset the variable.",
        ) from None
    logging.getLogger("azure").setLevel(logging.WARNING)
    said = LastWords("azure.monitor.opentelemetry.exporter")
    how = {"connection_string": connection_string, "disable_offline_storage": True, "retry_total": 1}
    try:
        spans, metrics = AzureMonitorTraceExporter(**how), AzureMonitorMetricExporter(**how)
    except ValueError as error:
        said.close()
        raise InvalidProject(
            f"APPLICATIONINSIGHTS_CONNECTION_STRING can't be read: {error}.",
            "Copy it from the resource's overview page.",
        ) from None
    return Way("azure_monitor", spans, WatchedExporter(metrics, said), said)
