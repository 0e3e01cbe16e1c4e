"""Translates between what callers send and what model servers understand: bytes in, bytes out, no I/O.

| form | caller sends | to a server that speaks mlflow | to one that speaks openai |
|---|---|---|---|
| predict | `{"input": x}` | `/invocations {"inputs": [x]}` | `/v1/chat/completions`, x as the user's message |
| invocations | MLflow's four formats, CSV | the same | an OpenAI body without `model`, chosen by its keys |
| chat, completions, embeddings | OpenAI's | — | the same |
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from noria.domain.endpoint import Wire
from noria.domain.errors import InvalidRequest, UnsupportedMedia
from noria.serving import replies
from noria.serving.bodies import csv_frame, is_csv, load_object, read_metadata
from noria.serving.replies import Reply

FRAMES = ("dataframe_split", "dataframe_records", "instances", "inputs")
"""MLflow's formats: a body holds exactly one of them."""
_JSON = "application/json"
_encode = msgspec.json.Encoder().encode


class _Named(msgspec.Struct):
    """What a body has to say that names its endpoint."""

    model: Annotated[str, msgspec.Meta(min_length=1)]


_named = msgspec.json.Decoder(_Named)


class Form(StrEnum):
    """The ways in which a request can be put."""

    PREDICT = "predict"
    INVOCATIONS = "invocations"
    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"

    @property
    def names_its_endpoint(self) -> bool:
        """Whether the body's `model` says which endpoint is meant."""
        return self in _OPENAI


@dataclass(frozen=True, slots=True)
class OpenAIForm:
    """One of OpenAI's requests: its path, the key that makes it one, and the key that makes a reply to it one."""

    path: str
    key: str
    reply_key: str


_OPENAI = {
    Form.CHAT: OpenAIForm("/v1/chat/completions", "messages", "choices"),
    Form.COMPLETIONS: OpenAIForm("/v1/completions", "prompt", "choices"),
    Form.EMBEDDINGS: OpenAIForm("/v1/embeddings", "input", "data"),
}


_READ = {form: replies.openai(kind.reply_key) for form, kind in _OPENAI.items()}
"""Form → what reads a model server's answer to it."""


@dataclass(slots=True, kw_only=True)
class Call:
    """A caller's request, understood.

    Attributes:
        path: Where it goes on the model server.
        body: What is sent there.
        read: Turns the model server's body into the caller's; raises UpstreamFailed for one that answers nothing.
        record: The request as it goes into the log, UTF-8 JSON.
        content_type: Of `body`.
        metadata: What the caller said about the request.
        user: OpenAI's `user`, empty if not said.
        stream: Whether the answer comes in pieces.
        shows_usage: Whether the caller asked for the usage at the end of a stream.
        whole_body: What to send to get the same answer in one piece.
        notes: Why `record` isn't what was sent, as codes.
    """

    path: str
    body: bytes
    read: Callable[[bytes], Reply]
    record: bytes
    content_type: str = _JSON
    metadata: Mapping[str, str]
    user: str = ""
    stream: bool = False
    shows_usage: bool = True
    whole_body: bytes
    notes: tuple[str, ...] = ()


def endpoint_named(body: bytes) -> str:
    """The endpoint that an OpenAI body names as its `model`.

    Raises:
        InvalidRequest: It is no JSON object, or names none.
    """
    try:
        return _named.decode(body).model
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        model = load_object(body).get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequest("`model` is missing.", 'Name an endpoint: {"model": "…"}; GET /v1/models lists them.')
    return model


def understand(form: Form, body: bytes, content_type: str, wire: Wire, endpoint: str) -> Call:
    """Read a caller's request and say what to send to a model server of that wire.

    Raises:
        InvalidRequest: It can't be answered as it is; the sentence names the field and says what to send.
        UnsupportedMedia: It is neither JSON nor, for invocations, CSV.
    """
    if content_type != _JSON and is_csv(content_type):
        if form is not Form.INVOCATIONS or wire is not Wire.MLFLOW:
            raise UnsupportedMedia("CSV can't be read here.", "Send JSON with Content-Type: application/json.")
        return _csv(body)
    value = load_object(body)
    if form is Form.PREDICT:
        return _predict(body, value, wire)
    if wire is Wire.MLFLOW:
        if form is not Form.INVOCATIONS:
            raise InvalidRequest(
                f"{endpoint} is a model that predicts; it can't be asked over {_OPENAI[form].path}.",
                f'POST {{"input": "…"}} to /predict/{endpoint}.',
            )
        return _invocations(body, value)
    return _openai(_kind(value) if form is Form.INVOCATIONS else form, body, value, endpoint)


