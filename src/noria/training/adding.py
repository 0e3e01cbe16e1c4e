"""Adding a version by hand: a file, a folder, a repository of the Hub, a version of the registry, a model elsewhere."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from noria.domain.deployment import WIRE, wire_of
from noria.domain.endpoint import Wire
from noria.domain.errors import InvalidData, Refused, UnknownEndpoint, UntrustedArtifact
from noria.domain.events import CandidateRegistered
from noria.domain.gate import Verdict
from noria.domain.model import Flavor, ModelVersion, Origin, Package, Trusted
from noria.ports import Clock, ModelRegistry, StateStore
from noria.settings import Deployment, Endpoint, Project, Task, UpstreamKind
from noria.training.first import FirstVersions, gguf_tags

AZURE = "azure_openai"
"""What stands for the project's one upstream of kind azure."""
REGISTRY = "models:/"
HUB = "hf:"
TRUSTED = "noria.trusted"
"""Tag of a version that somebody answers for; what counts is the state's own record of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What somebody wants to add.

    Attributes:
        endpoint: Endpoint that it is for.
        what: PATH, `hf:OWNER/REPO[@REVISION]`, `models:/NAME/VERSION`, or `UPSTREAM:MODEL`.
        licence: SPDX identifier; empty for what its source says.
        source: Where it comes from; empty for what its source says.
        by: Who adds it.
        reason: Why.
        trust: Whether that person answers for files that can run code.
    """

    endpoint: str
    what: str
    licence: str = ""
    source: str = ""
    by: str = ""
    reason: str = ""
    trust: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Additions:
    """Adds versions.

    Attributes:
        state: Where the addition is written down.
        registry: Where the version is kept.
        clock: Tells two proposals of one version apart.
        project: The project in service.
        first: Registers models elsewhere.
        prepare: Files as somebody has them, and an empty folder → files as the registry takes them.
        fetch: A reference to the Hub, and a folder → files in it.
        write_card: Writes the version's model card.
    """

    state: StateStore
    registry: ModelRegistry
    clock: Clock
    project: Project
    first: FirstVersions
    prepare: Callable[[Path, Path], Package]
    fetch: Callable[[str, Path], Origin]
    write_card: Callable[[str, ModelVersion], None]

    def add(self, wanted: Wanted) -> ModelVersion:
        """Register a version and hand it to the gates; one that is there already is proposed once more.

        Raises:
            InvalidData: It is nothing that can be served.
            UntrustedArtifact: Loading it could run code, and nobody answers for it.
            Refused: A licence, a source or a name is missing, or the endpoint can't serve it.
        """
        endpoint = self.project.endpoints.get(wanted.endpoint)
        if endpoint is None:
            raise UnknownEndpoint(f"This project has no endpoint {wanted.endpoint}.", "See noria status.")
        with tempfile.TemporaryDirectory() as scratch:
            version = self._register(wanted, endpoint, Path(scratch))
        self.write_card(wanted.endpoint, version)
        self._propose(wanted, version)
        return version

    def _register(self, wanted: Wanted, endpoint: Endpoint, scratch: Path) -> ModelVersion:
        model = self.project.model_name(wanted.endpoint)
        if wanted.what.startswith(REGISTRY):
            name, _, version = wanted.what.removeprefix(REGISTRY).replace("@", "/").rpartition("/")
            if not name or not version:
                raise InvalidData(f"{wanted.what} names no version.", "Write models:/NAME/VERSION.")
            found = self.registry.version(name, version)
            if name == model:
                _demand_fit(wanted, endpoint, wire_of(found))
                return found
            origin = Origin(self.registry.download(found), wanted.what, found.licence)
        elif wanted.what.startswith(HUB):
            origin = self.fetch(wanted.what, scratch / "fetched")
        elif (deployment := self._deployment(wanted)) is not None:
            return self.first.register_external(model, deployment, endpoint.task)
        else:
            origin = Origin(Path(wanted.what))
        return self._register_files(wanted, endpoint, model, origin, scratch / "prepared")

    def _register_files(
        self, wanted: Wanted, endpoint: Endpoint, model: str, origin: Origin, scratch: Path
    ) -> ModelVersion:
        scratch.mkdir()
        package = self.prepare(origin.path, scratch)
        wire = Wire.OPENAI if package.chats else Wire.MLFLOW
        _demand_fit(wanted, endpoint, wire)
        licence, source = wanted.licence or origin.licence, wanted.source or origin.source
        if not licence or not source:
            missing = "licence is" if not licence else "source is"
            raise Refused(f"Its {missing} not said anywhere.", "Say --licence SPDX and --source TEXT.")
        tags = {"noria.endpoint": wanted.endpoint, WIRE: wire.value}
        if package.flavor is Flavor.GGUF and endpoint.gguf is not None:
            tags |= gguf_tags(endpoint.gguf)
        return self.registry.register_file(
            model,
            package.path,
            flavor=package.flavor,
            source=source,
            licence=licence,
            tags=tags | _trust(wanted, package),
        )

    def _deployment(self, wanted: Wanted) -> Deployment | None:
        """The model elsewhere that is meant; None if it is a path."""
        name, colon, model = wanted.what.partition(":")
        if Path(wanted.what).exists() or not colon or not model:
            return None
        if name == AZURE and name not in self.project.upstreams:
            azure = [each for each, known in self.project.upstreams.items() if known.kind is UpstreamKind.AZURE]
            if len(azure) != 1:
                raise InvalidData(f"The project has {len(azure)} upstreams of kind azure.", "Write UPSTREAM:MODEL.")
            name = azure[0]
        if name not in self.project.upstreams:
            known = ", ".join(self.project.upstreams) or "none"
            raise InvalidData(
                f"{wanted.what} is neither a path nor a model of one of the project's upstreams ({known}).",
                "Write it under upstreams: in noria.yaml first; nothing else says where requests go.",
            )
        known_as = {"licence": wanted.licence} if wanted.licence else {}
        return Deployment(upstream=name, model=model, source=wanted.source, **known_as)

    def _propose(self, wanted: Wanted, version: ModelVersion) -> None:
        judged = self.state.find(Verdict, endpoint=wanted.endpoint)
        before = any((v.model, v.version) == (version.name, version.version) for v in judged)
        again = f"{self.clock.now():%Y%m%dT%H%M%S}" if before else ""
        event = CandidateRegistered(endpoint=wanted.endpoint, model=version.name, version=version.version, again=again)
        evidence = {
            "checksum": version.checksum,
            "licence": version.licence,
            "source": version.source,
            "what": wanted.what,
            "trusted": wanted.trust,
        }
        with self.state.change(
            wanted.by, "version.registered", version.ref, reason=wanted.reason, evidence=evidence
        ) as change:
            if version.tags.get(TRUSTED) == "yes" and wanted.trust:
                word = Trusted(id=version.checksum, by=wanted.by, reason=wanted.reason, at=self.clock.now())
                change.put(word)
            change.emit(event)


