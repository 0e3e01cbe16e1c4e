"""The account: whatever is done to it behind Noria's back is found, and named."""

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from fakes.state import FakeState
from noria.adapters.state.sql import SqlState, migrate
from noria.domain.audit import AuditHead
from noria.governance.audit import history, sentence, verify


class Clock:
    at = datetime(2026, 3, 1, tzinfo=UTC)

    def now(self):
        self.at += timedelta(seconds=1)
        return self.at


def written(events, state=None):
    """A state in which so many changes were made."""
    state = state or FakeState(Clock())
    for n in range(events):
        evidence = {"endpoint": "triage", "log_e": n / 7, "deep": {"list": [n, None]}}
        with state.change("ana", "version.promoted", f"triage/{n}", reason=f"reason {n}", evidence=evidence):
            pass
    return state


def chain(state):
    """The events as they lie in the fake's memory, to be tampered with."""
    return state._memory.audit


def test_an_untouched_account_is_verified():
    state = written(5)
    report = verify(state)
    assert report.verified
    assert report.events == 5
    assert report.to_json() == {
        "verified": True,
        "events": 5,
        "head": chain(state)[-1].hash,
        "broken": None,
    }


def test_an_account_without_events_is_whole():
    assert verify(written(0)).to_json() == {"verified": True, "events": 0, "head": "0" * 64, "broken": None}


@given(st.data(), st.integers(1, 12))
def test_an_event_that_was_deleted_is_found(data, events):
    state = written(events)
    gone = data.draw(st.integers(0, events - 1))
    del chain(state)[gone]
    report = verify(state)
    assert not report.verified
    assert report.broken.sequence == gone + 1
    assert f"event {gone + 1} " in report.broken.problem
    assert "missing" in report.broken.problem


@given(st.data(), st.integers(2, 12))
def test_a_tail_that_was_cut_off_is_found(data, events):
    state = written(events)
    kept = data.draw(st.integers(0, events - 1))
    del chain(state)[kept:]
    assert verify(state).broken.sequence == kept + 1


OTHER = {
    "at": datetime(2030, 1, 1, tzinfo=UTC),
    "actor": "eve",
    "action": "nothing.happened",
    "subject": "other",
    "reason": "",
    "evidence": {},
    "previous_hash": "f" * 64,
    "hash": "e" * 64,
    "sequence": 99,
}


@given(st.data(), st.integers(1, 8), st.sampled_from(sorted(OTHER)), st.booleans())
def test_an_event_that_was_altered_is_found_even_if_it_was_sealed_again(data, events, name, sealed):
    state = written(events)
    at = data.draw(st.integers(0, events - 1))
    altered = replace(chain(state)[at], **{name: OTHER[name]})
    if sealed and name != "hash":
        altered = altered.sealed()
    chain(state)[at] = altered
    report = verify(state)
    assert not report.verified
    assert report.broken.sequence in ((at + 1, at + 2) if sealed else (at + 1,))


@given(st.data(), st.integers(2, 10))
def test_events_that_changed_places_are_found(data, events):
    state = written(events)
    a, b = sorted(data.draw(st.sets(st.integers(0, events - 1), min_size=2, max_size=2)))
    memory = chain(state)
    memory[a], memory[b] = memory[b], memory[a]
    report = verify(state)
    assert not report.verified
    if memory == sorted(memory, key=lambda e: e.sequence):
        raise AssertionError("they did change places")
    assert report.broken.sequence == a + 1


@given(st.data(), st.integers(1, 10), st.booleans())
def test_an_event_that_was_slipped_in_is_found(data, events, numbered_on):
    state = written(events)
    at = data.draw(st.integers(0, events))
    memory = chain(state)
    previous = memory[at - 1].hash if at else "0" * 64
    forged = replace(memory[0], sequence=at + 1, actor="eve", previous_hash=previous).sealed()
    tail = [replace(e, sequence=e.sequence + 1) for e in memory[at:]] if numbered_on else memory[at:]
    memory[at:] = [forged, *tail]
    report = verify(state)
    assert not report.verified
    assert report.broken.sequence in (at + 1, at + 2)


