"""A share of the records as traces in MLflow, for people who look at single conversations there.

Each record is a trace of its own, named `tr-` and the request's id, so that one leads to the other and a repeat changes
nothing. Spans go to the tracking store a batch at a time, as MLflow's own OTLP door does it: one transaction on a
database, one POST to a server.
"""

import logging
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from noria.adapters.registry.client import load_mlflow, mlflow_error
from noria.adapters.telemetry import genai
from noria.adapters.telemetry.genai import Places
from noria.adapters.telemetry.outlet import Record
from noria.domain.errors import RegistryUnavailable
from noria.domain.inference import Intent, Outcome

RATE: Final = 20.0
"""Traces a second that MLflow gets at most: SQLite takes 300 in batches, but training and the registry need it too."""
WAITING: Final = 200
"""Traces that may wait."""
_CREDENTIALS: Final = re.compile(r"//[^/@\s]*@")
"""User name and password in an address."""
PREFIX: Final = "tr-"
_TYPES: Final = {genai.CHAT: "CHAT_MODEL", genai.COMPLETION: "LLM", genai.EMBEDDINGS: "EMBEDDING"}
"""Operation → MLflow's type of a span; any other is its own type."""


def sampled(share: float) -> Callable[[Intent, Outcome], bool]:
    """Which records MLflow gets: a share of the traces, told by their ids."""
    bound = int(share * 2.0**64)
    return lambda intent, _: bool(intent.trace_id) and int(intent.trace_id[16:], 16) < bound


class MlflowTraces:
    """Hands traces to MLflow.

    Args:
        tracking_uri: Which MLflow.
        experiment: Says which experiment, by its id; made if it isn't there.
        places: Who runs the models.
        sender: Who sends.
    """

    def __init__(self, tracking_uri: str, experiment: Callable[[], str], places: Places, sender: Resource) -> None:
        self._uri, self._find, self._places, self._sender = tracking_uri, experiment, places, sender
        self._client: Any = None
        self._experiment = ""

    def send(self, records: list[Record]) -> str:
        """Store records as traces; why that failed, empty if it did not."""
        if self._uri.startswith("databricks"):
            return "Databricks takes traces over OTLP only: set telemetry.otlp instead of telemetry.mlflow_sample."
        try:
            if self._client is None:
                load_mlflow()
                from mlflow.tracing.client import TracingClient

                self._experiment = self._find()
                self._client = TracingClient(self._uri)
            from mlflow.entities import Span

            self._client.log_spans(self._experiment, [Span(self._span(record)) for record in records])
        except (RegistryUnavailable, mlflow_error(), NotImplementedError, OSError) as error:
            logging.getLogger("noria.telemetry").debug("MLflow took no traces", exc_info=error)
            said = str(error).strip().splitlines() or [type(error).__name__]
            return _CREDENTIALS.sub("//", said[0])[:300]
        return ""

    def _span(self, record: Record) -> ReadableSpan:
        intent, outcome = record
        found = genai.attributes(self._places, intent, outcome)
        start = intent.received_us * 1000
        said = {name: msgspec.json.encode(value).decode() for name, value in (found | _own(found, record)).items()}
        said |= {
            "mlflow.spanInputs": _json(intent.request),
            "mlflow.spanOutputs": _json(outcome.response),
        }
        return ReadableSpan(
            name=f"{found[genai.OPERATION]} {intent.endpoint}",
            context=SpanContext(int(intent.request_id, 16), int(intent.span_id, 16), False, TraceFlags(1)),
            resource=self._sender,
            attributes=said,
            kind=SpanKind.SERVER,
            status=Status(StatusCode.ERROR if genai.is_fault(outcome) else StatusCode.OK),
            start_time=start,
            end_time=start + outcome.duration_us * 1000,
        )


def _own(found: dict[str, genai.Value], record: Record) -> dict[str, Any]:
    """MLflow's names for what it shows of a trace, and the tags that it can be found by."""
    intent, outcome = record
    own: dict[str, Any] = {
        "mlflow.traceRequestId": PREFIX + intent.request_id,
        "mlflow.spanType": _TYPES.get(str(found[genai.OPERATION]), str(found[genai.OPERATION]).upper()),
        "mlflow.llm.model": found[genai.RESPONSE_MODEL],
        "mlflow.llm.provider": found[genai.PROVIDER],
    }
    tags = {
        "noria.request_id": intent.request_id,
        "noria.trace_id": intent.trace_id,
        "noria.endpoint": intent.endpoint,
        "noria.model_version": f"{found['noria.model']}/{found['noria.version']}",
        "noria.role": intent.role.value,
        "noria.outcome": outcome.kind.value,
    }
    own |= {f"mlflow.traceTag.{name}": value for name, value in tags.items()}
    if outcome.input_tokens is not None or outcome.output_tokens is not None:
        used = outcome.input_tokens or 0, outcome.output_tokens or 0
        own["mlflow.chat.tokenUsage"] = {
            "input_tokens": used[0],
            "output_tokens": used[1],
            "total_tokens": sum(used),
        }
    if outcome.cost_usd is not None:
        own["mlflow.llm.cost"] = {"total_cost": outcome.cost_usd}
    return own


def _json(body: bytes) -> str:
    """A body as JSON text: itself, or as a string if it isn't JSON."""
    try:
        msgspec.json.decode(body)
        return body.decode()
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return msgspec.json.encode(body.decode(errors="replace")).decode()
