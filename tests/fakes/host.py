"""A model host without processes: what is started is running until it is stopped or `crash`ed."""

from collections.abc import Mapping

from noria.domain.deployment import wire_of
from noria.domain.endpoint import Wire
from noria.domain.errors import UntrustedArtifact
from noria.domain.model import ModelVersion


class MemoryHost:
    """`ports.ModelHost` whose servers answer nothing; refuses versions tagged `fake.broken`."""

    def __init__(self) -> None:
        self.servers: dict[str, str] = {}
        self.starts: list[str] = []
        """Every version that had to be brought up, in order."""

    def start(self, version: ModelVersion) -> str:
        if "fake.broken" in version.tags:
            raise UntrustedArtifact(f"{version.ref} can run code when loaded.", "Tag it noria.trusted=yes.")
        if version.ref not in self.servers:
            self.starts.append(version.ref)
            self.servers[version.ref] = f"unix:/fake/{version.ref}.sock"
        return self.servers[version.ref]

    def running(self) -> Mapping[str, str]:
        return dict(self.servers)

    def stop(self, ref: str) -> None:
        self.servers.pop(ref, None)

    def stop_all(self) -> None:
        self.servers.clear()

    def wire(self, version: ModelVersion) -> Wire:
        return wire_of(version)

    def crash(self, ref: str) -> None:
        """The server of that version dies by itself."""
        del self.servers[ref]