def test_a_chain_that_was_written_anew_is_found_by_its_end():
    state = written(4)
    memory, previous = chain(state), "0" * 64
    for n, event in enumerate(memory):
        memory[n] = replace(event, actor="eve", previous_hash=previous).sealed()
        previous = memory[n].hash
    report = verify(state)
    assert (report.verified, report.broken.sequence) == (False, 4)
    assert "not the one that was written" in report.broken.problem


def test_changes_during_a_check_do_no_harm():
    class Busy(FakeState):
        def audit_trail(self, *, after=0, limit=None):
            with self.change("noria", "a.b", "c"):
                pass
            yield from super().audit_trail(after=after, limit=limit)

    state = written(3, Busy(Clock()))
    report = verify(state)
    assert report.verified
    assert report.events == 3


@pytest.fixture
def stored(tmp_path):
    """A database with six events, and a way to tamper with it."""
    url = f"sqlite:///{tmp_path}/state.db"
    migrate(url)
    state, engine = SqlState(url, Clock()), create_engine(url)
    written(6, state)

    def tamper(statement, **values):
        with engine.begin() as connection:
            connection.execute(text(statement), values)

    yield state, tamper
    engine.dispose()
    state.close()


@pytest.mark.parametrize(
    ("statement", "sequence"),
    [
        ("UPDATE audit SET reason = 'no reason' WHERE sequence = 3", 3),
        ("UPDATE audit SET evidence = '{}' WHERE sequence = 2", 2),
        ("UPDATE audit SET evidence = 'not JSON' WHERE sequence = 2", 2),
        ("UPDATE audit SET at = '2020-01-01T00:00:00+00:00' WHERE sequence = 4", 4),
        ("DELETE FROM audit WHERE sequence = 5", 5),
        ("DELETE FROM audit WHERE sequence = 6", 6),
        ("DELETE FROM audit", 1),
        ("UPDATE audit SET hash = 'f' WHERE sequence = 6", 6),
    ],
)
def test_what_is_done_to_the_database_is_found(stored, statement, sequence):
    state, tamper = stored
    assert verify(state).verified
    tamper(statement)
    report = verify(state)
    assert (report.verified, report.broken.sequence) == (False, sequence)


def test_a_lost_head_is_found(stored):
    state, tamper = stored
    tamper("DELETE FROM nouns WHERE kind = 'AuditHead'")
    report = verify(state)
    assert (report.verified, report.broken.sequence) == (False, 1)
    assert state.get(AuditHead, "audit") is None


def test_a_row_that_is_added_at_the_end_is_found(stored):
    state, tamper = stored
    last = list(state.audit_trail())[-1]
    forged = replace(last, sequence=7, actor="eve", previous_hash=last.hash).sealed()
    values = asdict(forged) | {"at": forged.at.isoformat(), "evidence": json.dumps(forged.evidence)}
    tamper(f"INSERT INTO audit ({', '.join(values)}) VALUES (:{', :'.join(values)})", **values)
    report = verify(state)
    assert (report.verified, report.broken.sequence) == (False, 7)


def test_history_is_newest_first_and_by_subject():
    state = written(4)
    with state.change("bob", "project.applied", "customer-messages"):
        pass
    assert [e.sequence for e in history(state, newest=2)] == [5, 4]
    assert [e.sequence for e in history(state, subject="triage/1")] == [2]
    assert [e.sequence for e in history(state, subject="triage")] == [4, 3, 2, 1]
    assert sentence(history(state)[0]) == "5 2026-03-01 00:00:05 bob project.applied customer-messages"
    assert sentence(history(state)[1]).endswith("ana version.promoted triage/3: reason 3")
