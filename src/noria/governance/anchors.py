"""Roots of the account, made when a day is over, and the account checked against them.

The chain of hashes shows what was changed in the account by anybody who didn't compute all that follows anew. Roots
that are kept elsewhere, or signed with a key that the state's owner doesn't have, show that, too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date

from noria.domain.anchor import Anchor, merkle_root
from noria.domain.audit import GENESIS, AuditEvent, Break
from noria.ports import AnchorStore, Clock, Signer, StateStore


@dataclass(frozen=True, slots=True)
class Anchors:
    """Makes roots."""

    state: StateStore
    store: AnchorStore
    signer: Signer
    clock: Clock

    def due(self) -> Anchor | None:
        """Make the root of what was written until the end of yesterday (UTC); None if nothing was."""
        return self._make(self.clock.now().astimezone(UTC).date())

    def now(self) -> Anchor | None:
        """Make the root of everything that has none yet; None if there is nothing."""
        return self._make(None)

    def _make(self, before: date | None) -> Anchor | None:
        kept = self.store.kept()
        newest = kept[-1] if kept else None
        events = list(self._events(newest.last if newest else 0, before))
        if not events:
            return None
        anchor = self.signer.sign(
            Anchor(
                id=f"{len(kept) + 1:06d}",
                at=self.clock.now(),
                first=events[0].sequence,
                last=events[-1].sequence,
                root=merkle_root([event.hash for event in events]),
                head=events[-1].hash,
                previous=newest.digest if newest else GENESIS,
            )
        )
        self.store.keep(anchor)
        return anchor

    def _events(self, after: int, before: date | None) -> Iterator[AuditEvent]:
        """Events without a root; up to the first of a day that isn't over."""
        for event in self.state.audit_trail(after=after):
            if before is not None and event.at.astimezone(UTC).date() >= before:
                return
            yield event


def against(state: StateStore, anchors: Sequence[Anchor], signer: Signer, key: str = "") -> Break | None:
    """The first place where the account isn't what its roots say it was; None if it is.

    Args:
        state: The account.
        anchors: The roots, in order, from where they were kept.
        signer: Checks signatures.
        key: Public key that every root must be signed with, base64; empty if any will do.
    """
    before: Anchor | None = None
    for number, anchor in enumerate(anchors, 1):
        if (problem := _unsound(anchor, before, number, signer, key)) is not None:
            return Break(anchor.first, problem)
        events = list(state.audit_trail(after=anchor.first - 1, limit=anchor.last - anchor.first + 1))
        if (problem := _other(anchor, events)) is not None:
            return Break(anchor.first, problem)
        before = anchor
    return None


def _unsound(anchor: Anchor, before: Anchor | None, number: int, signer: Signer, key: str) -> str | None:
    """What is wrong with a root itself."""
    if anchor.id != f"{number:06d}" or anchor.first != (before.last + 1 if before else 1):
        return f"the root before {anchor.id} is missing"
    if anchor.previous != (before.digest if before else GENESIS):
        return f"root {anchor.id} does not follow the root before it"
    if key and anchor.key != key:
        return f"root {anchor.id} is not signed with the key that was asked for"
    if anchor.key and not signer.sound(anchor):
        return f"the signature of root {anchor.id} is not sound: the root was altered"
    return None


def _other(anchor: Anchor, events: Sequence[AuditEvent]) -> str | None:
    """Why events aren't those that a root was made of."""
    which = f"events {anchor.first} to {anchor.last}"
    if len(events) != anchor.last - anchor.first + 1:
        return f"of {which}, which root {anchor.id} holds, {anchor.last - anchor.first + 1 - len(events)} are missing"
    if merkle_root([event.hash for event in events]) != anchor.root or events[-1].hash != anchor.head:
        return f"{which} are not those that root {anchor.id} was made of on {anchor.at:%Y-%m-%d}"
    return None
