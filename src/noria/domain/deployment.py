"""Versions without weights of their own: a model that is served elsewhere, and a command that serves one.

Each is written down as a small JSON document, which is the version's artefact; its SHA-256 is the version's checksum.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from noria.domain.endpoint import Wire
from noria.domain.model import Flavor, ModelVersion

WIRE = "noria.wire"
UPSTREAM = "noria.upstream"
MODEL = "noria.model"
"""Tags of such versions: the protocol, and for a model elsewhere the upstream and what it calls the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalModel:
    """A model that one of the project's upstreams serves.

    Attributes:
        upstream: Name of the upstream in noria.yaml, which alone says where it is.
        model: What the upstream calls the model.
        wire: The protocol that it is asked with.
    """

    upstream: str
    model: str
    wire: Wire

    @property
    def document(self) -> bytes:
        """The artefact."""
        return _json({"upstream": self.upstream, "model": self.model, "wire": self.wire.value})

    @property
    def tags(self) -> dict[str, str]:
        """The version's tags."""
        return {UPSTREAM: self.upstream, MODEL: self.model, WIRE: self.wire.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """A command of the project file that serves a model on a port. Kept, so that a version whose command was replaced
    can be started again as long as it is needed; what the registry says is never run.

    Attributes:
        endpoint: Endpoint that it was written for.
        run: The command; `{port}` stands for the port.
        wire: The protocol that it speaks.
        model: What it calls the model.
        health: Path that answers 200 once it is ready.
        start_timeout_s: Longest time until then, seconds.
        environment: Variables on top of Noria's own.
    """

    endpoint: str
    run: tuple[str, ...]
    wire: Wire
    model: str
    health: str
    start_timeout_s: float
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The checksum of its document."""
        return sha256(self.document).hexdigest()

    @property
    def document(self) -> bytes:
        """The artefact: variables by their names only, since their values may be secret."""
        values = json.dumps(dict(self.environment), sort_keys=True).encode()
        return _json(
            {
                "run": list(self.run),
                "wire": self.wire.value,
                "model": self.model,
                "health": self.health,
                "start_timeout_s": self.start_timeout_s,
                "environment": sorted(self.environment),
                "environment_sha256": sha256(values).hexdigest() if self.environment else "",
            }
        )

    @property
    def tags(self) -> dict[str, str]:
        """The version's tags."""
        return {MODEL: self.model, WIRE: self.wire.value}

    def arguments(self, port: int) -> list[str]:
        """The command with its port."""
        return [word.replace("{port}", str(port)) for word in self.run]


def wire_of(version: ModelVersion) -> Wire:
    """The protocol that a version is asked with."""
    if version.flavor is Flavor.GGUF:
        return Wire.OPENAI
    default = Wire.MLFLOW if version.flavor in (Flavor.PYFUNC, Flavor.PROMPT) else Wire.OPENAI
    return Wire(version.tags.get(WIRE, default.value))


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False).encode() + b"\n"
