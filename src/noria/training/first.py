"""Every endpoint gets its versions: the first one, and again whenever the project file names another.

A version is trained, taken over from the registry, uploaded from a file, or written down as a command or as a model
elsewhere; the gates decide about each like about any other.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from noria.domain.audit import LOOP
from noria.domain.deployment import CommandLine, ExternalModel
from noria.domain.endpoint import Route, Wire
from noria.domain.events import CandidateRegistered, RetrainRequested
from noria.domain.model import Alias, Flavor, ModelVersion
from noria.domain.run import Run
from noria.ports import Clock, ModelRegistry, StateStore
from noria.settings import Command, Deployment, Endpoint, GgufModel, Project, Task

LOOK_S = 30.0
"""Pause between two looks at where an alias of the registry points, in seconds."""


def gguf_tags(gguf: GgufModel) -> dict[str, str]:
    """How a model file is to be served, as the tags that its host reads."""
    options = {"context": gguf.context, "threads": gguf.threads, "slots": gguf.slots}
    return {f"noria.gguf.{key}": str(value) for key, value in options.items()}


def external_model(deployment: Deployment, task: Task) -> ExternalModel:
    """The model that a deployment names, and the protocol that its task is asked with."""
    wire = Wire.MLFLOW if task is Task.CLASSIFICATION else Wire.OPENAI
    return ExternalModel(upstream=deployment.upstream, model=deployment.model, wire=wire)


def command_line(endpoint: str, command: Command, model: str) -> CommandLine:
    """The command of an endpoint; `model` is the registered model's name, which it goes by if it says no other."""
    return CommandLine(
        endpoint=endpoint,
        run=command.run,
        wire=Wire(command.wire),
        model=command.model or model,
        health=command.health,
        start_timeout_s=command.start_timeout.total_seconds(),
        environment=dict(command.environment),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """What an endpoint without a version was given: `id` is the candidate's event, or `first-run:` and the endpoint."""

    id: str
    endpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What the project file named last for an endpoint, as a digest, and the version that it was."""

    endpoint: str
    digest: str
    ref: str


@dataclass(frozen=True, slots=True)
class FirstVersions:
    """Gives an endpoint its first candidate, and another when the project file names another."""

    state: StateStore
    registry: ModelRegistry
    clock: Clock
    resolve_gguf: Callable[[str], Path]
    """`gguf:` of the project file → the file."""
    write_card: Callable[[str, ModelVersion], None]
    """Writes the model card of an endpoint's version, which its gates will ask for."""
    demand_key: Callable[[str], None]
    """Raises NoCredentials if an upstream couldn't be asked, so that nothing is judged for want of a key."""
    _seen: dict[str, float] = field(default_factory=dict)
    """Endpoint → when what it names was looked at last."""

    def ensure(self, project: Project) -> None:
        """Ask for what is missing; what was proposed already is left alone."""
        for name, endpoint in project.endpoints.items():
            model, route = project.model_name(name), self.state.get(Route, name)
            if endpoint.training is None and self._due(name, endpoint, route):
                self._follow(model, name, endpoint, route)
                self._seen[name] = time.monotonic()
            elif endpoint.training is not None and route is None:
                self._first_trained(model, name)

    # --- what Noria trains --------------------------------------------------------------------------------------------

    def _first_trained(self, model: str, name: str) -> None:
        champion = self._champion(model)
        if champion is None:
            self._ask_for_a_run(name)
        else:
            self._propose(name, champion, "the endpoint has no version yet")

    def _ask_for_a_run(self, endpoint: str) -> None:
        """Once: a first run that failed is a person's business."""
        asked = Proposed(id=f"first-run:{endpoint}", endpoint=endpoint)
        if self.state.get(Proposed, asked.id) is None and not self.state.find(Run, endpoint=endpoint, limit=1):
            reason = "the endpoint has no version yet"
            with self.state.note() as note:
                note.put(asked)
                note.emit(RetrainRequested(endpoint=endpoint, actor=LOOP, reason=reason, at=self.clock.now()))

    def _champion(self, model: str) -> ModelVersion | None:
        champion = self.registry.aliases(model).get(Alias.CHAMPION)
        return None if champion is None else self.registry.version(model, champion)

    # --- what the project file names ----------------------------------------------------------------------------------

    def _due(self, name: str, endpoint: Endpoint, route: Route | None) -> bool:
        """Whether to look: once for each project in service, and now and then where an alias may move."""
        seen = self._seen.get(name)
        if seen is None or (route is None and self.state.get(Declared, name) is None):
            return True
        moves = endpoint.registered is not None and not endpoint.registered.version.isdigit()
        return moves and time.monotonic() - seen > LOOK_S

    def _follow(self, model: str, name: str, endpoint: Endpoint, route: Route | None) -> None:
        """Propose the version that the project file names, unless it is what it named before."""
        digest, told = self._digest(model, endpoint), self.state.get(Declared, name)
        if told is not None and told.digest == digest:
            return
        if told is None and route is not None and endpoint.gguf is not None:  # from before this was written down
            with self.state.note() as note:
                note.put(Declared(endpoint=name, digest=digest, ref=""))
            return
        adopted = told is None and route is None and endpoint.gguf is not None
        version = (self._champion(model) if adopted else None) or self._named(model, name, endpoint)
        serves = route is not None and route.champion.ref == version.ref
        if serves or (told is not None and told.ref == version.ref):
            with self.state.note() as note:
                note.put(Declared(endpoint=name, digest=digest, ref=version.ref))
            return
        reason = "the endpoint has no version yet" if route is None else "noria.yaml names another version"
        self._propose(name, version, reason, Declared(endpoint=name, digest=digest, ref=version.ref))

    def _digest(self, model: str, endpoint: Endpoint) -> str:
        """Of what the project file names; of the version itself where it names a place that moves."""
        if endpoint.registered is not None:
            return self.registry.version(model, endpoint.registered.version).ref
        named = endpoint.gguf or endpoint.command or endpoint.deployment
        return sha256(named.model_dump_json().encode()).hexdigest() if named is not None else ""

    def _named(self, model: str, name: str, endpoint: Endpoint) -> ModelVersion:
        """The version that the project file names, registered if it isn't yet."""
        if endpoint.registered is not None:
            return self.registry.version(model, endpoint.registered.version)
        if endpoint.gguf is not None:
            return self._upload(model, endpoint.gguf)
        if endpoint.command is not None:
            return self._command(model, name, endpoint.command)
        assert endpoint.deployment is not None, "an endpoint has exactly one source"
        return self.register_external(model, endpoint.deployment, endpoint.task)

    def _upload(self, model: str, gguf: GgufModel) -> ModelVersion:
        return self.registry.register_file(
            model,
            self.resolve_gguf(gguf.gguf),
            flavor=Flavor.GGUF,
            source=gguf.source,
            licence=gguf.licence,
            tags=gguf_tags(gguf),
        )

    def _command(self, model: str, name: str, command: Command) -> ModelVersion:
        """Write a command down, in the registry and in the state, which is what its host goes by."""
        line = command_line(name, command, model)
        version = _register(self.registry, model, Flavor.COMMAND, line, command.source, command.licence)
        if self.state.get(CommandLine, line.id) is None:
            with self.state.change(LOOP, "command.declared", version.ref, reason="noria.yaml names it") as change:
                change.put(line)
        return version

    def register_external(self, model: str, deployment: Deployment, task: Task) -> ModelVersion:
        """The version that stands for a model elsewhere.

        Raises:
            NoCredentials: Its upstream couldn't be asked.
        """
        self.demand_key(deployment.upstream)
        named = external_model(deployment, task)
        source = deployment.source or f"{deployment.upstream}:{deployment.model}"
        return _register(self.registry, model, Flavor.EXTERNAL, named, source, deployment.licence)

    def _propose(self, endpoint: str, version: ModelVersion, reason: str, declared: Declared | None = None) -> None:
        """Hand a version to the gates, once: while they decide, and after they refused it, nothing is told again.

        One that was proposed before, and that the project file names anew, is proposed once more.
        """
        event = CandidateRegistered(endpoint=endpoint, model=version.name, version=version.version)
        if self.state.get(Proposed, event.id) is not None:
            if declared is None or self.state.get(Declared, endpoint) is None:
                return
            again = f"{self.clock.now():%Y%m%dT%H%M%S}"
            event = CandidateRegistered(endpoint=endpoint, model=version.name, version=version.version, again=again)
        self.write_card(endpoint, version)
        with self.state.change(LOOP, "candidate.proposed", version.ref, reason=reason) as change:
            change.put(Proposed(id=event.id, endpoint=endpoint))
            if declared is not None:
                change.put(declared)
            change.emit(event)


def _register(
    registry: ModelRegistry, model: str, flavor: Flavor, named: CommandLine | ExternalModel, source: str, licence: str
) -> ModelVersion:
    """A version whose artefact is a document."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{flavor.value}.json"
        file.write_bytes(named.document)
        return registry.register_file(model, file, flavor=flavor, source=source, licence=licence, tags=named.tags)
