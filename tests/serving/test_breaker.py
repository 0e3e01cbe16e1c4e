"""The circuit breaker as a state machine, against a model of it that is written another way."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from noria.domain.errors import CircuitOpen
from noria.serving import breaker as breakers
from noria.serving.breaker import Breaker, Breakers, BreakerState

URL, REF = "unix:/triage-1.sock", "triage/1"


class BreakerMachine(RuleBasedStateMachine):
    """Requests come, are let through or not, and end in any order while time passes."""

    tickets = Bundle("tickets")

    @initialize(failures=st.integers(1, 4), open_s=st.sampled_from([1.0, 10.0]))
    def begin(self, failures, open_s):
        self.failures, self.open_s = failures, open_s
        self.breaker, self.now = Breaker(), 100.0
        self.in_a_row = 0
        self.opened: float | None = None
        self.probe: object | None = None
        self.epoch = 0
        """Moves whenever it opens or closes."""

    def expected(self) -> BreakerState:
        if self.opened is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self.now < self.opened + self.open_s else BreakerState.HALF_OPEN

    def open(self):
        self.opened, self.probe = self.now, None
        self.epoch += 1

    @rule(target=tickets)
    def a_request_comes(self):
        expected = self.expected()
        ticket = self.breaker.enter(self.now)
        may = expected is BreakerState.CLOSED or (expected is BreakerState.HALF_OPEN and self.probe is None)
        assert (ticket is not None) == may
        held = {"ticket": ticket, "epoch": self.epoch}
        if ticket is not None and expected is BreakerState.HALF_OPEN:
            self.probe = held
        return held

    @rule(held=consumes(tickets))
    def a_request_is_answered(self, held):
        if held["ticket"] is None:
            return
        self.breaker.worked()
        if self.opened is not None:
            self.epoch += 1
        self.in_a_row, self.opened, self.probe = 0, None, None

    @rule(held=consumes(tickets))
    def a_request_fails(self, held):
        if held["ticket"] is None:
            return
        self.breaker.failed(held["ticket"], self.now, self.failures, self.open_s)
        if held["epoch"] != self.epoch:
            return
        self.in_a_row += 1
        if held is self.probe or self.in_a_row >= self.failures:
            self.open()

    @rule(held=consumes(tickets))
    def a_caller_leaves(self, held):
        if held["ticket"] is None:
            return
        self.breaker.left(held["ticket"])
        if held is self.probe:
            self.probe = None

    @rule(seconds=st.sampled_from([0.1, 0.9, 1.0, 5.0, 30.0]))
    def time_passes(self, seconds):
        self.now += seconds

    @invariant()
    def it_stands_as_it_should(self):
        assert self.breaker.state(self.now) is self.expected()
        assert self.breaker.opens_in(self.now) >= 1.0


BreakerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBreakerMachine = BreakerMachine.TestCase


def guarded(*refs: str) -> Breakers:
    return Breakers(lambda: frozenset(refs or (REF,)))


def fail(held: Breakers, times: int = 1, now: float = 0.0, ref: str = REF, url: str = URL) -> None:
    for _ in range(times):
        held.failed(ref, url, held.enter(ref, url, now), now, 3, 10.0)


def test_a_version_that_never_failed_is_closed_and_costs_nothing_to_remember():
    held = guarded()
    assert held.enter(REF, URL, 0.0) == 0
    held.worked(REF)
    held.left(REF, 0)
    assert held.states(0.0) == {REF: BreakerState.CLOSED}
    assert held._held == {}


def test_whoever_is_not_let_through_is_told_when_to_come_back():
    held = guarded()
    fail(held, 3)
    with pytest.raises(CircuitOpen) as caught:
        held.enter(REF, URL, 3.5)
    assert caught.value.retry_after_s == 7
    assert "triage/1" in caught.value.problem
    held.enter(REF, URL, 10.0)
    with pytest.raises(CircuitOpen) as caught:
        held.enter(REF, URL, 10.0)
    assert caught.value.retry_after_s == 1


def test_a_version_that_moved_to_another_address_is_asked_afresh():
    held = guarded()
    fail(held, 3)
    assert held.enter(REF, "unix:/elsewhere.sock", 0.0) == 0
    fail(held, 1, url="unix:/elsewhere.sock")
    assert held.states(0.0)[REF] is BreakerState.CLOSED


def test_versions_have_each_their_own():
    held = guarded(REF, "triage/2")
    fail(held, 3)
    assert held.states(0.0) == {REF: BreakerState.OPEN, "triage/2": BreakerState.CLOSED}
    assert held.states(10.0)[REF] is BreakerState.HALF_OPEN
    held.enter("triage/2", URL, 0.0)


def test_a_stream_that_begins_closes_it_and_how_it_ends_counts_from_there():
    held = guarded()
    fail(held, 3)
    ticket = held.enter(REF, URL, 10.0)
    held.began(REF, 10.0)
    assert held.states(10.0)[REF] is BreakerState.CLOSED
    held.failed(REF, URL, ticket, 11.0, 3, 10.0)
    assert held.states(11.0)[REF] is BreakerState.CLOSED


def test_a_stream_that_begins_does_not_wipe_out_those_that_broke():
    held = guarded()
    for _ in range(3):
        ticket = held.enter(REF, URL, 0.0)
        held.began(REF, 0.0)
        held.failed(REF, URL, ticket, 0.0, 3, 10.0)
    assert held.states(0.0)[REF] is BreakerState.OPEN


def test_versions_out_of_service_are_forgotten_when_there_are_many(monkeypatch):
    monkeypatch.setattr(breakers, "REMEMBERED", 3)
    held = guarded("m/1")
    for version in range(1, 6):
        fail(held, ref=f"m/{version}")
    assert set(held._held) == {"m/1", "m/4", "m/5"}
