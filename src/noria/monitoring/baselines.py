"""The baselines of model versions, beside the models in the registry.

A trainer leaves one with each version. A version that came without (a GGUF file, an upload) gets one from its first
records, which stays: what comes later is compared with how it began.
"""

from dataclasses import dataclass, field

from noria.domain.endpoint import Role, Target
from noria.domain.errors import UnknownModel
from noria.domain.inference import OutcomeKind
from noria.evaluation.baseline import FILE, Baseline
from noria.evaluation.payloads import inputs, outputs
from noria.ports import ModelRegistry, RecordStore
from noria.settings import Endpoint, Task

FOLDER = "baseline"
_KEPT = 16


@dataclass(frozen=True, slots=True)
class Baselines:
    """Reads and keeps baselines; those in use stay in memory."""

    registry: ModelRegistry
    _known: dict[tuple[str, str], Baseline] = field(default_factory=dict)

    def of(self, model: str, version: str) -> Baseline | None:
        """The baseline of a version; None if it has none.

        Raises:
            StorageCorrupted: It has one that can't be read.
            RegistryUnavailable: The registry can't be asked.
        """
        known = self._known.get((model, version))
        if known is not None:
            return known
        try:
            path = self.registry.download(self.registry.version(model, version), FOLDER) / FILE
            raw = path.read_bytes()
        except (UnknownModel, FileNotFoundError):
            return None
        return self._remember(model, version, Baseline.from_bytes(raw))

    def keep(self, model: str, version: str, baseline: Baseline) -> None:
        """Make it the version's baseline."""
        self.registry.attach(self.registry.version(model, version), {FILE: baseline.to_bytes()}, FOLDER)
        self._remember(model, version, baseline)

    def _remember(self, model: str, version: str, baseline: Baseline) -> Baseline:
        while len(self._known) >= _KEPT:
            self._known.pop(next(iter(self._known)))
        self._known[model, version] = baseline
        return baseline


def first_baseline(records: RecordStore, name: str, endpoint: Endpoint, champion: Target) -> Baseline | None:
    """A baseline from the first records that a version answered; None until there are enough.

    Topics are learnt from every other record and counted on the rest. Nobody promised an accuracy: there is no floor.

    Args:
        records: The tables.
        name: The endpoint's.
        endpoint: Its settings, which say how many records it takes.
        champion: The version.
    """
    wanted = {
        "endpoint": name,
        "model_name": champion.model,
        "model_version": champion.version,
        "outcome": OutcomeKind.ANSWERED.value,
    }
    where = " AND ".join(f"{column} = '{value.replace(chr(39), chr(39) * 2)}'" for column, value in wanted.items())
    enough = endpoint.monitors.baseline_records
    rows = records.query(
        f"SELECT request, response FROM inference WHERE {where} AND route <> '{Role.SHADOW.value}' "  # noqa: S608 - quoted
        f"ORDER BY request_time LIMIT {enough}"
    ).to_pylist()
    if len(rows) < enough:
        return None
    asked = [inputs(row["request"] or "") for row in rows]
    said = [outputs(row["response"] or "") for row in rows]
    learnt = [text for texts in asked[::2] for text in texts]
    counted = [text for texts in asked[1::2] for text in texts]
    classes = [label for labels in said[1::2] for label in labels] if endpoint.task is Task.CLASSIFICATION else None
    return Baseline.fit(learnt, counted, classes) if counted else None
