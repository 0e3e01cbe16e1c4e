"""Nouns, events and errors of the domain as JSON, and back.

Plain `json` writes the text, because numbers may be infinite or missing (`Infinity`, `NaN`), which msgspec writes as
null; msgspec checks the types on the way back. Fields that a noun has gained since it was written take their default.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args

import msgspec

from noria.domain.errors import NoriaError, StorageCorrupted
from noria.domain.events import Event

T = TypeVar("T")

EVENT_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Event)}
"""Name of an event type → the type."""


def encode(noun: object) -> str:
    """The noun (any dataclass of the domain) as JSON text."""
    return json.dumps(msgspec.to_builtins(noun), ensure_ascii=False, separators=(",", ":"))


def decode(kind: type[T], text: str | bytes) -> T:
    """The noun that `encode` wrote.

    Raises:
        StorageCorrupted: The text isn't JSON, or lacks what the noun needs.
    """
    try:
        return msgspec.convert(json.loads(text), kind)
    except (ValueError, msgspec.ValidationError) as error:
        raise StorageCorrupted(
            f"A stored {kind.__name__} can't be read: {error}.",
            "Restore the file that holds it from a backup, or move it away and start anew.",
        ) from error


def encode_event(event: Event) -> tuple[str, str]:
    """The event's kind and its body as JSON text."""
    return type(event).__name__, encode(event)


def decode_event(kind: str, body: str | bytes) -> Event:
    """The event that `encode_event` wrote.

    Raises:
        StorageCorrupted: No event is called that, or its body can't be read.
    """
    event_type = EVENT_KINDS.get(kind)
    if event_type is None:
        raise StorageCorrupted(
            f"A stored event is of the unknown kind {kind!r}.",
            "Run the version of Noria that wrote it.",
        )
    event: Event = decode(event_type, body)
    return event


def error_to_json(error: BaseException) -> dict[str, str]:
    """An error as JSON values; one that isn't of the domain keeps its type's name and its message."""
    if isinstance(error, NoriaError):
        return {"code": error.code, "problem": error.problem, "remedy": error.remedy}
    message = str(error).strip().splitlines()
    said = f": {message[-1]}" if message else ""
    return {"code": NoriaError.code, "problem": f"{type(error).__name__}{said}.", "remedy": ""}


def error_from_json(fields: Mapping[str, str]) -> NoriaError:
    """The error of the domain that `error_to_json` wrote, with its type, problem and remedy."""
    kind = _ERRORS.get(fields["code"], NoriaError)
    return kind(fields["problem"], fields["remedy"])


def _family(kind: type[NoriaError]) -> Iterator[type[NoriaError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)


_ERRORS = {kind.code: kind for kind in _family(NoriaError)}
