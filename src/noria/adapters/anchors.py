"""Roots of the account as files in a folder, and Ed25519 signatures (RFC 8032) through `cryptography`."""

import base64
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from noria.adapters.codec import decode, encode
from noria.domain.anchor import Anchor
from noria.domain.errors import InvalidProject, LogUnavailable, StorageCorrupted


class FolderAnchors:
    """`ports.AnchorStore`: one read-only JSON file for each root.

    Args:
        folder: Where; a mount that the state's owner can only add to, if somebody else's word is asked for.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, anchor: Anchor) -> None:
        """See `ports.AnchorStore`."""
        path = self._folder / f"{anchor.id}.json"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._folder, prefix=".", encoding="utf-8", delete=False) as file:
                file.write(encode(anchor) + "\n")
                file.flush()
                os.fsync(file.fileno())
            written = Path(file.name)
            try:
                written.chmod(0o444)
                os.link(written, path)  # never over another one
            finally:
                written.unlink()
        except FileExistsError:
            if _read(path) != anchor:
                raise StorageCorrupted(
                    f"{path} holds another root.", "Move it away, and find out who wrote it: noria audit verify."
                ) from None
        except OSError as error:
            raise LogUnavailable(
                f"The root {path} can't be written: {error.strerror or error}.", "Make audit.anchors writable."
            ) from error

    def kept(self) -> Sequence[Anchor]:
        """See `ports.AnchorStore`."""
        return [_read(path) for path in sorted(self._folder.glob("[0-9]*.json"))]


def _read(path: Path) -> Anchor:
    try:
        return decode(Anchor, path.read_bytes())
    except OSError as error:
        raise StorageCorrupted(f"The root {path} can't be read: {error.strerror or error}.") from error


class Ed25519Signer:
    """`ports.Signer`.

    Args:
        key: Private key, base64 of its 32 bytes; empty if nothing is signed.

    Raises:
        InvalidProject: It is no key.
    """

    def __init__(self, key: str = "") -> None:
        self._key: Ed25519PrivateKey | None = None
        if key:
            try:
                self._key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(key, validate=True))
            except ValueError as error:
                raise InvalidProject(
                    "The key that audit.key names is no Ed25519 key.", "Make one with noria audit key."
                ) from error

    def sign(self, anchor: Anchor) -> Anchor:
        """See `ports.Signer`."""
        if self._key is None:
            return anchor
        public = base64.b64encode(self._key.public_key().public_bytes_raw()).decode()
        return anchor.signed(public, base64.b64encode(self._key.sign(anchor.digest.encode())).decode())

    def sound(self, anchor: Anchor) -> bool:
        """See `ports.Signer`."""
        try:
            public = Ed25519PublicKey.from_public_bytes(base64.b64decode(anchor.key, validate=True))
            public.verify(base64.b64decode(anchor.signature, validate=True), anchor.digest.encode())
        except (ValueError, InvalidSignature):
            return False
        return True


def new_key() -> tuple[str, str]:
    """A private key and its public one, base64."""
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    return base64.b64encode(private.private_bytes_raw()).decode(), base64.b64encode(public).decode()
