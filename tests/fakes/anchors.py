"""Roots of the account in memory, signed with a sum that anybody could make."""

import hashlib

from noria.domain.errors import StorageCorrupted


class MemoryAnchors:
    """Implements ports.AnchorStore."""

    def __init__(self):
        self.roots = {}

    def keep(self, anchor):
        if self.roots.setdefault(anchor.id, anchor) != anchor:
            raise StorageCorrupted("Another root is kept.", "Find out who wrote it.")

    def kept(self):
        return [self.roots[name] for name in sorted(self.roots)]


class FakeSigner:
    """Implements ports.Signer."""

    def __init__(self, key="key"):
        self.key = key

    def sign(self, anchor):
        return anchor.signed(self.key, self._of(self.key, anchor)) if self.key else anchor

    def sound(self, anchor):
        return bool(anchor.key) and anchor.signature == self._of(anchor.key, anchor)

    def _of(self, key, anchor):
        return hashlib.sha256((key + anchor.digest).encode()).hexdigest()
