"""The seams of the account: who signs its roots, and where they are kept out of its owner's reach."""

from collections.abc import Sequence
from typing import Protocol

from noria.domain.anchor import Anchor


class Signer(Protocol):
    """Signs roots, and says whether a signature is sound."""

    def sign(self, anchor: Anchor) -> Anchor:
        """The root with a signature; as it is, if there is no key to sign with."""
        ...

    def sound(self, anchor: Anchor) -> bool:
        """Whether a signed root's signature is that of its key; an unsigned one has none that could be."""
        ...


class AnchorStore(Protocol):
    """Keeps roots where who can write the state need not be able to."""

    def keep(self, anchor: Anchor) -> None:
        """Write a root down; one that is there is never written over.

        Raises:
            StorageCorrupted: Another root is kept under its id.
            LogUnavailable: It can't be written.
        """
        ...

    def kept(self) -> Sequence[Anchor]:
        """All roots, in order.

        Raises:
            StorageCorrupted: One of them can't be read.
        """
        ...
