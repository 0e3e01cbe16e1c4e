"""A record in the words of OpenTelemetry's GenAI semantic conventions. Pure: no OpenTelemetry, no I/O.

The names are constants of our own, because the conventions are still moving between packages; a test compares them with
the package that is installed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from noria.domain.endpoint import Role
from noria.domain.inference import Intent, Outcome, OutcomeKind
from noria.settings import Project, Task, UpstreamKind

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
CONVERSATION: Final = "gen_ai.conversation.id"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_STOP: Final = "gen_ai.request.stop_sequences"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_FINISH: Final = "gen_ai.response.finish_reasons"
FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 (no password)
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
HTTP_METHOD: Final = "http.request.method"
HTTP_STATUS: Final = "http.response.status_code"
SETTINGS: Final = {
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
    "n": "gen_ai.request.choice.count",
}
"""Numbers of an OpenAI request → attribute."""
CHAT: Final = "chat"
COMPLETION: Final = "text_completion"
EMBEDDINGS: Final = "embeddings"
PREDICT: Final = "predict"
"""What classifiers do: no operation of the conventions, which allow others."""
_PROVIDERS: Final = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "api.mistral.ai": "mistral_ai",
    "api.groq.com": "groq",
    "api.deepseek.com": "deepseek",
    "api.x.ai": "x_ai",
    "api.perplexity.ai": "perplexity",
}
"""Hosts that speak OpenAI's wire → what the conventions call who runs them."""
FAULTS: Final = frozenset({OutcomeKind.FAILED, OutcomeKind.TIMED_OUT, OutcomeKind.INTERRUPTED})
"""How a request ends that Noria or a model server is to blame for."""
_LONGEST_PAYLOAD: Final = 64 << 10
"""Bytes of a body that goes along with a span, if bodies are asked for; the record has every one in full."""
Value = str | int | float | bool | Sequence[str]


@dataclass(frozen=True, slots=True)
class Place:
    """Who runs a model, and where."""

    provider: str
    address: str = ""
    port: int = 0


class Places:
    """Who runs the models of a project.

    Args:
        project: The project in service.
    """

    def __init__(self, project: Project) -> None:
        self._of = {project.model_name(name): _place(project, name) for name in project.endpoints}
        self._classifies = {n for n, e in project.endpoints.items() if e.task is Task.CLASSIFICATION}

    def of(self, model: str) -> Place:
        """Who runs a registered model."""
        return self._of.get(model, Place("noria"))

    def classifies(self, endpoint: str) -> bool:
        """Whether an endpoint's answers are classes."""
        return endpoint in self._classifies


class Sent(msgspec.Struct):
    """What telemetry wants to know of a request's body; the values may be of any type, callers write what they like."""

    model: object = None
    messages: msgspec.Raw = msgspec.Raw(b"")
    prompt: msgspec.Raw = msgspec.Raw(b"")
    max_tokens: object = None
    max_completion_tokens: object = None
    temperature: object = None
    top_p: object = None
    frequency_penalty: object = None
    presence_penalty: object = None
    seed: object = None
    n: object = None
    stream: object = None
    stop: object = None


class _Choice(msgspec.Struct):
    finish_reason: object = None


class Came(msgspec.Struct):
    """What it wants to know of an answer's."""

    id: object = None
    model: object = None
    data: msgspec.Raw = msgspec.Raw(b"")
    choices: list[_Choice] = []


_SENT: Final = msgspec.json.Decoder(Sent)
_CAME: Final = msgspec.json.Decoder(Came)
_NO_REQUEST, _NO_ANSWER = Sent(), Came()


def sent(body: bytes) -> Sent:
    """What a request says, as far as it can be read."""
    try:
        return _SENT.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _NO_REQUEST


def came(body: bytes) -> Came:
    """What an answer says, as far as it can be read."""
    try:
        return _CAME.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _NO_ANSWER


def is_fault(outcome: Outcome) -> bool:
    """Whether Noria or a model server is to blame for how a request ended."""
    return outcome.kind in FAULTS or outcome.status >= 500


def operation(places: Places, intent: Intent, outcome: Outcome, said: Sent) -> str:
    """What a model was asked to do, in the conventions' words."""
    if places.classifies(intent.endpoint):
        return PREDICT
    if bytes(said.messages):
        return CHAT
    if bytes(said.prompt):
        return COMPLETION
    return EMBEDDINGS if said.model is not None or bytes(came(outcome.response).data) else CHAT


def dimensions(places: Places, intent: Intent, outcome: Outcome, doing: str) -> dict[str, Value]:
    """What metrics are told apart by: names of the project file and the registry, nothing that a caller chose."""
    model = outcome.model or intent.model
    place = places.of(model)
    found: dict[str, Value] = {
        OPERATION: doing,
        PROVIDER: place.provider,
        REQUEST_MODEL: intent.endpoint,
        RESPONSE_MODEL: model,
        "noria.version": outcome.version or intent.version,
        "noria.role": intent.role.value,
    }
    if place.address:
        found[SERVER_ADDRESS], found[SERVER_PORT] = place.address, place.port
    if outcome.kind is not OutcomeKind.ANSWERED:
        found[ERROR_TYPE] = outcome.errors[0] if outcome.errors else outcome.kind.value
    return found


