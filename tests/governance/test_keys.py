"""API keys: made once, ended for ever, and each change in the account."""

import hashlib
from datetime import timedelta

import pytest

from fakes.state import FakeState
from fakes.story import StoppedClock
from noria.domain.errors import Conflict, InvalidRequest, Refused, UnknownKey
from noria.domain.key import ApiKey, KeyRole, Right, digest, new_token
from noria.domain.limits import Limits
from noria.governance import keys
from noria.serving.log.redaction import Redactor
from noria.settings import Redaction


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
def state(clock: StoppedClock) -> FakeState:
    return FakeState(clock)


def test_a_key_is_kept_as_a_hash_and_its_token_nowhere(state, clock):
    key, token = keys.create(state, clock, "shop", "ada", limits=Limits(usd_per_day=5.0))
    assert key.hash == digest(token) == hashlib.sha256(token.encode()).hexdigest()
    assert state.get(ApiKey, key.id) == key
    everything = repr(vars(state._memory))
    assert key.hash in everything
    assert token not in everything
    assert token.removeprefix("sk-noria-") not in everything


def test_tokens_carry_256_bits_and_never_come_twice():
    tokens = {new_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert all(len(bytes.fromhex(token.removeprefix("sk-noria-"))) == 32 for token in tokens)


def test_redaction_takes_a_token_out_of_any_text():
    clean, codes = Redactor({Redaction.CREDENTIAL}).text(f"my key is {new_token()}, keep it")
    assert (clean, codes) == ("my key is [credential], keep it", ("REDACTED_CREDENTIAL",))


def test_making_and_revoking_are_in_the_account_without_the_hash(state, clock):
    key, _ = keys.create(state, clock, "shop", "ada", endpoints=["triage"], reason="the web shop")
    keys.revoke(state, clock, "shop", "bob", "leaked")
    made, ended = state.audit_trail()
    assert (made.actor, made.action, made.subject, made.reason) == ("ada", "key.created", "shop", "the web shop")
    assert made.evidence["endpoints"] == ["triage"]
    assert (ended.actor, ended.action, ended.reason) == ("bob", "key.revoked", "leaked")
    assert ended.evidence == {"id": key.id}
    assert key.hash not in repr([made, ended])


def test_a_name_is_given_again_only_once_its_key_is_out_of_force(state, clock):
    keys.create(state, clock, "shop", "ada")
    with pytest.raises(Conflict, match="a key shop already"):
        keys.create(state, clock, "shop", "ada")
    keys.revoke(state, clock, "shop", "ada", "rotated")
    second, _ = keys.create(state, clock, "shop", "ada", expires_in=timedelta(hours=1))
    assert keys.find(state, clock, "shop") == second
    clock.at += timedelta(hours=1)
    third, _ = keys.create(state, clock, "shop", "ada")
    assert keys.find(state, clock, "shop") == third
    assert [key.in_force(clock.now()) for key in keys.every(state)].count(True) == 1


def test_a_key_is_revoked_once_and_by_name_or_id(state, clock):
    key, _ = keys.create(state, clock, "shop", "ada")
    assert keys.revoke(state, clock, key.id, "ada", "done").revoked_at == clock.now()
    with pytest.raises(Refused, match="was revoked at"):
        keys.revoke(state, clock, "shop", "ada", "again")
    with pytest.raises(UnknownKey, match="no key nobody"):
        keys.revoke(state, clock, "nobody", "ada", "x")


@pytest.mark.parametrize("name", ["", "local", "a b", "-a", "a" * 65, "naïve", "a\n"])
def test_a_name_that_would_confuse_the_log_is_refused(state, clock, name):
    with pytest.raises(InvalidRequest, match="can't be called"):
        keys.create(state, clock, name, "ada")


def test_once_a_key_was_made_there_always_was_one(state, clock):
    assert not keys.any_ever(state)
    keys.create(state, clock, "shop", "ada")
    keys.revoke(state, clock, "shop", "ada", "done")
    assert keys.any_ever(state)


def test_roles_say_what_a_key_may_do(state, clock):
    client, _ = keys.create(state, clock, "a", "ada")
    viewer, _ = keys.create(state, clock, "b", "ada", roles=[KeyRole.VIEWER])
    both, _ = keys.create(state, clock, "c", "ada", roles=[KeyRole.VIEWER, KeyRole.CLIENT])
    admin, _ = keys.create(state, clock, "d", "ada", roles=[KeyRole.ADMIN])
    assert [right for right in Right if client.may(right)] == [Right.INFER, Right.FEEDBACK]
    assert [right for right in Right if viewer.may(right)] == [Right.VIEW]
    assert [right for right in Right if both.may(right)] == [Right.INFER, Right.FEEDBACK, Right.VIEW]
    assert all(admin.may(right) for right in Right)
