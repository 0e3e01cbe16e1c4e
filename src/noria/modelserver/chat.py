"""MLflow models that chat (ChatModel, LangChain and their like) behind OpenAI's wire.

A conversation is one row; what the model says, in whatever shape its flavor says it, becomes a completion. These models
answer in one piece, so a stream is that piece in a single chunk.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from noria.domain.errors import InvalidRequest, UpstreamFailed
from noria.modelserver.batching import Answer, Call

PARAMS = "chat"
"""Marks a call whose one row is the body of a chat."""
_OURS = ("model", "stream", "stream_options")
"""Keys that say something to the server, not to the model."""


def read(body: bytes) -> dict[str, Any]:
    """The body of a chat.

    Raises:
        InvalidRequest: It is none.
    """
    try:
        asked = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The body isn't JSON: {error}.", "Send a JSON object with `messages`.") from error
    messages = asked.get("messages") if isinstance(asked, dict) else None
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest(
            "`messages` is missing or empty.", 'Send {"messages": [{"role": "user", "content": "…"}]}.'
        )
    return dict(asked)


def predictor(model: Any, names: tuple[str, ...]) -> Callable[[Call], Answer]:
    """Asks an MLflow model that chats.

    Args:
        model: What mlflow.pyfunc has loaded.
        names: Keys that its signature knows; empty if it has none.
    """

    def predict(call: Call) -> Answer:
        if call.params != PARAMS:
            raise InvalidRequest("This model chats.", 'Send {"messages": [{"role": "user", "content": "…"}]}.')
        return Answer([_completion(model.predict(_asked(row, names))) for row in call.rows])

    return predict


def _asked(body: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key not in _OURS and (not names or key in names)}


def _completion(said: Any) -> dict[str, Any]:
    """What a model said, as OpenAI's completion."""
    if isinstance(said, list) and len(said) == 1:
        said = said[0]
    if isinstance(said, Mapping) and "choices" in said:
        return {"object": "chat.completion", "id": _id(), "created": int(time.time()), "model": "", **_given(said)}
    if isinstance(said, Mapping) and isinstance(said.get("messages"), list) and said["messages"]:
        said = said["messages"][-1].get("content")
    if not isinstance(said, str):
        raise UpstreamFailed(
            f"The model said {type(said).__name__} where a chat says a text.", "Log it as a ChatModel."
        )
    message = {"role": "assistant", "content": said}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return {"id": _id(), "object": "chat.completion", "created": int(time.time()), "model": "", "choices": choices}


def _given(said: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that the model gave."""
    return {key: value for key, value in said.items() if value is not None}


def _id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"


def events(completion: Mapping[str, Any], *, usage: bool) -> bytes:
    """A completion as a stream of server-sent events."""
    head = {key: completion.get(key) for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    choices = [
        {"index": choice["index"], "delta": choice["message"], "finish_reason": choice.get("finish_reason") or "stop"}
        for choice in completion["choices"]
    ]
    chunks: list[dict[str, Any]] = [{**head, "choices": choices}]
    if usage and completion.get("usage"):
        chunks.append({**head, "choices": [], "usage": completion["usage"]})
    return b"".join(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks) + b"data: [DONE]\n\n"
