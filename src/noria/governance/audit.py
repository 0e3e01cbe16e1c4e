"""Whether the account is whole: every event there, none altered, none slipped in, none cut off at the end."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from noria.domain.audit import AuditEvent, AuditHead, Break, broken_at
from noria.domain.errors import StorageCorrupted
from noria.ports import StateStore


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What a check of the chain found.

    Attributes:
        events: Events that were read.
        verified: Whether the chain holds from the first event to the newest.
        head: Hash of the newest event: whoever keeps it elsewhere can tell later that nothing before it was changed.
        broken: The first place where the chain doesn't hold.
    """

    events: int
    verified: bool
    head: str
    broken: Break | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        broken = {"sequence": self.broken.sequence, "problem": self.broken.problem} if self.broken else None
        return {"verified": self.verified, "events": self.events, "head": self.head, "broken": broken}


def verify(state: StateStore) -> AuditReport:
    """Check the account from its first event to its newest; changes that are made meanwhile do no harm.

    What no chain of hashes can show is one that somebody computed anew from an altered event on, head included: for
    that, keep `head` where the state's owner can't write.
    """
    head = state.get(AuditHead, AuditHead().id) or AuditHead()
    chain = _Chain()
    broken = chain.read(state.audit_trail(limit=head.sequence)) or chain.end_differs(head) or _slipped_in(state, head)
    return AuditReport(events=chain.events, verified=broken is None, head=head.hash, broken=broken)


def history(state: StateStore, *, subject: str = "", newest: int = 100) -> list[AuditEvent]:
    """The newest events, newest first; with a subject, those about it (`triage/3`, `triage`)."""
    trail = [event for event in state.audit_trail() if subject in ("", event.subject, event.evidence.get("endpoint"))]
    return trail[::-1][:newest]


def sentence(event: AuditEvent) -> str:
    """An event as one line for a person."""
    why = f": {event.reason}" if event.reason else ""
    return f"{event.sequence} {event.at:%Y-%m-%d %H:%M:%S} {event.actor} {event.action} {event.subject}{why}"


class _Chain:
    """Counts the events that a check reads, and remembers the last."""

    def __init__(self) -> None:
        self.events = 0
        self.last = AuditHead()

    def read(self, trail: Iterator[AuditEvent]) -> Break | None:
        """The first break of the trail."""
        try:
            return broken_at(self._noting(trail))
        except StorageCorrupted as error:
            return Break(self.last.sequence + 1, f"event {self.last.sequence + 1} can't be read: {error.problem}")

    def end_differs(self, head: AuditHead) -> Break | None:
        """Whether the trail ends with another event than the state says is the newest."""
        if self.last.sequence < head.sequence:
            return Break(self.last.sequence + 1, f"event {self.last.sequence + 1} and all after it are missing")
        if self.last.hash != head.hash:
            return Break(head.sequence, f"event {head.sequence} is not the one that was written")
        return None

    def _noting(self, trail: Iterator[AuditEvent]) -> Iterator[AuditEvent]:
        for event in trail:
            self.events += 1
            yield event
            self.last = AuditHead(sequence=event.sequence, hash=event.hash)


def _slipped_in(state: StateStore, head: AuditHead) -> Break | None:
    """An event behind the newest one, without a change that wrote it."""
    extra = next(iter(state.audit_trail(after=head.sequence, limit=1)), None)
    if extra is None or (state.get(AuditHead, head.id) or AuditHead()).sequence > head.sequence:
        return None
    return Break(extra.sequence, f"event {extra.sequence} was added by something else than a change")
