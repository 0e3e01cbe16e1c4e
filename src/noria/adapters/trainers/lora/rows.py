"""Labelled rows → conversations with the answer that is wanted, and perhaps one that was refused."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noria.domain.errors import InvalidData

Message = Mapping[str, str]
PLACE = "{{text}}"
"""Where the caller's text stands in a prompt's messages."""


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to learn.

    Attributes:
        messages: The conversation up to the answer.
        answer: What shall be said.
        rejected: What shall not be said instead; empty if nobody refused anything.
        production: Whether it is a labelled record, not one of the project's own rows.
    """

    messages: tuple[Message, ...]
    answer: str
    rejected: str = ""
    production: bool = False


def template(instruction: str, labels: Sequence[str]) -> tuple[Message, ...]:
    """A prompt's messages, with the places that the server fills; for a chat what comes before the caller's own."""
    system = ({"role": "system", "content": instruction},) if instruction and labels else ()
    return (*system, {"role": "user", "content": PLACE}) if labels else system


def filled(messages: Sequence[Message], labels: Sequence[str], text: str) -> tuple[Message, ...]:
    """A prompt's messages for one text."""
    named = ", ".join(labels)
    return tuple(
        {"role": m["role"], "content": m["content"].replace("{{labels}}", named).replace(PLACE, text)} for m in messages
    )


def examples(columns: Mapping[str, Sequence[Any]], messages: Sequence[Message], labels: Sequence[str]) -> list[Example]:
    """What there is to learn in some rows.

    Args:
        columns: text, label, origin, and perhaps messages (a chat's conversation as JSON) and rejected.
        messages: The prompt, see `template`.
        labels: Empty for a chat.

    Raises:
        InvalidData: A row's conversation can't be read.
    """
    count = len(columns["text"])
    rejected = columns.get("rejected") or [None] * count
    chats = columns.get("messages") or [None] * count
    found = []
    for i in range(count):
        text, origin = str(columns["text"][i]), columns["origin"][i]
        asked = filled(messages, labels, text) if labels else _conversation(chats[i], text, i)
        refused = str(rejected[i] or "")
        found.append(Example(asked, str(columns["label"][i]), refused, origin == "production"))
    return found


def _conversation(said: Any, text: str, row: int) -> tuple[Message, ...]:
    """The chat that led to an answer; the text alone where nothing else was kept."""
    if not said:
        return ({"role": "user", "content": text},)
    try:
        parsed = json.loads(said) if isinstance(said, str) else said
        return tuple({"role": str(m["role"]), "content": str(m["content"])} for m in parsed)
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidData(
            f"Row {row} has messages that are no conversation: {error!r}.",
            'Write a JSON list such as [{"role": "user", "content": "…"}].',
        ) from error
