"""A prompt's messages with what belongs in them: the caller's text, the labels, and examples that were retrieved.

A message that is nothing but `{{examples}}` becomes a turn of the user and one of the assistant for each example, in
the same words in which the text itself is asked about; inside other words the examples are lines.
"""

import re
from collections.abc import Mapping, Sequence

from noria.domain.errors import InvalidData
from noria.domain.prompt import Prompt

TEXT, LABELS, EXAMPLES = "{{text}}", "{{labels}}", "{{examples}}"
_BLANKS = re.compile(r"\{\{(text|labels|examples)\}\}")

Message = Mapping[str, str]
Example = tuple[str, str]
"""A text and its label, or for a chat what was asked and the wanted answer."""


def filled(prompt: Prompt, text: str, examples: Sequence[Example] = ()) -> list[Message]:
    """The chat that is put to the base for one text."""
    ready: list[Message] = []
    for message in prompt.messages:
        if message["content"].strip() == EXAMPLES:
            for known, label in examples:
                ready.append({"role": "user", "content": _asked(prompt, known)})
                ready.append({"role": "assistant", "content": label})
        else:
            ready.append({"role": message["role"], "content": _with(message["content"], prompt, text, examples)})
    return ready


def demand_sound(prompt: Prompt) -> None:
    """See that a prompt can be filled in.

    Raises:
        InvalidData: A classifier's prompt never asks about the text, or a role is unknown.
    """
    for message in prompt.messages:
        if message.get("role") not in ("system", "user", "assistant") or not isinstance(message.get("content"), str):
            raise InvalidData(
                "A message of the prompt has no role or no content.",
                "Give each `role` (system, user or assistant) and `content`.",
            )
    if prompt.labels and not any(TEXT in message["content"] for message in prompt.messages):
        raise InvalidData(f"The prompt of a classifier doesn't ask about the text: {TEXT} is missing.", "Write it.")
    if prompt.labels and len(set(prompt.labels)) < 2:
        raise InvalidData("A classifier's prompt needs two labels or more.", "Name them.")


def before(prompt: Prompt, asked: Sequence[Mapping[str, object]], examples: Sequence[Example] = ()) -> list[object]:
    """A caller's chat with the prompt's messages put in front; two system messages become one, since many models take
    no more."""
    ours: list[object] = list(filled(prompt, "", examples))
    theirs = list(asked)
    if ours and theirs and theirs[0].get("role") == "system":
        first, own = theirs[0].get("content"), ours[0]
        if isinstance(own, dict) and own["role"] == "system" and isinstance(first, str):
            ours[0] = {"role": "system", "content": f"{own['content']}\n\n{first}"}
            theirs = theirs[1:]
    return [*ours, *theirs]


def last_asked(messages: Sequence[Mapping[str, object]]) -> str:
    """What the user said last, in words."""
    for message in reversed(messages):
        content = message.get("content")
        if message.get("role") == "user" and isinstance(content, str):
            return content
        if message.get("role") == "user" and isinstance(content, list):
            return " ".join(str(part["text"]) for part in content if isinstance(part, dict) and part.get("text"))
    return ""


def _asked(prompt: Prompt, text: str) -> str:
    """How the prompt asks about a text: its last message that does, filled in; the text itself for a chat."""
    asking = [m["content"] for m in prompt.messages if TEXT in m["content"]]
    return _with(asking[-1], prompt, text, ()) if asking else text


def _with(content: str, prompt: Prompt, text: str, examples: Sequence[Example]) -> str:
    """A content with its blanks filled in, all at once: what a caller writes is never filled in again."""

    def fill(blank: re.Match[str]) -> str:
        if blank[1] == "text":
            return text
        if blank[1] == "labels":
            return ", ".join(prompt.labels)
        return "\n".join(f"{known} => {label}" for known, label in examples)

    return _BLANKS.sub(fill, content)
