"""Who gets an API key, and who loses one: each a change of state with its audit event."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from noria.domain.errors import Conflict, InvalidRequest, Refused, UnknownKey
from noria.domain.key import NAME, NOBODY, ApiKey, Keyring, KeyRole, digest, new_token
from noria.domain.limits import Limits
from noria.ports import Change, Clock, StateStore

MOST = 100_000
"""Keys that are read at a time, revoked ones included."""


def create(
    state: StateStore,
    clock: Clock,
    name: str,
    actor: str,
    *,
    endpoints: Sequence[str] = (),
    roles: Sequence[KeyRole] = (KeyRole.CLIENT,),
    expires_in: timedelta | None = None,
    limits: Limits | None = None,
    reason: str = "",
) -> tuple[ApiKey, str]:
    """Make a key.

    Returns:
        The key and its token, which nobody can be told again.

    Raises:
        InvalidRequest: It can't be called that.
        Conflict: A key in force is called that.
    """
    if not NAME.fullmatch(name) or name == NOBODY:
        raise InvalidRequest(
            f"A key can't be called {name[:64]!r}.",
            f"Use 1 to 64 letters, digits and . _ @ -, beginning with a letter or digit, and not {NOBODY}.",
        )
    now, token = clock.now(), new_token()
    key = ApiKey(
        id=f"key-{secrets.token_hex(6)}",
        name=name,
        hash=digest(token),
        created_at=now,
        created_by=actor,
        expires_at=now + expires_in if expires_in is not None else None,
        endpoints=tuple(dict.fromkeys(endpoints)),
        roles=tuple(dict.fromkeys(roles)),
        limits=limits or Limits(),
    )
    evidence = {
        "id": key.id,
        "roles": list(key.roles),
        "endpoints": list(key.endpoints),
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
    }
    with state.change(actor, "key.created", name, reason=reason, evidence=evidence) as change:
        if any(other.name == name and other.in_force(now) for other in state.find(ApiKey, limit=MOST)):
            raise Conflict(f"There is a key {name} already.", "Revoke that one first, or choose another name.")
        change.put(key)
        _mark(change)
    return key, token


def revoke(state: StateStore, clock: Clock, name_or_id: str, actor: str, reason: str) -> ApiKey:
    """End a key: API processes see it at their next look at the state, within a second.

    Raises:
        UnknownKey: There is none.
        Refused: It was revoked before.
    """
    key = find(state, clock, name_or_id)
    with state.change(actor, "key.revoked", key.name, reason=reason, evidence={"id": key.id}) as change:
        now = change.get(ApiKey, key.id) or key
        if now.revoked_at is not None:
            raise Refused(f"{key.name} ({key.id}) was revoked at {now.revoked_at.isoformat()}.", "It opens nothing.")
        revoked = replace(now, revoked_at=clock.now())
        change.put(revoked)
        _mark(change)
    return revoked


def find(state: StateStore, clock: Clock, name_or_id: str) -> ApiKey:
    """A key by id or by name; of several with that name the one in force, else the newest.

    Raises:
        UnknownKey: There is none.
    """
    found = [key for key in every(state) if name_or_id in (key.id, key.name)]
    if not found:
        raise UnknownKey(f"There is no key {name_or_id[:64]}.", "noria key list shows what there is.")
    return max(found, key=lambda key: (key.in_force(clock.now()), key.created_at))


def every(state: StateStore) -> list[ApiKey]:
    """All keys that ever were, oldest first."""
    return sorted(state.find(ApiKey, limit=MOST), key=lambda key: (key.created_at, key.id))


def any_ever(state: StateStore) -> bool:
    """Whether a key was ever made: from then on nobody gets in without one."""
    return state.get(Keyring, Keyring().id) is not None


def _mark(change: Change) -> None:
    """Tell the API processes to read the keys anew."""
    before = change.get(Keyring, Keyring().id) or Keyring()
    change.put(replace(before, revision=before.revision + 1))
