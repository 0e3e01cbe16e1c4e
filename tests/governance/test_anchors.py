"""Daily roots: what somebody computes anew, who can write all of the state, is found."""

import hashlib
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.anchors import FakeSigner, MemoryAnchors
from fakes.state import FakeState
from noria.domain.anchor import merkle_root
from noria.domain.audit import GENESIS, AuditHead
from noria.governance.anchors import Anchors, against
from noria.governance.audit import verify

DAY = timedelta(days=1)


class Clock:
    def __init__(self):
        self.at = datetime(2026, 3, 1, 9, tzinfo=UTC)

    def now(self):
        return self.at


class Office:
    """A state whose account is written for some days, and its roots."""

    def __init__(self, days=4, a_day=3):
        self.clock = Clock()
        self.state, self.store, self.signer = FakeState(self.clock), MemoryAnchors(), FakeSigner()
        self.anchors = Anchors(self.state, self.store, self.signer, self.clock)
        for day in range(days):
            for n in range(a_day):
                self.write(f"triage/{day}.{n}")
            self.clock.at += DAY
            self.anchors.due()

    def write(self, subject):
        with self.state.change("ana", "version.promoted", subject, reason="why", evidence={"endpoint": "triage"}):
            pass

    @property
    def chain(self):
        return self.state._memory.audit

    def sealed_anew(self, events):
        """What an owner of the database would do: number, link and seal everything again, head included."""
        previous, anew = GENESIS, []
        for number, event in enumerate(events, 1):
            anew.append(replace(event, sequence=number, previous_hash=previous).sealed())
            previous = anew[-1].hash
        self.state._memory.audit[:] = anew
        with self.state.note() as note:
            note.put(AuditHead(sequence=len(anew), hash=previous))

    def broken(self, **more):
        return against(self.state, self.store.kept(), self.signer, **more)


def test_the_roots_of_the_days_hold_every_event_once():
    office = Office()
    assert [(a.first, a.last) for a in office.store.kept()] == [(1, 3), (4, 6), (7, 9), (10, 12)]
    assert office.broken() is None
    assert office.broken(key="key") is None


def test_a_day_that_is_not_over_has_no_root_unless_somebody_asks():
    office = Office(days=1)
    office.write("triage/9")
    assert office.anchors.due() is None
    assert (office.anchors.now().first, office.anchors.now()) == (4, None)


def test_days_without_events_and_days_when_nothing_ran_are_made_up_for():
    office = Office(days=1)
    office.clock.at += 5 * DAY
    assert office.anchors.due() is None
    office.write("triage/9")
    office.clock.at += 3 * DAY
    assert office.anchors.due().last == 4


def test_a_clock_that_was_set_back_loses_nothing():
    office = Office(days=2)
    office.clock.at -= 10 * DAY
    office.write("triage/late")
    office.clock.at += 12 * DAY
    office.write("triage/on")
    office.clock.at += DAY
    office.anchors.due()
    assert office.store.kept()[-1].last == 8
    assert office.broken() is None


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=40))
def test_the_tree_is_that_of_rfc_6962(leaves):
    def tree(some):
        if not some:
            return hashlib.sha256(b"").digest()
        if len(some) == 1:
            return hashlib.sha256(b"\0" + some[0]).digest()
        left = next(2**n for n in range(10) if 2**n < len(some) <= 2 ** (n + 1))
        return hashlib.sha256(b"\1" + tree(some[:left]) + tree(some[left:])).digest()

    assert merkle_root([leaf.hex() for leaf in leaves]) == tree(leaves).hex()


def forgeries():
    """A hundred ways to tamper with twelve events: what is done to them before all is numbered and sealed anew."""
    chance = random.Random(7)
    done = []
    for number in range(100):
        kind = ("delete", "alter", "swap", "insert", "cut")[number % 5]
        at, other = chance.sample(range(12), 2)
        name = chance.choice(["actor", "action", "subject", "reason", "evidence", "at"])
        done.append(pytest.param(kind, at, other, name, id=f"{number}-{kind}-{at}"))
    return done


@pytest.mark.parametrize(("kind", "at", "other", "name"), forgeries())
def test_an_account_that_was_forged_and_sealed_anew_does_not_agree_with_its_roots(kind, at, other, name):
    office = Office()
    events = list(office.chain)
    if kind == "delete":
        del events[at]
    elif kind == "cut":
        del events[at:]
    elif kind == "swap":
        events[at], events[other] = events[other], events[at]
    elif kind == "insert":
        events.insert(at, replace(events[other], subject="forged/1"))
    else:
        value = {"evidence": {"forged": True}, "at": events[at].at + timedelta(seconds=1)}.get(name, "forged")
        events[at] = replace(events[at], **{name: value})
    office.sealed_anew(events)
    assert verify(office.state).verified  # the chain alone can't tell
    broken = office.broken()
    first = min(at, other) if kind == "swap" else at
    assert broken.sequence <= first + 1 <= broken.sequence + 2


def test_roots_that_were_made_anew_are_found_by_the_key_and_by_who_kept_the_old_ones():
    office = Office()
    old = office.store.kept()
    events = list(office.chain)
    events[4] = replace(events[4], actor="eve")
    office.sealed_anew(events)
    office.store.roots.clear()
    forged = Anchors(office.state, office.store, FakeSigner("eve's"), office.clock)
    forged.now()
    assert office.broken() is None  # nobody asked whose roots they are
    assert "key that was asked for" in office.broken(key="key").problem
    assert against(office.state, old, office.signer).sequence == 4


@pytest.mark.parametrize("name", ["first", "last", "root", "head", "previous", "at"])
def test_a_root_that_was_altered_is_found(name):
    office = Office()
    anchor = office.store.kept()[1]
    value = {"first": 5, "last": 5, "at": anchor.at + DAY}.get(name, "0" * 63 + "1")
    office.store.roots[anchor.id] = replace(anchor, **{name: value})
    assert office.broken() is not None


def test_a_root_that_is_missing_is_found():
    office = Office()
    del office.store.roots["000002"]
    assert "missing" in office.broken().problem