def _predict(body: bytes, value: dict[str, Any], wire: Wire) -> Call:
    """The lab's wire."""
    metadata = read_metadata(value.get("metadata"))
    read: Callable[[bytes], Reply]
    unknown = [key for key in value if key not in ("input", "metadata")]
    if "input" not in value or unknown:
        problem = f"`{unknown[0][:64]}` is not a field of /predict." if unknown else "`input` is missing."
        raise InvalidRequest(problem, 'Send {"input": …} and, if you like, {"metadata": {"user": "…"}} beside it.')
    asked = value["input"]
    if wire is Wire.OPENAI:
        if not isinstance(asked, str):
            raise InvalidRequest("`input` is not a string.", 'This endpoint chats: send {"input": "your message"}.')
        sent = _encode({"messages": [{"role": "user", "content": asked}]})
        path, read = _OPENAI[Form.CHAT].path, replies.message
    else:
        items = asked if isinstance(asked, list) else [asked]
        if not items or asked is None:
            raise InvalidRequest("`input` is empty.", "Send one item, or a list of at least one.")
        sent = _encode({"inputs": items})
        path, read = "/invocations", replies.predictions(len(items), single=not isinstance(asked, list))
    return Call(path=path, body=sent, whole_body=sent, read=read, record=body, metadata=metadata)


def _invocations(body: bytes, value: dict[str, Any]) -> Call:
    """MLflow's scoring wire: passed on as it came, without `metadata`."""
    given = [key for key in FRAMES if key in value]
    unknown = [key for key in value if key not in (*FRAMES, "params", "metadata")]
    if len(given) != 1 or unknown:
        found = f"`{unknown[0][:64]}` is not one of them" if unknown and not given else f"found {len(given)} of them"
        raise InvalidRequest(
            f"The body must hold exactly one of {', '.join(FRAMES)} ({found}).",
            'Send for example {"inputs": ["…"]}; `params` and `metadata` may stand beside it.',
        )
    if not isinstance(value.get("params", {}), dict):
        raise InvalidRequest("`params` is not an object.", 'Send {"params": {"name": value}} or leave it out.')
    if not isinstance(value[given[0]], dict if given[0] == "dataframe_split" else list | dict) or not value[given[0]]:
        raise InvalidRequest(f"`{given[0]}` is empty or not what its name says.", 'Send for example {"inputs": ["…"]}.')
    sent = _encode({k: v for k, v in value.items() if k != "metadata"}) if "metadata" in value else body
    metadata = read_metadata(value.get("metadata"))
    return Call(path="/invocations", body=sent, whole_body=sent, read=replies.mlflow, record=body, metadata=metadata)


def _csv(body: bytes) -> Call:
    """A CSV file: sent as it is, recorded as the same table in JSON so that monitors can read it."""
    return Call(
        path="/invocations",
        body=body,
        whole_body=body,
        read=replies.mlflow,
        record=_encode({"dataframe_split": csv_frame(body)}),
        content_type="text/csv",
        metadata={},
        notes=("converted_from_csv",),
    )


def _openai(form: Form, body: bytes, value: dict[str, Any], endpoint: str) -> Call:
    """OpenAI's wire: passed on untouched, except that a stream is always asked for its usage."""
    kind = _OPENAI[form]
    asked = value.get(kind.key)
    if not asked or (form is Form.CHAT and not _are_messages(asked)):
        example = '{"messages": [{"role": "user", "content": "…"}]}' if form is Form.CHAT else f'{{"{kind.key}": "…"}}'
        raise InvalidRequest(f"`{kind.key}` is missing, empty or not what its name says.", f"Send {example}.")
    stream, options = value.get("stream") or False, value.get("stream_options") or {}
    if not isinstance(stream, bool) or not isinstance(options, dict):
        raise InvalidRequest(
            "`stream` or `stream_options` has the wrong type.", 'Send {"stream": true} or leave it out.'
        )
    whole, sent = body, body
    if "model" not in value:
        value["model"] = endpoint
        whole = sent = _encode(value)
    if stream:
        whole = _encode({k: v for k, v in value.items() if k not in ("stream", "stream_options")})
        if not options.get("include_usage"):
            sent = _encode({**value, "stream_options": {**options, "include_usage": True}})
    user = value.get("user")
    return Call(
        path=kind.path,
        body=sent,
        whole_body=whole,
        read=_READ[form],
        record=body,
        metadata=read_metadata(value.get("metadata")),
        user=user if isinstance(user, str) else "",
        stream=stream,
        shows_usage=bool(options.get("include_usage")),
    )


def _kind(value: dict[str, Any]) -> Form:
    """Which of OpenAI's requests a body without a path of its own is, by its keys."""
    for form, kind in _OPENAI.items():
        if kind.key in value:
            return form
    raise InvalidRequest(
        "The body holds none of messages, prompt, input.", 'Send {"messages": [{"role": "user", "content": "…"}]}.'
    )


def _are_messages(value: object) -> bool:
    if not isinstance(value, list):
        return False
    for message in value:  # noqa: SIM110 (a generator costs more than the looks)
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            return False
    return True