def _demand_fit(wanted: Wanted, endpoint: Endpoint, wire: Wire) -> None:
    """See that what is added can do what the endpoint does.

    Raises:
        Refused: It can't.
    """
    if (endpoint.task is Task.CLASSIFICATION) != (wire is Wire.MLFLOW):
        is_, asked = ("predicts", "chats") if wire is Wire.MLFLOW else ("chats", "predicts")
        raise Refused(f"{wanted.what} {is_}, but {wanted.endpoint} {asked}.", "Add it to an endpoint of its kind.")


def _trust(wanted: Wanted, package: Package) -> dict[str, str]:
    """The tags that say who answers for files that can run code.

    Raises:
        UntrustedArtifact: Nobody does.
        Refused: Somebody does, without a name or a reason.
    """
    if not package.risks:
        return {}
    if not wanted.trust:
        raise UntrustedArtifact(
            f"Loading it can run code: {', '.join(package.risks)[:300]}.",
            "Save it as skops, ONNX or safetensors; or, if you know where it comes from, say "
            "--trust --by NAME --reason TEXT (it is tagged noria.trusted=yes and stays on the audit trail).",
        )
    if not wanted.by.strip() or not wanted.reason.strip():
        raise Refused("Trust is a person's, and has a reason.", "Say --by NAME and --reason TEXT.")
    return {TRUSTED: "yes", "noria.trusted_by": wanted.by.strip()}