def attributes(places: Places, intent: Intent, outcome: Outcome, payloads: bool = False) -> dict[str, Value]:
    """All that a span says of a request.

    Args:
        places: Who runs the models.
        intent: The record's beginning.
        outcome: The record's end.
        payloads: Whether what was asked and answered goes along, redacted as it is in the record.
    """
    said, answer = sent(intent.request), came(outcome.response)
    doing = operation(places, intent, outcome, said)
    found = dimensions(places, intent, outcome, doing)
    found |= {
        HTTP_STATUS: outcome.status,
        "noria.request_id": intent.request_id,
        "noria.endpoint": intent.endpoint,
        "noria.model": outcome.model or intent.model,
        "noria.outcome": outcome.kind.value,
        "noria.requester": intent.requester,
        "noria.tries": outcome.tries,
        "noria.cache_hit": outcome.cache_hit,
    }
    if intent.role is not Role.SHADOW:
        found[HTTP_METHOD] = "POST"
    optional: Mapping[str, Value | None] = {
        INPUT_TOKENS: outcome.input_tokens,
        OUTPUT_TOKENS: outcome.output_tokens,
        FIRST_CHUNK: None if outcome.ttft_us is None else outcome.ttft_us / 1e6,
        CONVERSATION: intent.metadata.get("conversation"),
        RESPONSE_ID: _text(answer.id),
        RESPONSE_MODEL: _text(answer.model),
        RESPONSE_FINISH: [text for choice in answer.choices if (text := _text(choice.finish_reason))] or None,
        REQUEST_STREAM: True if said.stream is True else None,
        REQUEST_STOP: _texts(said.stop),
        "noria.cost_usd": outcome.cost_usd,
        "noria.client_request_id": intent.client_request_id or None,
        "noria.shadow_of": intent.shadow_of or None,
        "noria.policy_hash": intent.policy_hash or None,
        "noria.errors": [*intent.errors, *outcome.errors] or None,
    }
    found |= {name: value for name, value in optional.items() if value is not None}
    for field, name in SETTINGS.items():
        value = getattr(said, field)
        if isinstance(value, int | float) and not isinstance(value, bool) and (field != "n" or value != 1):
            found[name] = value
    if payloads:
        found |= _payloads(said, intent.request, outcome.response)
    return found


def _payloads(said: Sent, request: bytes, response: bytes) -> dict[str, Value]:
    """What was asked and answered: messages where there are any, else the bodies; none that is too long."""
    asked = _input_messages(bytes(said.messages)) if bytes(said.messages) else None
    answered = _output_messages(response) if asked else None
    found = {
        INPUT_MESSAGES if asked else "noria.request": asked or request.decode(errors="replace"),
        OUTPUT_MESSAGES if answered else "noria.response": answered or response.decode(errors="replace"),
    }
    return {name: text for name, text in found.items() if text and len(text) <= _LONGEST_PAYLOAD}


def _input_messages(raw: bytes) -> str | None:
    try:
        messages: list[dict[str, Any]] = msgspec.json.decode(raw, type=list[dict[str, Any]])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    shaped = [{"role": str(m.get("role", "")), "parts": _parts(m)} for m in messages]
    return msgspec.json.encode(shaped).decode()


def _output_messages(body: bytes) -> str | None:
    try:
        choices = msgspec.json.decode(body)["choices"]
        shaped = [
            {
                "role": str(choice["message"].get("role", "assistant")),
                "parts": _parts(choice["message"]),
                "finish_reason": _text(choice.get("finish_reason")) or "",
            }
            for choice in choices
        ]
    except (msgspec.MsgspecError, UnicodeError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    return msgspec.json.encode(shaped).decode()


def _parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A message of OpenAI's as the conventions' parts."""
    content, calls = message.get("content"), message.get("tool_calls")
    if message.get("role") == "tool":
        return [{"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content}]
    parts: list[dict[str, Any]] = []
    if isinstance(content, str):
        parts.append({"type": "text", "content": content})
    elif isinstance(content, list):
        parts += [
            {"type": "text", "content": piece.get("text")} if piece.get("type") == "text" else dict(piece)
            for piece in content
            if isinstance(piece, dict)
        ]
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            name, arguments = function.get("name"), function.get("arguments")
            parts.append({"type": "tool_call", "id": call.get("id"), "name": name, "arguments": arguments})
    return parts


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: object) -> list[str] | None:
    """One text or several, as a list."""
    found = [value] if isinstance(value, str) else value
    return [t for t in found if isinstance(t, str)] or None if isinstance(found, list) else None


def _place(project: Project, endpoint: str) -> Place:
    """Who runs the model behind an endpoint."""
    known = project.endpoints[endpoint]
    if known.deployment is not None:
        upstream = project.upstreams[known.deployment.upstream]
        parts = urlsplit(upstream.url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        names = {
            UpstreamKind.AZURE: "azure.ai.openai",
            UpstreamKind.DATABRICKS: "databricks",
            UpstreamKind.MLFLOW: "mlflow",
        }
        name = names.get(upstream.kind) or _PROVIDERS.get(host, known.deployment.upstream)
        return Place(name, host, port)
    if known.gguf is not None:
        return Place("llama.cpp")
    return Place(PurePath(known.command.run[0]).name if known.command is not None else "mlflow")
