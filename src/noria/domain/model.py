"""A model version: what the registry knows of something that can answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path


class Flavor(StrEnum):
    """How a version's files are brought to life."""

    PYFUNC = "pyfunc"
    """Any MLflow model: Noria's batching model server loads it."""
    GGUF = "gguf"
    """A llama.cpp model file: the llama.cpp runtime loads it."""
    PROMPT = "prompt"
    """A way to ask a base language model: messages, labels, examples, an adapter (`domain/prompt.py`)."""
    COMMAND = "command"
    """A command of the project file that listens on a port."""
    EXTERNAL = "external"
    """A model that one of the project's upstreams serves."""


class Alias(StrEnum):
    """The registry aliases that Noria moves; `latest` and `v<digits>` belong to MLflow."""

    CHAMPION = "champion"
    CHALLENGER = "challenger"
    PREVIOUS = "previous"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """One immutable version of a registered model.

    Attributes:
        name: Registered model name.
        version: The registry's version, as text.
        flavor: Which host can serve it.
        uri: Where the registry keeps it, for example `models:/triage/3`.
        run_id: The MLflow run that logged it.
        checksum: SHA-256 over the model's files, hex.
        source: Where the weights or the training data came from, in words or as a URL.
        licence: SPDX identifier of the weights' licence.
        created_at: When it was registered.
        metrics: Evaluation metrics that were logged with it.
        tags: The registry's tags.
    """

    name: str
    version: str
    flavor: Flavor
    uri: str
    run_id: str
    checksum: str
    source: str
    licence: str
    created_at: datetime
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def ref(self) -> str:
        """`name/version`, as it is written in logs, cards and records."""
        return f"{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Model files that somebody has: where they are, and, if known, where they come from and under which licence."""

    path: Path
    source: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Package:
    """Model files as the registry keeps them, what in them could run code when loaded, and whether the model chats."""

    path: Path
    flavor: Flavor
    risks: tuple[str, ...] = ()
    chats: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """Somebody's word for files that can run code when they are loaded; kept in the state, where the registry's writers
    don't reach.

    Attributes:
        id: The files' checksum.
        by: Who answers for them.
        reason: Why.
        at: Since when.
    """

    id: str
    by: str
    reason: str
    at: datetime
