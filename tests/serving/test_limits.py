"""Limits hold whoever asks in whatever order, and refuse with the right time to come back."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.domain.errors import BudgetExhausted, RateLimited
from noria.domain.limits import Limits, Meter
from noria.serving.limits import DAY_US, MINUTE_US, Asked, Subject, aged, settled, standings, taken

START = 1_800_000_000_000_000
ONE = Asked()


def subject(name: str = "key:1", **limits) -> Subject:
    return Subject(name, "The API key shop", Limits(**limits))


def passes(meters, subjects, asked, now_us) -> bool:
    """Whether a request passes; the meters are changed in place."""
    try:
        meters[:] = taken(meters, subjects, asked, now_us)
    except RateLimited:
        return False
    return True


def in_any_stretch(times: list[tuple[int, float]], limit: int) -> bool:
    """Whether in every stretch of time at most the limit passed, plus a minute's worth at once."""
    for i, (begin, _) in enumerate(times):
        total = 0.0
        for end, amount in times[i:]:
            total += amount
            if total > limit * (end - begin) / MINUTE_US + limit + 1e-3:
                return False
    return True


@given(
    limit=st.integers(1, 300),
    steps=st.lists(st.tuples(st.integers(-900_000, 90_000_000), st.integers(0, 3)), max_size=60),
    clumped=st.booleans(),
)
def test_never_more_requests_pass_than_the_limit_and_a_minutes_worth_at_once(limit, steps, clumped):
    """Steps are arrivals in any order: processes overtake each other by less than a second."""
    meters, who, now, latest, passed = [Meter()], [subject(requests_per_minute=limit)], START, START, []
    for step, more in steps:
        now = max(now + (step // 1000 if clumped else step), latest - 900_000)
        latest = max(latest, now)
        passed += [(meters[0].at_us, 1.0) for _ in range(1 + 40 * more) if passes(meters, who, ONE, now)]
    assert in_any_stretch(passed, limit)


@given(
    limit=st.integers(1, 1_000_000),
    steps=st.lists(st.tuples(st.integers(0, 30_000_000), st.floats(0, 1.2)), max_size=80),
)
def test_never_more_tokens_pass_than_the_limit_and_a_minutes_worth_at_once(limit, steps):
    meters, who, now, passed = [Meter()], [subject(tokens_per_minute=limit)], START, []
    for step, share in steps:
        now += step
        tokens = int(share * limit)
        if passes(meters, who, Asked(tokens), now):
            passed.append((now, float(tokens)))
    assert in_any_stretch(passed, limit)


@given(
    limit=st.integers(1, 100_000),
    requests=st.lists(st.tuples(st.integers(0, 20_000_000), st.integers(0, 100_000), st.floats(0, 3)), max_size=60),
)
def test_what_was_really_used_is_what_counts_in_the_end(limit, requests):
    """However wrong the estimates were, once everything is settled only what was used has to flow off."""
    who = [subject(tokens_per_minute=limit, usd_per_day=1e9)]
    meters, now, used = [Meter()], START - START % DAY_US, 0.0
    for step, tokens, share in requests:
        now += step
        asked, real = Asked(tokens, tokens / 1e6), Asked(int(tokens * share), tokens * share / 1e6)
        if passes(meters, who, asked, now):
            meters[:] = settled(meters, who, asked, now // DAY_US, real, now)
            used += real.usd
    assert meters[0].usd == pytest.approx(used, abs=1e-9)
    assert meters[0].tokens >= 0
    assert aged(meters[0], who[0].limits, now + math.ceil(MINUTE_US * (meters[0].tokens / limit + 1))).tokens == 0


@given(st.lists(st.floats(0, 2), max_size=50), st.floats(0.01, 10))
def test_no_budget_is_ever_overdrawn_by_what_was_foreseen(costs, budget):
    meters, who, spent = [Meter()], [subject(usd_per_day=budget)], 0.0
    for cost in costs:
        if passes(meters, who, Asked(0, cost), START):
            spent += cost
    assert spent <= budget + 1e-9


@given(rounds=st.lists(st.tuples(st.integers(0, 5_000_000), st.integers(1, 5)), max_size=40))
def test_under_two_limits_a_request_counts_for_both_or_for_neither(rounds):
    who = [subject("key:1", requests_per_minute=7), subject("endpoint:a", requests_per_minute=11)]
    meters, now = [Meter(), Meter()], START
    for step, count in rounds:
        now += step
        for _ in range(count):
            before = [aged(m, s.limits, now).requests for m, s in zip(meters, who, strict=True)]
            passed = passes(meters, who, ONE, now)
            after = [aged(m, s.limits, now).requests for m, s in zip(meters, who, strict=True)]
            assert [a - b for a, b in zip(after, before, strict=True)] == pytest.approx([float(passed)] * 2)
            assert passed == (before[0] + 1 <= 7 + 1e-6 and before[1] + 1 <= 11 + 1e-6)


def test_who_waits_as_long_as_he_is_told_is_let_pass():
    meters, who = [Meter()], [subject(requests_per_minute=3)]
    assert [passes(meters, who, ONE, START) for _ in range(4)] == [True, True, True, False]
    with pytest.raises(RateLimited, match="may use 3 requests per minute") as caught:
        taken(meters, who, ONE, START)
    assert (caught.value.limit, caught.value.retry_after_s) == ("requests", pytest.approx(20))
    assert not passes(meters, who, ONE, START + 19_999_000)
    assert passes(meters, who, ONE, START + 20_000_000)


def test_a_request_that_no_minute_has_room_for_is_told_so_and_not_to_come_back():
    with pytest.raises(RateLimited, match="may use 100 tokens per minute, and this request may take 101") as caught:
        taken([Meter()], [subject(tokens_per_minute=100)], Asked(101), START)
    assert (caught.value.limit, caught.value.retry_after_s) == ("tokens", 0)


def test_a_budget_ends_at_midnight_utc_and_says_when():
    noon = int(datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()) * 1_000_000
    who = [subject(usd_per_day=1.0)]
    meters = taken([Meter()], who, Asked(0, 1.0), noon)
    with pytest.raises(BudgetExhausted, match=r"\$1 a day, and it is spent.*2026-11-25T00:00:00\+00:00") as caught:
        taken(meters, who, ONE, noon)
    assert caught.value.retry_after_s == 12 * 3600
    assert passes(meters, who, Asked(0, 1.0), noon + DAY_US // 2)


def test_what_was_set_aside_yesterday_is_not_given_back_today():
    late = DAY_US * 20_000 - 1
    who = [subject(usd_per_day=1.0)]
    meters = taken([Meter()], who, Asked(0, 0.5), late)
    [after] = settled(meters, who, Asked(0, 0.5), late // DAY_US, Asked(0, 0.2), late + 10)
    assert after.usd == 0.2


def test_of_two_limits_the_tighter_one_is_told():
    who = [subject("key:1", requests_per_minute=10), subject("endpoint:a", requests_per_minute=4, tokens_per_minute=60)]
    meters = taken([Meter(), Meter()], who, Asked(20), START)
    requests, tokens = standings(meters, who)
    assert requests == ("requests", 4, 3, pytest.approx(15))
    assert tokens == ("tokens", 60, 40, pytest.approx(20))


def test_of_two_refusals_the_longer_wait_is_told():
    who = [subject("key:1", requests_per_minute=60), subject("endpoint:a", requests_per_minute=1)]
    with pytest.raises(RateLimited) as caught:
        taken([Meter(START, 60.0), Meter(START, 1.0)], who, ONE, START)
    assert caught.value.retry_after_s == pytest.approx(60)
    assert [standing.remaining for standing in caught.value.standings] == [0]


@pytest.mark.parametrize("set_back", [MINUTE_US, 400 * DAY_US])
def test_a_clock_that_was_set_back_locks_nobody_out(set_back):
    who, meters = [subject(requests_per_minute=2, usd_per_day=1.0)], [Meter(START, 2.0)]
    assert not passes(meters, who, ONE, START)
    assert [passes(meters, who, ONE, START - set_back) for _ in range(3)] == [True, True, False]
