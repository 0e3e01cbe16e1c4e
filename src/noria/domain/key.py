"""API keys: who may ask what, until when, and how much.

A token is 256 random bits, so its plain SHA-256 is all that is kept: there is nothing to guess that a slow hash or a
salt would protect, and a lookup costs each request microseconds. The token itself is shown once and stored nowhere.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from noria.domain.errors import Forbidden
from noria.domain.limits import Limits

PREFIX = "sk-noria-"
"""How a token begins, so that people, secret scanners and our own redaction know one when they see it."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
"""What a key may be called."""
NOBODY = "local"
"""Who asks where no key is needed; no key may be called that."""


class Right(StrEnum):
    """What an address needs."""

    INFER = "infer"
    FEEDBACK = "feedback"
    VIEW = "view"
    """The console, the state, the metrics."""
    MANAGE = "manage"
    """Whatever isn't one of the others."""


class KeyRole(StrEnum):
    """What a key is for."""

    CLIENT = "client"
    VIEWER = "viewer"
    ADMIN = "admin"


RIGHTS: dict[KeyRole, frozenset[Right]] = {
    KeyRole.CLIENT: frozenset({Right.INFER, Right.FEEDBACK}),
    KeyRole.VIEWER: frozenset({Right.VIEW}),
    KeyRole.ADMIN: frozenset(Right),
}
"""Role → what it may do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key, without its token.

    Attributes:
        id: Its own, for ever; names come back.
        name: What the log calls whoever uses it. Of the keys that are in force, only one has it.
        hash: SHA-256 of the token, hex.
        created_at: When.
        created_by: Who made it.
        expires_at: When it ends by itself; None for never.
        revoked_at: When somebody ended it; None if nobody did.
        endpoints: Those that it may ask; empty for all.
        roles: What it may do.
        limits: How much it may ask.
    """

    id: str
    name: str
    hash: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    endpoints: tuple[str, ...] = ()
    roles: tuple[KeyRole, ...] = (KeyRole.CLIENT,)
    limits: Limits = field(default_factory=Limits)

    def may(self, right: Right) -> bool:
        """Whether one of its roles has that right."""
        return any(right in RIGHTS[role] for role in self.roles)

    def may_ask(self, endpoint: str) -> bool:
        """Whether it is for that endpoint."""
        return not self.endpoints or endpoint in self.endpoints

    def check(self, endpoint: str) -> None:
        """Check that it is for that endpoint, whether there is such an endpoint or not.

        Raises:
            Forbidden: It isn't.
        """
        if not self.may_ask(endpoint):
            raise Forbidden(
                f"The API key {self.name} is not for {endpoint[:64]!r}.", f"It is for {', '.join(self.endpoints)}."
            )

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and now >= self.expires_at

    def in_force(self, now: datetime) -> bool:
        """Whether it opens anything."""
        return self.revoked_at is None and not self.expired(now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """That there are keys, and which change of them is the newest. Once it exists, nobody gets in without a key."""

    id: str = "keys"
    revision: int = 0


def new_token() -> str:
    """A token that nobody can guess."""
    return PREFIX + secrets.token_hex(32)


def digest(token: str) -> str:
    """What is kept of a token, and how it is found again."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
