from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.records import MemoryRecords
from fakes.state import FakeState
from fakes.traffic import BEGIN, HOUR, Clock, Traffic, project
from noria.domain.monitor import WindowCursor
from noria.monitoring.windows import CATCH_UP, MOST_AT_ONCE, Windows, due


@pytest.fixture
def state():
    return FakeState(Clock())


@pytest.fixture
def records():
    return MemoryRecords()


def closed(state):
    return [(event.start, event.end) for event in state.pending_events(10_000)]


def test_the_first_look_begins_with_the_window_that_is_open(state, records):
    windows = Windows(state, records)
    assert windows.close_due(project(), BEGIN + 0.5 * HOUR) == 0
    assert windows.close_due(project(), BEGIN + 0.9 * HOUR) == 0
    assert windows.close_due(project(), BEGIN + HOUR) == 1
    assert closed(state) == [(BEGIN, BEGIN + HOUR)]


def test_a_window_is_closed_only_when_everything_in_it_is_in_the_tables(state, records):
    windows = Windows(state, records)
    windows.close_due(project(), BEGIN)
    assert windows.close_due(project(), BEGIN + HOUR - timedelta(microseconds=1)) == 0


def test_after_an_outage_no_window_is_left_out(state, records):
    windows = Windows(state, records)
    windows.close_due(project(), BEGIN)
    assert windows.close_due(project(), BEGIN + 5.5 * HOUR) == 5
    assert closed(state) == [(BEGIN + i * HOUR, BEGIN + (i + 1) * HOUR) for i in range(5)]


def test_a_long_empty_span_is_closed_without_telling_the_loop_of_every_window(state, records):
    windows, traffic = Windows(state, records), Traffic(records)
    windows.close_due(project(), BEGIN)
    ids = traffic.ask(["a"], ["x"], BEGIN + 700 * HOUR)
    traffic.say(ids, ["x"], BEGIN + 720.5 * HOUR)
    assert windows.close_due(project(), BEGIN + 10_000 * HOUR) == 2
    assert [start for start, _ in closed(state)] == [BEGIN + 700 * HOUR, BEGIN + 720 * HOUR]
    assert state.get(WindowCursor, "triage").closed_until == BEGIN + 10_000 * HOUR
    assert windows.close_due(project(), BEGIN + 10_000 * HOUR) == 0


def test_a_long_span_full_of_records_is_caught_up_in_parts(state, records):
    windows, hours = Windows(state, records), MOST_AT_ONCE + CATCH_UP
    windows.close_due(project(), BEGIN)
    Traffic(records).ask(["a"] * hours, ["x"] * hours, within=hours * HOUR)
    told = [windows.close_due(project(), BEGIN + hours * HOUR) for _ in range(3)]
    assert told == [MOST_AT_ONCE, CATCH_UP, 0]
    assert len(set(closed(state))) == hours


def test_closing_twice_tells_once(state, records):
    windows = Windows(state, records)
    windows.close_due(project(), BEGIN)
    windows.close_due(project(), BEGIN + HOUR)
    with state.note() as note:
        note.put(WindowCursor(id="triage", closed_until=BEGIN))
    windows.close_due(project(), BEGIN + HOUR)
    assert len(closed(state)) == 1


def test_another_window_length_joins_on_without_a_hole(state, records):
    windows = Windows(state, records)
    windows.close_due(project(window="10m"), BEGIN)
    windows.close_due(project(window="10m"), BEGIN + timedelta(minutes=20))
    windows.close_due(project(window="1h"), BEGIN + HOUR)
    assert [(end - start).total_seconds() / 60 for start, end in closed(state)] == [10, 10, 40]


@given(st.integers(0, 10**7), st.integers(1, 5000), st.integers(0, 40))
def test_windows_follow_one_another_and_meet_the_grid(offset, seconds, lengths):
    granularity, start = timedelta(seconds=seconds), BEGIN + timedelta(seconds=offset)
    windows = list(due(start, granularity, start + lengths * granularity))
    edges = [start, *(w.end for w in windows)]
    assert [w.start for w in windows] == edges[:-1]
    assert all(int(edge.timestamp()) % seconds == 0 for edge in edges[1:])
    assert start + lengths * granularity - edges[-1] < granularity


def test_a_window_shorter_than_a_second_is_a_second_long():
    assert len(list(due(BEGIN, timedelta(milliseconds=1), BEGIN + timedelta(seconds=3)))) == 3
