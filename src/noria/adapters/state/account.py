"""The audit chain's entries, as every database keeps them: drafted, laid out in columns, and read back."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import msgspec

from noria.domain.audit import AuditEvent
from noria.domain.errors import StorageCorrupted

AUDIT = ("sequence", "at", "actor", "action", "subject", "reason", "evidence", "previous_hash", "hash")
"""The columns of the account, in the order of an AuditEvent's fields."""
_PAGE = 500


def drafted(
    at: datetime, actor: str, action: str, subject: str, reason: str, evidence: Mapping[str, object] | None
) -> AuditEvent:
    """An entry that has no place in the chain yet; its evidence is as it will be read back and hashed."""
    told = msgspec.json.decode(msgspec.json.encode(evidence or {}))
    return AuditEvent(sequence=0, at=at, actor=actor, action=action, subject=subject, reason=reason, evidence=told)


def columns_of(entry: AuditEvent) -> dict[str, Any]:
    """An entry as it is stored."""
    return asdict(entry) | {"at": entry.at.isoformat(), "evidence": json.dumps(entry.evidence)}


def audited(
    page: Callable[[int, int], Sequence[Mapping[str, Any]]], after: int, limit: int | None
) -> Iterator[AuditEvent]:
    """Entries of the account in order, read a page at a time.

    Args:
        page: A sequence number and how many → the columns of the entries that follow it.
        after: Sequence number that they begin after.
        limit: How many at most; None for all.
    """
    left = limit
    while left is None or left > 0:
        size = _PAGE if left is None else min(left, _PAGE)
        rows = page(after, size)
        for row in rows:
            yield _audit_event(row)
        if len(rows) < size:
            return
        after = rows[-1]["sequence"]
        left = None if left is None else left - size


def _audit_event(fields: Mapping[str, Any]) -> AuditEvent:
    """An entry of the account, from its columns.

    Raises:
        StorageCorrupted: It can't be read back.
    """
    try:
        at, evidence = datetime.fromisoformat(fields["at"]), json.loads(fields["evidence"])
    except ValueError as error:
        raise StorageCorrupted(
            f"Audit event {fields['sequence']} can't be read: {error}.", "Restore the state from a backup."
        ) from error
    return AuditEvent(**{**fields, "at": at, "evidence": evidence})
