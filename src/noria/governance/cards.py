"""Writes a version's card and keeps it beside the version: at registration, and again when it becomes champion."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from noria.domain.errors import NoriaError
from noria.domain.events import VersionPromoted
from noria.domain.gate import Verdict
from noria.domain.model import Flavor, ModelVersion
from noria.domain.run import Run
from noria.governance.card import FILE_NAME, Evidence
from noria.ports import Clock, ModelRegistry, StateStore, Steps
from noria.settings import Policy, Project

FOLDER = "card"
"""Artefact folder of a version that holds its card and the evidence it was written from."""
_EVIDENCE = "evidence.json"
_ENVIRONMENT = {
    Flavor.PYFUNC: ("noria", "mlflow", "scikit-learn", "skops", "numpy"),
    Flavor.GGUF: ("noria", "xllamacpp"),
    Flavor.PROMPT: ("noria", "xllamacpp"),
    Flavor.COMMAND: ("noria",),
    Flavor.EXTERNAL: ("noria",),
}


@dataclass(frozen=True, slots=True)
class Cards:
    """Writes cards.

    Attributes:
        state: Verdicts and runs.
        registry: Where cards lie.
        clock: For the date on the card.
        project: The project in service.
        policy: Endpoint → its policy and the policy's hash.
    """

    state: StateStore
    registry: ModelRegistry
    clock: Clock
    project: Project
    policy: Callable[[str], tuple[Policy, str]]

    def write(
        self, endpoint: str, version: ModelVersion, run: Run | None = None, evidence: Mapping[str, Any] | None = None
    ) -> None:
        """Write the card of a version.

        Args:
            endpoint: Endpoint that the version is for.
            version: The version.
            run: The run that made it, if one did.
            evidence: `data` and `metrics` (names → numbers) and `fairness` (rows of groups), as far as there are any.
        """
        known = dict(evidence or {})
        card = self._evidence(endpoint, version, run, known).to_markdown()
        files = {FILE_NAME: card.encode(), _EVIDENCE: json.dumps(known, indent=2).encode()}
        self.registry.attach(version, files, FOLDER)

    def refresh(self, event: VersionPromoted, step: Steps) -> None:
        """Write the champion's card again, now that its verdict is known."""
        step("write the card", self._refresh, event)

    def _refresh(self, event: VersionPromoted) -> None:
        version = self.registry.version(event.model, event.version)
        run = next((r for r in self.state.find(Run, endpoint=event.endpoint) if r.version == event.version), None)
        self.write(event.endpoint, version, run, self._kept(version))

    def _kept(self, version: ModelVersion) -> dict[str, Any]:
        """The evidence that the card was written from before; none if it had no card."""
        try:
            kept: dict[str, Any] = json.loads((self.registry.download(version, FOLDER) / _EVIDENCE).read_bytes())
        except (NoriaError, FileNotFoundError):
            return {}
        return kept

    def _evidence(self, endpoint: str, version: ModelVersion, run: Run | None, known: Mapping[str, Any]) -> Evidence:
        policy, digest = self.policy(endpoint)
        verdicts = self.state.find(Verdict, endpoint=endpoint)
        return Evidence(
            endpoint=endpoint,
            task=self.project.endpoints[endpoint].task,
            version=version,
            written_at=self.clock.now(),
            run=run,
            data=known.get("data", {}),
            metrics=known.get("metrics", {}),
            fairness=known.get("fairness", ()),
            policy=policy,
            policy_hash=digest,
            verdict=next((v for v in verdicts if (v.model, v.version) == (version.name, version.version)), None),
            environment=_installed(_ENVIRONMENT[version.flavor]),
        )


def _installed(packages: tuple[str, ...]) -> dict[str, str]:
    """Package → version of those that are here."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
