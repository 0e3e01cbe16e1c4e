"""Gates and verdicts: nothing reaches traffic without a stored verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What one gate found, with every number it looked at.

    Attributes:
        gate: Name of the gate.
        passed: A gate that could not run has not passed.
        summary: One sentence for a person: why it passed or not.
        numbers: What was measured.
        thresholds: What it was measured against.
        facts: What is no number: checksums, names.
    """

    gate: str
    passed: bool
    summary: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The decision about one candidate: all gates passed, or somebody overrode them by name.

    Attributes:
        id: Identity; a `Target` can't be built without it.
        endpoint: Endpoint it is about.
        model: Candidate's registered model.
        version: Candidate's version.
        champion: `model/version` it was compared with, empty for a first version.
        decided_at: When.
        policy_hash: Policy that the gates enforced.
        results: One for each gate.
        override_by: Person who overrode failed gates, empty if nobody did.
        override_reason: Why.
        needs_approval: Whether the policy asked people for the last word; their `Approval` says what it was.
    """

    id: str
    endpoint: str
    model: str
    version: str
    champion: str
    decided_at: datetime
    policy_hash: str
    results: tuple[GateResult, ...]
    override_by: str = ""
    override_reason: str = ""
    needs_approval: bool = False

    @property
    def ref(self) -> str:
        """`model/version` of the candidate."""
        return f"{self.model}/{self.version}"

    @property
    def passed(self) -> bool:
        """Whether the gates let the candidate pass, or somebody overrode them: no gates at all is not a pass."""
        return bool(self.override_by and self.override_reason) or (
            bool(self.results) and all(r.passed for r in self.results)
        )

    @property
    def reasons(self) -> tuple[str, ...]:
        """The failed gates' sentences."""
        return tuple(f"{r.gate}: {r.summary}" for r in self.results if not r.passed)
