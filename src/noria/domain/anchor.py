"""Roots of the account: what an owner of the database can't compute anew, once somebody else keeps it.

A root is the top of a Merkle tree over the hashes of some events (RFC 6962, section 2.1), with the digest of the root
before. Whoever keeps one elsewhere, or knows that its signature is sound, knows every event below it.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from noria.domain.audit import GENESIS

_LEAF, _NODE = b"\0", b"\1"


def merkle_root(hashes: Sequence[str]) -> str:
    """The top of the tree over hashes of events, hex (RFC 6962, section 2.1: leaves and nodes are told apart).

    Args:
        hashes: SHA-256, hex, in the events' order.
    """
    return _root([hashlib.sha256(_LEAF + bytes.fromhex(each)).digest() for each in hashes]).hex()


def _root(leaves: list[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    left = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(_NODE + _root(leaves[:left]) + _root(leaves[left:])).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """The root of the events of one day, or of what came since the root before.

    Attributes:
        id: `0001`, `0002`, … in order.
        at: When it was made.
        first: Number of the first event below it.
        last: Number of the last one.
        root: `merkle_root` of their hashes.
        head: Hash of the last one.
        previous: Digest of the root before; 64 zeros for the first.
        key: Public key that the signature is checked with, base64; empty if it isn't signed.
        signature: Ed25519 signature of the digest, base64; empty if it isn't signed.
    """

    id: str
    at: datetime
    first: int
    last: int
    root: str
    head: str
    previous: str = GENESIS
    key: str = ""
    signature: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of every field but the signature's two, hex."""
        fields = asdict(self)
        del fields["key"], fields["signature"]
        fields["at"] = self.at.isoformat()
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def signed(self, key: str, signature: str) -> "Anchor":
        """The root with its signature."""
        return replace(self, key=key, signature=signature)
