"""Server-sent events of OpenAI's streams: cut into events, and put together again to the answer they spell."""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from noria.serving.replies import garbage

DONE = b"data: [DONE]\n\n"
"""The event that ends a stream."""
LONGEST_EVENT = 4 * 1024 * 1024
"""A server that sends more without ending an event sends no events."""
_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_JOINED = ("content", "refusal", "reasoning_content", "reasoning")
"""Parts of a message that arrive in pieces of text."""


class Splitter:
    """Cuts a byte stream into whole events, whatever the sizes of the chunks it arrives in."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The events that are whole now, each with the blank line that ends it.

        Raises:
            UpstreamFailed: An event grew beyond all measure.
        """
        seen = max(0, len(self._rest) - 3)  # an end that began before is at most three bytes back
        self._rest += data
        events, start = [], 0
        for match in _END.finditer(self._rest, seen):
            events.append(self._rest[start : match.end()])
            start = match.end()
        self._rest = self._rest[start:]
        if len(self._rest) > LONGEST_EVENT:
            raise garbage("an event without an end")
        return events


def payload(event: bytes) -> bytes | None:
    """An event's data; None for a comment or anything else that carries none."""
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def chunk(data: bytes) -> dict[str, Any]:
    """The JSON object in an event's data.

    Raises:
        UpstreamFailed: There is none, or it tells of an error.
    """
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise garbage("an event that is not JSON") from None
    if not isinstance(value, dict):
        raise garbage("an event that is not an object")
    if error := value.get("error"):
        message = error.get("message") if isinstance(error, dict) else error
        raise garbage(str(message)[:500])
    return value


def only_usage(value: dict[str, Any]) -> bool:
    """Whether a chunk is the extra one at the end that carries nothing but the usage."""
    return not value.get("choices") and value.get("usage") is not None


class Assembly:
    """The answer that a stream's chunks add up to, as one completion."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self.usage: dict[str, Any] | None = None

    def add(self, value: dict[str, Any]) -> bool:
        """Add a chunk; whether it held something to read."""
        for key, item in value.items():
            if key not in ("choices", "usage") and item is not None:
                self._head[key] = item
        if isinstance(usage := value.get("usage"), dict):
            self.usage = usage
        said = False
        for piece in value.get("choices") or ():
            if isinstance(piece, dict):
                said = self._add_choice(piece) or said
        return said

    @property
    def complete(self) -> bool:
        """Whether every choice said why it ended."""
        return bool(self._choices) and all(c.get("finish_reason") for c in self._choices.values())

    def body(self) -> bytes:
        """The completion as JSON, of the shape that it has without streaming."""
        kind = str(self._head.get("object", "chat.completion.chunk")).removesuffix(".chunk")
        choices = [self._choices[index] for index in sorted(self._choices)]
        whole = {**self._head, "object": kind, "choices": choices}
        return msgspec.json.encode({**whole, "usage": self.usage} if self.usage is not None else whole)

    def _add_choice(self, piece: dict[str, Any]) -> bool:
        index = piece.get("index") if isinstance(piece.get("index"), int) else 0
        choice = self._choices.setdefault(int(index or 0), {"index": index, "finish_reason": None})
        said = False
        for key, item in piece.items():
            if key == "delta" and isinstance(item, dict):
                said = _add_delta(choice.setdefault("message", {"role": "assistant", "content": None}), item) or said
            elif key == "text" and isinstance(item, str):
                choice["text"] = choice.get("text", "") + item
                said = said or bool(item)
            elif key == "logprobs" and isinstance(item, dict):
                _extend(choice.setdefault("logprobs", {}), item)
            elif key != "index" and item is not None:
                choice[key] = item
        return said


def _add_delta(message: dict[str, Any], delta: dict[str, Any]) -> bool:
    """Add a piece of a message; whether it held something to read."""
    said = False
    for key, item in delta.items():
        if key in _JOINED and isinstance(item, str):
            message[key] = (message.get(key) or "") + item
            said = said or bool(item)
        elif key == "tool_calls" and isinstance(item, list):
            _add_tool_calls(message.setdefault("tool_calls", []), item)
            said = said or bool(item)
        elif key == "function_call" and isinstance(item, dict):
            _join(message.setdefault("function_call", {}), item)
            said = True
        elif item is not None:
            message[key] = item
    return said


def _add_tool_calls(calls: list[dict[str, Any]], pieces: Iterable[Any]) -> None:
    """Add pieces of tool calls to the call of the same index."""
    for piece in pieces:
        if not isinstance(piece, dict):
            continue
        index = piece.get("index", len(calls))
        call = next((c for c in calls if c.get("index") == index), None)
        if call is None:
            call = {"index": index}
            calls.append(call)
        for key, item in piece.items():
            if key == "function" and isinstance(item, dict):
                _join(call.setdefault("function", {}), item)
            elif item is not None:
                call[key] = item


def _join(whole: dict[str, Any], piece: dict[str, Any]) -> None:
    """Add a piece of a function's call: its arguments arrive in pieces of text, its name at once."""
    for key, item in piece.items():
        if key == "arguments" and isinstance(item, str):
            whole[key] = whole.get(key, "") + item
        elif item is not None:
            whole[key] = item


def _extend(whole: dict[str, Any], piece: dict[str, Any]) -> None:
    """Add a piece of log-probabilities, whose lists go on from chunk to chunk."""
    for key, item in piece.items():
        if isinstance(item, list) and isinstance(whole.get(key), list):
            whole[key].extend(item)
        elif item is not None:
            whole[key] = item
