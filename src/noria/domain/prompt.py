"""A way to ask a base language model, which is a model version of its own: what `Flavor.PROMPT` holds.

Written down as JSON (`prompt.json`) beside the examples that may be retrieved into it and the adapter that its base may
be loaded with. The base's weights are named by their checksum and never copied.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from noria.domain.errors import InvalidData

FILE, EXAMPLES, ADAPTER = "prompt.json", "examples.parquet", "adapter.gguf"
"""Names of a prompt's files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The language model that is asked: a model file, or a model of one of the project's upstreams.

    Attributes:
        gguf: Path of the model file, or `python:PACKAGE/FILE`; empty for a model elsewhere.
        sha256: The file's checksum, hex.
        context: Tokens of context of each slot.
        threads: CPU threads.
        slots: Requests that are decoded together.
        upstream: Name of the upstream in noria.yaml, which alone says where that is; empty for a file.
        model: What the upstream calls the model.
    """

    gguf: str = ""
    sha256: str = ""
    context: int = 2048
    threads: int = 1
    slots: int = 4
    upstream: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What is asked, and how its answer is read.

    Attributes:
        base: Who is asked.
        messages: The chat, each with `role` and `content`; `{{text}}` stands for what the caller sent, `{{examples}}`
            for the examples that were retrieved and `{{labels}}` for the labels. For a chat: what comes before
            the caller's own messages.
        labels: What the answer may be, for classification; empty for a chat.
        examples: How many labelled examples are retrieved into it.
        adapter: Whether the base is loaded with the LoRA adapter that lies beside it.
        parameters: Sent with each request to the base (`temperature`, `max_tokens`, …).
    """

    base: Base
    messages: Sequence[Mapping[str, str]]
    labels: Sequence[str] = ()
    examples: int = 0
    adapter: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """As it is written down."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read it back.

        Raises:
            InvalidData: It isn't a prompt.
        """
        try:
            raw = json.loads(text)
            return cls(**(raw | {"base": Base(**raw["base"])}))
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidData(f"{FILE} is no prompt: {error}.", "Train or register the version again.") from error
