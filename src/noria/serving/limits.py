"""How limits are kept: pure rules over meters, no clock and no I/O.

A level rises with what is asked and flows off at the limit's pace: the generic cell rate algorithm (ITU-T I.371),
kept as a level instead of a time. A full minute's worth may be asked at once, so in any stretch of t minutes at most
`limit · (t + 1)` passes, whoever asks in whatever order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from noria.domain.errors import BudgetExhausted, RateLimited
from noria.domain.limits import Limits, Meter, Standing

MINUTE_US = 60_000_000
DAY_US = 86_400_000_000
CLOCK_STEP_US = 1_000_000
"""A clock that stands this far before the meter's time was set back; what is less comes of processes that overtake
each other."""
_DUST = 1e-6
"""What rounding may leave of a level."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose limits.

    Attributes:
        name: Of its meter.
        title: For people, as a sentence begins.
        limits: How much.
    """

    name: str
    title: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request takes of its limits before it is sent: one request, and this by estimate."""

    tokens: int = 0
    usd: float = 0.0


def aged(meter: Meter, limits: Limits, now_us: int) -> Meter:
    """The meter as it is now: levels have flowed off, and a new day has nothing spent."""
    at_us, requests, tokens, day, usd = meter
    passed = now_us - at_us
    if passed < -CLOCK_STEP_US:
        requests = tokens = 0.0  # nobody knows how long ago that was, and nobody shall wait for the clock to catch up
    elif passed < 0:
        now_us, passed = at_us, 0
    today = now_us // DAY_US
    return Meter(
        now_us,
        _flowed(requests, limits.requests_per_minute, passed),
        _flowed(tokens, limits.tokens_per_minute, passed),
        today,
        usd if day == today else 0.0,
    )


def taken(meters: Sequence[Meter], subjects: Sequence[Subject], asked: Asked, now_us: int) -> list[Meter]:
    """The meters after a request was let pass: by everybody's limits, or not at all.

    Raises:
        RateLimited: A limit per minute is reached.
        BudgetExhausted: The day's money is.
    """
    now = [aged(meter, subject.limits, now_us) for meter, subject in zip(meters, subjects, strict=True)]
    found = [
        error
        for meter, subject in zip(now, subjects, strict=True)
        if (error := _refusal(meter, subject, asked, now_us))
    ]
    if found:
        error = max(found, key=lambda one: one.retry_after_s or math.inf)
        error.standings = standings(now, subjects)
        raise error
    return [
        meter._replace(
            requests=meter.requests + 1.0 if subject.limits.requests_per_minute else 0.0,
            tokens=meter.tokens + asked.tokens if subject.limits.tokens_per_minute else 0.0,
            usd=meter.usd + asked.usd,
        )
        for meter, subject in zip(now, subjects, strict=True)
    ]


def settled(
    meters: Sequence[Meter], subjects: Sequence[Subject], asked: Asked, day: int, used: Asked, now_us: int
) -> list[Meter]:
    """The meters once it is known what a request used, in place of what was set aside for it on that day."""
    now = [aged(meter, subject.limits, now_us) for meter, subject in zip(meters, subjects, strict=True)]
    return [
        meter._replace(
            tokens=max(0.0, meter.tokens + used.tokens - asked.tokens) if subject.limits.tokens_per_minute else 0.0,
            usd=max(0.0, meter.usd + used.usd - (asked.usd if meter.day == day else 0.0)),
        )
        for meter, subject in zip(now, subjects, strict=True)
    ]


def standings(meters: Sequence[Meter], subjects: Sequence[Subject]) -> tuple[Standing, ...]:
    """How a caller stands: of requests and of tokens the limit that has least left."""
    requests, tokens = [], []
    for meter, subject in zip(meters, subjects, strict=True):
        if limit := subject.limits.requests_per_minute:
            requests.append(_standing("requests", limit, meter.requests))
        if limit := subject.limits.tokens_per_minute:
            tokens.append(_standing("tokens", limit, meter.tokens))
    return tuple(min(some, key=lambda one: one.remaining) for some in (requests, tokens) if some)


def _flowed(level: float, limit: int | None, passed_us: int) -> float:
    if limit is None:
        return 0.0
    return max(0.0, level - passed_us * limit / MINUTE_US) if level else 0.0


def _standing(what: str, limit: int, level: float) -> Standing:
    return Standing(what, limit, max(0, math.floor(limit - level + _DUST)), level * 60 / limit)


def _refusal(meter: Meter, subject: Subject, asked: Asked, now_us: int) -> RateLimited | None:
    """Why one subject's limits don't let a request pass; None if they do."""
    limits = subject.limits
    if limits.usd_per_day is not None and (
        meter.usd >= limits.usd_per_day or meter.usd + asked.usd > limits.usd_per_day
    ):
        return _broke(meter, subject, limits.usd_per_day, asked.usd, now_us)
    if (limit := limits.tokens_per_minute) is not None and asked.tokens:
        if asked.tokens > limit:
            return RateLimited(
                f"{subject.title} may use {limit} tokens per minute, and this request may take {asked.tokens}.",
                "Send less, or ask for fewer tokens (max_tokens).",
                limit="tokens",
            )
        if meter.tokens + asked.tokens > limit + _DUST:
            return _too_fast(subject, "tokens", limit, meter.tokens + asked.tokens - limit)
    if (limit := limits.requests_per_minute) is not None and meter.requests + 1 > limit + _DUST:
        return _too_fast(subject, "requests", limit, meter.requests + 1 - limit)
    return None


def _too_fast(subject: Subject, what: str, limit: int, over: float) -> RateLimited:
    wait_s = over * 60 / limit
    return RateLimited(
        f"{subject.title} may use {limit} {what} per minute, and they are used up.",
        f"Come back in {max(1, math.ceil(wait_s))} s.",
        limit=what,
        retry_after_s=wait_s,
    )


def _broke(meter: Meter, subject: Subject, budget: float, usd: float, now_us: int) -> BudgetExhausted:
    until = datetime.fromtimestamp(0, UTC) + timedelta(days=now_us // DAY_US + 1)
    left = budget - meter.usd
    why = "it is spent" if left <= 0 else f"${left:.4g} of it is left, and this request may cost ${usd:.4g}"
    return BudgetExhausted(
        f"{subject.title} has a budget of ${budget:g} a day, and {why}.",
        f"A new day begins at {until.isoformat(timespec='seconds')}.",
        limit="insufficient_quota",
        retry_after_s=(DAY_US - now_us % DAY_US) / 1e6,
    )
