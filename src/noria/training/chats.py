"""Chats as rows: the messages before an answer, the answer that was wanted, and the one that was given instead."""

import json
from collections.abc import Callable
from typing import Any

from noria.domain.errors import InvalidData
from noria.evaluation.payloads import asked, outputs, parse

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
"""Roles that a message of OpenAI's fine-tuning format may have."""
_FIX = (
    'Write a line as {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}, '
    'with "rejected": "..." beside it if you like.'
)


def messages_of(request: str) -> str:
    """The messages of a recorded request as JSON; a request of another form is one message of the user's."""
    body = parse(request)
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list):
        messages = [{"role": "user", "content": text} for text in asked(body) if text]
    return json.dumps(messages, ensure_ascii=False)


def rejected_of(response: str, wanted: str) -> str | None:
    """The answer that a response gave, if it isn't the wanted one."""
    given = outputs(response)
    return given[0] if len(given) == 1 and given[0].strip() not in ("", wanted.strip()) else None


def chat_of(item: dict[str, Any], place: str, redact: Callable[[str], str]) -> tuple[str, str, str, str | None]:
    """The user's last text, the messages as JSON, the wanted answer and the rejected one, of a line of a file.

    Args:
        item: The line; its last message is the wanted answer.
        place: The line in words, for what is said of it.
        redact: Takes out of a text what must not be kept.

    Raises:
        InvalidData: It is no chat with an answer; the sentence names the line and what is wrong.
    """
    messages, rejected = item["messages"], item.get("rejected")
    if not isinstance(messages, list) or not messages:
        raise InvalidData(f"{place} has no list of messages.", _FIX)
    for number, message in enumerate(messages, 1):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ROLES:
            raise InvalidData(f"Message {number} in {place} has no role that is known.", f"Roles: {', '.join(ROLES)}.")
        if not isinstance(message.get("content"), str):
            raise InvalidData(f"Message {number} in {place} has no text as its content.", _FIX)
    cleaned = [message | {"content": redact(message["content"])} for message in messages]
    users = [message["content"] for message in cleaned[:-1] if message["role"] == "user"]
    if cleaned[-1]["role"] != "assistant" or not cleaned[-1]["content"].strip():
        raise InvalidData(f"{place} doesn't end with the assistant's answer.", _FIX)
    if not users:
        raise InvalidData(f"{place} has no message of the user's.", _FIX)
    if rejected is not None and not isinstance(rejected, str):
        raise InvalidData(f"{place} has a rejected answer that isn't text.", _FIX)
    before = json.dumps(cleaned[:-1], ensure_ascii=False)
    return users[-1], before, cleaned[-1]["content"], None if rejected is None else redact(rejected)
