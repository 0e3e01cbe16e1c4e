"""A prompt version brought to life: what it says to texts and to chats."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from noria.adapters.prompts.base import read, upstream_of
from noria.adapters.prompts.filling import Example, Message, before, demand_sound, filled, last_asked
from noria.adapters.prompts.retrieval import Examples
from noria.domain.errors import InvalidData, InvalidRequest, UnknownModel
from noria.domain.prompt import ADAPTER, EXAMPLES, Base, Prompt

AT_ONCE = 64
"""Texts that are put to a base together."""


class Asked(Protocol):
    """A base that can be asked (`LlamaBase`, `UpstreamBase`)."""

    url: str
    """Where OpenAI's wire is, as `ports.Upstream` takes it."""

    @property
    def knows_probabilities(self) -> bool:
        """Whether what `classify` gives are probabilities, not only the label."""
        ...

    def classify(self, chats: Sequence[Sequence[Message]], labels: Sequence[str]) -> list[dict[str, float]]:
        """Label → probability for each chat."""
        ...

    def complete(self, chats: Sequence[Sequence[Message]], parameters: Mapping[str, Any]) -> list[str]:
        """The answer to each chat."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


class Prompted:
    """A prompt with its base and its examples.

    Args:
        prompt: What is asked.
        base: Who is asked.
        examples: What may be retrieved into it.
    """

    def __init__(self, prompt: Prompt, base: Asked, examples: Examples | None = None) -> None:
        demand_sound(prompt)
        self.prompt, self.base = prompt, base
        self._examples = examples

    def classify(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Label → probability for each text."""
        likely = []
        for first in range(0, len(texts), AT_ONCE):
            some = texts[first : first + AT_ONCE]
            likely += self._classify(list(zip(some, self._near(some), strict=True)))
        return likely

    def chat(self, messages: Sequence[Mapping[str, Any]]) -> list[Any]:
        """A caller's chat with the prompt's messages, and the examples that suit what was asked last, in front."""
        near = self._near([last_asked(messages)])[0]
        return before(self.prompt, messages, near)

    def complete(self, chats: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
        """The answer to each caller's chat."""
        return self.base.complete([self.chat(chat) for chat in chats], self.prompt.parameters)

    def _classify(self, rows: Sequence[tuple[str, Sequence[Example]]]) -> list[dict[str, float]]:
        """The same for texts with their examples; where those don't fit into the context, half as many are tried."""
        try:
            return self.base.classify([filled(self.prompt, text, near) for text, near in rows], self.prompt.labels)
        except InvalidRequest:
            if len(rows) > 1:
                return [likely for row in rows for likely in self._classify([row])]
            [(text, near)] = rows
            if not near:
                raise
            return self._classify([(text, near[-(len(near) // 2) :] if len(near) > 1 else ())])

    def close(self) -> None:
        """Let go of the base."""
        self.base.close()

    def _near(self, texts: Sequence[str]) -> list[list[tuple[str, str]]]:
        if self._examples is None:
            return [[] for _ in texts]
        return self._examples.nearest(texts, self.prompt.examples)


def open_base(base: Base, adapter: Path | None = None, at: Mapping[str, Any] | None = None) -> Asked:
    """Bring a base up.

    Args:
        base: Which.
        adapter: A LoRA adapter in GGUF to load it with.
        at: Where its upstream is, if a training job says so (`base.AT`).

    Raises:
        NoriaError: Its weights are gone, its upstream isn't known, or llama.cpp can't load it.
    """
    if not base.upstream:
        from noria.adapters.prompts.llama import LlamaBase

        return LlamaBase(base, adapter)
    if adapter is not None:
        raise InvalidData("An adapter needs a model file, not an upstream.", "Train it on a base with gguf.")
    from noria.adapters.prompts.remote import UpstreamBase

    return UpstreamBase(base, upstream_of(base, at))


def open_folder(folder: Path) -> Prompted:
    """A version's files brought to life.

    Raises:
        NoriaError: See `read` and `open_base`.
    """
    prompt = read(folder)
    demand_sound(prompt)
    kept = folder / EXAMPLES
    examples = Examples.read(kept) if prompt.examples and kept.is_file() else None
    if prompt.adapter and not (folder / ADAPTER).is_file():
        raise UnknownModel(f"{folder} holds no {ADAPTER}.", "Train the version again.")
    return Prompted(prompt, open_base(prompt.base, folder / ADAPTER if prompt.adapter else None), examples)
