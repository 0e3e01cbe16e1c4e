"""The seams of models: where versions are kept, and where they run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from noria.domain.endpoint import Wire
from noria.domain.model import Alias, Flavor, ModelVersion


class ModelRegistry(Protocol):
    """Models and their versions (MLflow)."""

    def version(self, name: str, version_or_alias: str) -> ModelVersion:
        """One version, by number or by alias.

        Raises:
            UnknownModel: There is none.
        """
        ...

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, newest first; empty if there is no such model."""
        ...

    def aliases(self, name: str) -> Mapping[str, str]:
        """Alias → version; empty if there is no such model."""
        ...

    def set_alias(self, name: str, alias: Alias, version: str | None) -> None:
        """Point an alias at a version, or remove it."""
        ...

    def register(self, logged_model_uri: str, name: str, tags: Mapping[str, str]) -> ModelVersion:
        """Make a version of what a run logged; the same run is registered once however often this is called."""
        ...

    def register_file(
        self, name: str, path: Path, *, flavor: Flavor, source: str, licence: str, tags: Mapping[str, str]
    ) -> ModelVersion:
        """Upload a model file, or the folder of an MLflow model, as a version; the same checksum is registered once."""
        ...

    def download(self, version: ModelVersion, artifact: str = "") -> Path:
        """A local path of the version's model files, or of an artefact of its run (`baseline`, `card`)."""
        ...

    def attach(self, version: ModelVersion, files: Mapping[str, bytes], folder: str) -> None:
        """Add artefacts (a card, a plot) to the version's run, under that folder."""
        ...

    def log_metrics(self, version: ModelVersion, metrics: Mapping[str, float]) -> None:
        """Add metrics to the version's run."""
        ...

    def abandon(self, run_id: str) -> None:
        """Mark as killed what training for a run of Noria's began and never ended; nothing else is touched."""
        ...


class ModelHost(Protocol):
    """Brings model versions up somewhere and says where they listen."""

    def start(self, version: ModelVersion) -> str:
        """Bring a version up, wait until it answers, and return its URL; one that runs already is adopted."""
        ...

    def running(self) -> Mapping[str, str]:
        """`model/version` → URL of everything that answers now."""
        ...

    def stop(self, ref: str) -> None:
        """Let a version finish what it is doing, then end it."""
        ...

    def stop_all(self) -> None:
        """End everything that this host runs, each after it finished what it is doing."""
        ...

    def wire(self, version: ModelVersion) -> Wire:
        """The protocol that this host serves the version with."""
        ...
