"""The account of who changed what and why: each event carries the hash of the one before.

Deleting, altering, inserting or reordering any event breaks the chain at a place that `broken_at` names.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

GENESIS = "0" * 64
"""The hash before the first event."""
LOOP = "noria"
"""Who acts when the loop acts by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One change of state.

    Attributes:
        sequence: 1, 2, 3, … without gaps.
        at: When.
        actor: Who: a person's name, or `LOOP`.
        action: What, as `noun.verb` (`version.promoted`, `project.applied`).
        subject: On what.
        reason: Why, in words.
        evidence: Ids and numbers that the change rests on; JSON values.
        previous_hash: Hash of the event before.
        hash: SHA-256 over all the fields above, hex.
    """

    sequence: int
    at: datetime
    actor: str
    action: str
    subject: str
    reason: str = ""
    evidence: Mapping[str, object] = field(default_factory=dict)
    previous_hash: str = GENESIS
    hash: str = ""

    def sealed(self) -> "AuditEvent":
        """The event with its hash."""
        return replace(self, hash=self.digest())

    def digest(self) -> str:
        """SHA-256 over the canonical JSON of every field but the hash itself."""
        fields = asdict(self)
        del fields["hash"]
        fields["at"] = self.at.isoformat()
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead:
    """The end of the chain, kept beside it: without it, cutting off the newest events would leave a chain that holds.

    Attributes:
        id: There is one.
        sequence: Of the newest event.
        hash: Of the newest event.
    """

    id: str = "audit"
    sequence: int = 0
    hash: str = GENESIS

    def seal(self, entry: AuditEvent) -> AuditEvent:
        """An entry as the next event of the chain, with its hash."""
        return replace(entry, sequence=self.sequence + 1, previous_hash=self.hash).sealed()


@dataclass(frozen=True, slots=True)
class Break:
    """The first place where the chain doesn't hold."""

    sequence: int
    problem: str


def broken_at(events: Iterable[AuditEvent]) -> Break | None:
    """Find the first break of a chain that should begin with event 1; None if it holds."""
    expected, previous = 1, GENESIS
    for event in events:
        if event.sequence != expected:
            return Break(expected, f"event {expected} is missing; event {event.sequence} stands in its place")
        if event.previous_hash != previous:
            return Break(event.sequence, f"event {event.sequence} does not follow the event before it")
        if event.digest() != event.hash:
            return Break(event.sequence, f"event {event.sequence} was altered")
        expected, previous = expected + 1, event.hash
    return None
