"""Reads what model servers answer; what answers nothing is an error, never passed on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from noria.domain.errors import InvalidRequest, Overloaded, UpstreamFailed

_CALLERS_FAULT = frozenset({400, 413, 415, 422, 501})
"""Statuses by which a model server says that the request is at fault (501: it can't do such a thing); any other is its
own trouble, or ours."""
_PASSED_ON = frozenset({400, 413, 415, 422, 429})
_NO_TIME = frozenset({429, 503})


class Garbage(UpstreamFailed):
    """A model server answered, but with something that is no answer; it would do so again."""


@dataclass(slots=True, kw_only=True)
class Reply:
    """A model server's answer as the caller gets it, with the tokens that the server counted; cached ones are input
    tokens, too."""

    body: bytes
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0


def predictions(count: int, *, single: bool) -> Callable[[bytes], Reply]:
    """Reads `{"predictions": […]}` of that many items; a single one is unwrapped."""

    def read(body: bytes) -> Reply:
        found = _replied(body, "predictions")["predictions"]
        if not isinstance(found, list) or len(found) != count:
            raise garbage(f"not {count} predictions")
        return Reply(body=msgspec.json.encode(found[0] if single else found))

    return read


def mlflow(body: bytes) -> Reply:
    """Checks that there are predictions."""
    _replied(body, "predictions")
    return Reply(body=body)


def openai(key: str) -> Callable[[bytes], Reply]:
    """Checks that there are choices (or embeddings), and takes the usage."""

    def read(body: bytes) -> Reply:
        value = _replied(body, key)
        if not isinstance(value[key], list):
            raise garbage(f"`{key}` is not a list")
        return with_usage(Reply(body=body), value.get("usage"))

    return read


def message(body: bytes) -> Reply:
    """A chat's answer as a bare JSON string."""
    value = _replied(body, "choices")
    try:
        text = value["choices"][0]["message"]["content"]
    except (LookupError, TypeError):
        text = None
    if not isinstance(text, str):
        raise garbage("no text in it")
    return with_usage(Reply(body=msgspec.json.encode(text)), value.get("usage"))


def with_usage(reply: Reply, usage: object) -> Reply:
    """The reply with the token counts of an OpenAI `usage` object."""
    if not isinstance(usage, dict):
        return reply
    details = usage.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    reply.input_tokens = _count(usage.get("prompt_tokens"))
    reply.output_tokens = _count(usage.get("completion_tokens"))
    reply.cached_tokens = cached or 0
    return reply


def _count(value: object) -> int | None:
    """A number of tokens; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def garbage(what: str) -> Garbage:
    """The error for an answer that is none."""
    return Garbage(
        f"The model server's answer can't be used: {what}.", "Its log says more; noria status names the version."
    )


def judge(read: Callable[[bytes], Reply], status: int, body: bytes, version: str) -> Reply:
    """What a model server's answer comes to.

    Args:
        read: Reads the body of a success.
        status: The model server's.
        body: The model server's.
        version: `model/version`, for the error's sentence.

    Raises:
        InvalidRequest: The model says that the request is at fault.
        Overloaded: It has no time now.
        UpstreamFailed: Anything else that is no answer.
    """
    if status == 200:
        return read(body)
    if status in _CALLERS_FAULT:
        raise InvalidRequest(f"{version} can't answer this: {error_message(body)}", "Change the request.")
    if status in _NO_TIME:
        raise Overloaded(f"{version} has no time now: {error_message(body)}", "Come back in a few seconds.")
    raise UpstreamFailed(f"{version} failed with status {status}: {error_message(body)}", "Its log says more.")


def passes_on(status: int, body: bytes) -> bool:
    """Whether an OpenAI error body is for the caller as it is: about the request, or about his pace."""
    if status not in _PASSED_ON:
        return False
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return isinstance(value, dict) and isinstance(value.get("error"), dict)


def error_message(body: bytes) -> str:
    """The sentence in an error body of either wire, at most 500 characters; nothing that isn't meant to be read."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return "it gives no reason."
    error = value.get("error", value) if isinstance(value, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    if not isinstance(message, str) or not message.strip():
        return "it gives no reason."
    sentence = message.strip()[:500]
    return sentence if sentence[-1] in ".!?" else f"{sentence}."


def _replied(body: bytes, key: str) -> dict[str, Any]:
    """A model server's JSON object, which must hold that key."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise garbage("not JSON") from None
    if not isinstance(value, dict) or key not in value:
        raise garbage(f"`{key}` is missing")
    return value
