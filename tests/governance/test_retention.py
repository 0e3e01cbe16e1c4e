"""Retention: what is older goes, what isn't stays, and the audit trail says so."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pyarrow as pa
import pytest

from fakes.records import MemoryRecords
from fakes.state import FakeState
from fakes.story import StoppedClock
from noria.domain.errors import InvalidRequest
from noria.governance.retention import Retention
from noria.tables import FEEDBACK, INFERENCE

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def records() -> MemoryRecords:
    store = MemoryRecords()
    for endpoint in ("triage", "assistant"):
        times = [NOW - days * DAY for days in (0, 6, 7, 8, 30)] + [NOW - 7 * DAY - timedelta(microseconds=1)]
        rows = [{"endpoint": endpoint, "request_time": time, "request_date": time.date()} for time in times]
        store.append("inference", pa.Table.from_pylist(rows, schema=INFERENCE), endpoint, 1)
        said = [{"endpoint": endpoint, "feedback_time": time, "feedback_date": time.date()} for time in times[3:5]]
        store.append("feedback", pa.Table.from_pylist(said, schema=FEEDBACK), endpoint, 1)
    return store


def project(**retention):
    return SimpleNamespace(endpoints={name: SimpleNamespace(retention=kept) for name, kept in retention.items()})


def ages(records: MemoryRecords, endpoint: str) -> list[timedelta]:
    return sorted(NOW - time for time in records.scan("inference", endpoint=endpoint)["request_time"].to_pylist())


def test_what_is_older_goes_and_the_rest_stays(records):
    state = FakeState(StoppedClock(NOW))
    gone = Retention(state, records, StoppedClock(NOW)).enforce(project(triage=7 * DAY, assistant=None))
    assert gone == {"triage": 5}
    assert ages(records, "triage") == [0 * DAY, 6 * DAY, 7 * DAY]
    assert len(ages(records, "assistant")) == 6
    assert records.scan("feedback")["endpoint"].to_pylist() == ["assistant"] * 2
    (event,) = state.audit_trail()
    assert (event.action, event.subject, event.actor) == ("records.expired", "triage", "noria")
    assert event.evidence == {"before": "2026-03-03T12:00:00+00:00", "inference": 3, "feedback": 2}
    assert event.reason == "retention of triage is 7 days, 0:00:00"


def test_with_nothing_old_nothing_happens(records):
    state = FakeState(StoppedClock(NOW))
    retention = Retention(state, records, StoppedClock(NOW))
    assert retention.enforce(project(triage=365 * DAY, assistant=None)) == {}
    retention.enforce(project(triage=DAY))
    assert retention.enforce(project(triage=DAY)) == {}
    assert len(list(state.audit_trail())) == 1


def test_nothing_is_deleted_that_the_audit_trail_was_not_told_of(records, monkeypatch):
    def refuse(*_, **__):
        raise InvalidRequest("The audit trail is gone.", "Bring it back.")

    state = FakeState(StoppedClock(NOW))
    monkeypatch.setattr(state, "change", refuse)
    with pytest.raises(InvalidRequest):
        Retention(state, records, StoppedClock(NOW)).enforce(project(triage=DAY))
    assert len(ages(records, "triage")) == 6
