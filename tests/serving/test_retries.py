"""When a version is asked again: the rules one by one, and what holds whatever happens."""

from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.story import NOW, before
from noria.domain.errors import InvalidRequest, UpstreamFailed, UpstreamTimeout
from noria.serving.replies import garbage
from noria.serving.retries import LONGEST_PAUSE_S, LONGEST_WAIT_S, CallFailed, Tries, retry_after

NOT_SENT = CallFailed(UpstreamFailed("Nobody listens.", sent=False))
BROKE_OFF = CallFailed(UpstreamFailed("Broke off."))
TOO_SLOW = CallFailed(UpstreamTimeout("Too slow."))


def said(status: int, **headers: str) -> CallFailed:
    return CallFailed(UpstreamFailed("x"), status, {name.replace("_", "-"): value for name, value in headers.items()})


def tries(most=2, ours=False, patience_ends=20.0, deadline=60.0, jitter=lambda: 0.5) -> Tries:
    return Tries(most, ours, patience_ends, deadline, jitter)


def test_what_never_reached_a_server_is_sent_until_patience_ends():
    asked = tries(most=1)
    assert all(asked.again(NOT_SENT, now) is not None for now in range(19))
    assert asked.again(NOT_SENT, 20.0) is None


def test_a_server_of_ours_without_time_is_asked_until_patience_ends_and_one_elsewhere_as_often_as_is_said():
    ours = tries(most=1, ours=True)
    assert all(ours.again(said(503), now) is not None for now in range(19))
    elsewhere = tries(most=3)
    assert [elsewhere.again(said(503), 0.0) is None for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize("broken", [BROKE_OFF, TOO_SLOW, said(502), said(504)])
@pytest.mark.parametrize("ours", [True, False])
def test_what_broke_off_is_sent_once_more_and_never_twice(broken, ours):
    asked = tries(most=10, ours=ours)
    assert asked.again(broken, 0.0) is not None
    assert asked.again(broken, 0.0) is None
    assert tries(most=1).again(broken, 0.0) is None


@pytest.mark.parametrize("failed", [said(500), said(404), said(400), said(200), CallFailed(garbage("no JSON"))])
def test_an_answer_is_an_answer(failed):
    assert tries(most=10).again(failed, 0.0) is None


def test_what_cannot_be_asked_as_things_are_is_not_asked_again():
    assert tries(most=10).again(CallFailed(InvalidRequest("x")), 0.0) is None


def test_a_service_is_given_the_time_that_it_asks_for_if_that_is_short():
    assert tries().again(said(429, retry_after="2"), 0.0) == pytest.approx(2.0125)
    assert tries().again(said(429, retry_after=str(LONGEST_WAIT_S + 1)), 0.0) is None
    assert tries(patience_ends=1.0).again(said(429, retry_after="2"), 0.0) is None


def test_nothing_is_sent_again_when_the_time_is_up():
    assert tries(deadline=5.0).again(TOO_SLOW, 5.0) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "1", "retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after": format_datetime(NOW, usegmt=True), "date": format_datetime(before(seconds=9))}, 9.0),
        ({"retry-after": format_datetime(before(seconds=9), usegmt=True), "date": format_datetime(NOW)}, 0.0),
        ({"retry-after": format_datetime(NOW, usegmt=True)}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "later"}, None),
    ],
)
def test_how_long_a_server_asks_us_to_wait(headers, seconds):
    assert retry_after(headers) == seconds


FAILURES = st.sampled_from([NOT_SENT, BROKE_OFF, TOO_SLOW, said(429), said(429, retry_after="1"), said(502), said(503)])


@given(
    st.lists(FAILURES, max_size=60),
    st.integers(1, 10),
    st.booleans(),
    st.floats(0, 30),
    st.lists(st.floats(0, 1), min_size=60, max_size=60),
)
def test_whatever_happens_patience_the_deadline_and_the_number_of_tries_hold(failures, most, ours, patience, drawn):
    draws = iter(drawn)
    asked = tries(most, ours, patience, 30.0, lambda: next(draws))
    now, reached, broke = 0.0, 0, 0
    for failed in failures:
        wait_s = asked.again(failed, now)
        if wait_s is None:
            break
        assert 0 <= wait_s <= LONGEST_PAUSE_S + LONGEST_WAIT_S
        now += wait_s
        taken = failed.reached and not (ours and failed.status == 503)
        reached += taken
        broke += taken and failed.status not in (429, 503)
        assert now <= (30.0 if taken else patience) or failed in (BROKE_OFF, TOO_SLOW)
        assert reached < most
        assert broke <= 1
    assert now <= 30.0
