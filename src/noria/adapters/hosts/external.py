"""Versions that are served elsewhere: nothing is started, only remembered as running, in a note of the run folder."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from noria.adapters.codec import decode, encode
from noria.adapters.upstreams.places import address_of
from noria.domain.deployment import MODEL, UPSTREAM, wire_of
from noria.domain.endpoint import Wire
from noria.domain.errors import StorageCorrupted, UnknownModel, UnknownUpstream
from noria.domain.model import ModelVersion
from noria.settings import Upstream


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What the run folder remembers of a version that is served elsewhere."""

    ref: str
    url: str
    external: bool = True


class ExternalHost:
    """`ports.ModelHost` for models at the project's upstreams.

    Args:
        folder: Where the notes lie.
        upstreams: The upstreams of the project in service.
    """

    def __init__(self, folder: Path, upstreams: Callable[[], Mapping[str, Upstream]]) -> None:
        self._folder = folder
        self._upstreams = upstreams

    def wire(self, version: ModelVersion) -> Wire:
        """See `ports.ModelHost`."""
        return wire_of(version)

    def start(self, version: ModelVersion) -> str:
        """See `ports.ModelHost`: nothing has to be started. Whether it answers is found out by who asks it.

        Raises:
            UnknownUpstream: The version names an upstream that the project doesn't have.
            UnknownModel: It names no upstream, or no model of it.
        """
        upstream, model = version.tags.get(UPSTREAM, ""), version.tags.get(MODEL, "")
        if not upstream or not model or not model.isprintable():
            raise UnknownModel(
                f"{version.ref} doesn't say which model of which upstream it is.",
                "Register it with noria model add ENDPOINT UPSTREAM:MODEL.",
            )
        if upstream not in self._upstreams():
            raise UnknownUpstream(
                f"{version.ref} names the upstream {upstream[:64]!r}, which this project doesn't have.",
                "Write it under upstreams: in noria.yaml; a registration alone never says where requests go.",
            )
        note = Elsewhere(version.ref, address_of(upstream, model))
        self._folder.mkdir(parents=True, exist_ok=True)
        half = self._file(version.ref).with_suffix(".new")
        half.write_text(encode(note))
        half.replace(self._file(version.ref))
        return note.url

    def running(self) -> Mapping[str, str]:
        """See `ports.ModelHost`: everything that was started and whose upstream the project still has."""
        known = self._upstreams()
        prefixes = tuple(address_of(name, "") for name in known)
        return {note.ref: note.url for note in self._notes() if note.url.startswith(prefixes)}

    def stop(self, ref: str) -> None:
        """See `ports.ModelHost`."""
        self._file(ref).unlink(missing_ok=True)

    def stop_all(self) -> None:
        """See `ports.ModelHost`."""
        for note in list(self._notes()):
            self.stop(note.ref)

    def _file(self, ref: str) -> Path:
        return self._folder / f"{sha256(ref.encode()).hexdigest()[:24]}.json"

    def _notes(self) -> Iterator[Elsewhere]:
        for path in sorted(self._folder.glob("*.json")):
            with suppress(FileNotFoundError, StorageCorrupted):  # removed meanwhile, or not one of ours
                yield decode(Elsewhere, path.read_text())
