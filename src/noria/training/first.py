"""Every endpoint gets a first version: trained, taken over from the registry, or uploaded from a file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from noria.domain.endpoint import Route
from noria.domain.events import CandidateRegistered, RetrainRequested
from noria.domain.model import Alias, Flavor, ModelVersion
from noria.domain.run import Run
from noria.ports import Clock, ModelRegistry, StateStore
from noria.settings import Endpoint, GgufModel, Project

ACTOR = "noria"
"""Who asks for a first version."""


def gguf_tags(gguf: GgufModel) -> dict[str, str]:
    """How a model file is to be served, as the tags that its host reads."""
    options = {"context": gguf.context, "threads": gguf.threads, "slots": gguf.slots}
    return {f"noria.gguf.{key}": str(value) for key, value in options.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """What an endpoint without a version was given: `id` is the candidate's event, or `first-run:` and the endpoint."""

    id: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class FirstVersions:
    """Gives an endpoint without a route its first candidate; the gates decide about it like about any other."""

    state: StateStore
    registry: ModelRegistry
    clock: Clock
    resolve_gguf: Callable[[str], Path]
    """`gguf:` of the project file → the file."""
    write_card: Callable[[str, ModelVersion], None]
    """Writes the model card of an endpoint's version, which its gates will ask for."""

    def ensure(self, project: Project) -> None:
        """Ask for what is missing; an endpoint that has a candidate or a run already is left alone."""
        for name, endpoint in project.endpoints.items():
            if self.state.get(Route, name) is None:
                self._ensure_one(project.model_name(name), name, endpoint)

    def _ensure_one(self, model: str, name: str, endpoint: Endpoint) -> None:
        champion = self._champion(model)
        if champion is not None:
            self._propose(name, champion)
        elif endpoint.gguf is not None:
            self._propose(name, self._upload(model, endpoint.gguf))
        else:
            self._ask_for_a_run(name)

    def _ask_for_a_run(self, endpoint: str) -> None:
        """Once: a first run that failed is a person's business."""
        asked = Proposed(id=f"first-run:{endpoint}", endpoint=endpoint)
        if self.state.get(Proposed, asked.id) is None and not self.state.find(Run, endpoint=endpoint, limit=1):
            reason = "the endpoint has no version yet"
            with self.state.note() as note:
                note.put(asked)
                note.emit(RetrainRequested(endpoint=endpoint, actor=ACTOR, reason=reason, at=self.clock.now()))

    def _champion(self, model: str) -> ModelVersion | None:
        champion = self.registry.aliases(model).get(Alias.CHAMPION)
        return None if champion is None else self.registry.version(model, champion)

    def _upload(self, model: str, gguf: GgufModel) -> ModelVersion:
        return self.registry.register_file(
            model,
            self.resolve_gguf(gguf.gguf),
            flavor=Flavor.GGUF,
            source=gguf.source,
            licence=gguf.licence,
            tags=gguf_tags(gguf),
        )

    def _propose(self, endpoint: str, version: ModelVersion) -> None:
        """Hand a version to the gates, once: while they decide, and after they refused it, nothing is told again."""
        event = CandidateRegistered(endpoint=endpoint, model=version.name, version=version.version)
        if self.state.get(Proposed, event.id) is None:
            self.write_card(endpoint, version)
            with self.state.change(
                ACTOR, "candidate.proposed", version.ref, reason="the endpoint has no version yet"
            ) as change:
                change.put(Proposed(id=event.id, endpoint=endpoint))
                change.emit(event)
