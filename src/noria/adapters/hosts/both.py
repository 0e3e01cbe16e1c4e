"""Where a project's versions run: on this machine, or elsewhere."""

from collections.abc import Mapping

from noria.adapters.hosts.external import ExternalHost
from noria.adapters.hosts.local import LocalHost
from noria.domain.endpoint import Wire
from noria.domain.model import Flavor, ModelVersion
from noria.ports import ModelHost


class ProjectHost:
    """`ports.ModelHost` for every flavor."""

    def __init__(self, local: LocalHost, external: ExternalHost) -> None:
        self._local = local
        self._external = external

    def wire(self, version: ModelVersion) -> Wire:
        """See `ports.ModelHost`."""
        return self._of(version).wire(version)

    def start(self, version: ModelVersion) -> str:
        """See `ports.ModelHost`."""
        return self._of(version).start(version)

    def running(self) -> Mapping[str, str]:
        """See `ports.ModelHost`."""
        return {**self._external.running(), **self._local.running()}

    def stop(self, ref: str) -> None:
        """See `ports.ModelHost`."""
        self._external.stop(ref)
        self._local.stop(ref)

    def stop_all(self) -> None:
        """See `ports.ModelHost`."""
        self._external.stop_all()
        self._local.stop_all()

    def _of(self, version: ModelVersion) -> ModelHost:
        return self._external if version.flavor is Flavor.EXTERNAL else self._local
