"""What a request takes of its key's and its endpoint's limits: set aside before the call, settled after it.

Where neither has limits this costs one comparison. Tokens are estimated before they are known: a quarter of the body's
bytes, and as many as the caller lets the model write.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from noria.domain.inference import Outcome, OutcomeKind
from noria.domain.key import ApiKey
from noria.domain.limits import Limits, Meter, Standing
from noria.domain.price import Price
from noria.ports import Clock, Meters
from noria.serving.limits import DAY_US, Asked, Subject, aged, settled, standings, taken

BYTES_A_TOKEN = 4
"""English text has about so many bytes a token."""
IMAGE_TOKENS = 1000
"""What a picture in a message is taken for: OpenAI counts one of 1024 × 1024 pixels as 765."""
_MOST_TOKENS = re.compile(rb'"max_(?:completion_|output_)?tokens"\s*:\s*(\d{1,9})')
_PICTURE = re.compile(rb";base64,[A-Za-z0-9+/=]*")
_ENDPOINT = "endpoint:"
_WITHOUT_ANSWER = frozenset({OutcomeKind.FAILED, OutcomeKind.REJECTED})


@dataclass(slots=True)
class Charge:
    """What was set aside for one request.

    Attributes:
        subjects: Whose meters count it.
        asked: What was set aside.
        day: On which day, days since the epoch.
        counts_tokens: Whether the answer's tokens count for a limit.
        input_tokens: The part of the estimate that is the body's.
        price: What tokens cost, for answers whose tokens nobody counted.
        standings: How the caller stands, his request counted.
    """

    subjects: tuple[Subject, ...]
    asked: Asked = field(default_factory=Asked)
    day: int = 0
    counts_tokens: bool = False
    input_tokens: int = 0
    price: Price | None = None
    standings: tuple[Standing, ...] = ()


class Allowances:
    """Keeps keys and endpoints within their limits.

    Args:
        meters: What was used, by all processes together.
        clock: Says how much has flowed off.
    """

    def __init__(self, meters: Meters, clock: Clock) -> None:
        self._meters = meters
        self._clock = clock

    def admit(
        self,
        key: ApiKey | None,
        endpoint: str,
        limits: Limits | None,
        body: bytes,
        *,
        counts_tokens: bool,
        price: Callable[[], Price | None],
    ) -> Charge | None:
        """Let a request pass, and set aside what it may use; None where nothing is counted.

        Args:
            key: The caller's.
            endpoint: Whom he asks.
            limits: The endpoint's; None if it has none.
            body: The request's.
            counts_tokens: Whether the endpoint's answers are made of tokens.
            price: Says what they cost; None if nobody knows.

        Raises:
            RateLimited: Too much in a minute.
            BudgetExhausted: Too much on a day.
        """
        if key is None and limits is None:
            return None
        subjects = subjects_of(key, endpoint, limits)
        if not any(subject.limits.any for subject in subjects):
            return Charge(subjects)
        counts_tokens = counts_tokens and any(_by_tokens(subject.limits) for subject in subjects)
        input_tokens, output_tokens = estimate(body) if counts_tokens else (0, 0)
        cost = price() if counts_tokens else None
        asked = Asked(input_tokens + output_tokens, cost.cost(input_tokens, output_tokens) if cost else 0.0)
        charge = Charge(subjects, asked, 0, counts_tokens, input_tokens, cost)

        def take(meters: Sequence[Meter]) -> Sequence[Meter]:
            now_us = self._clock.now_us()
            after = taken(meters, subjects, asked, now_us)
            charge.day, charge.standings = now_us // DAY_US, standings(after, subjects)
            return after

        self._meters.change([subject.name for subject in subjects], take)
        return charge

    def settle(self, charge: Charge, outcome: Outcome) -> None:
        """Put what a request used in the place of what was set aside."""
        self._replace(charge, _used(charge, outcome))

    @staticmethod
    def of_copy(charge: Charge | None) -> Charge | None:
        """What a shadow's copy is counted for: its endpoint's money, and nothing of the caller's."""
        mine = () if charge is None else tuple(s for s in charge.subjects if s.name.startswith(_ENDPOINT))
        return Charge(mine) if mine else None

    def spent(self, endpoint: str, limits: Limits) -> bool:
        """Whether an endpoint has used up its money of the day or its tokens of the minute."""
        if not _by_tokens(limits):
            return False
        meter = aged(self._meters.read(f"{_ENDPOINT}{endpoint}"), limits, self._clock.now_us())
        money, tokens = limits.usd_per_day, limits.tokens_per_minute
        return (money is not None and meter.usd >= money) or (tokens is not None and meter.tokens >= tokens)

    @staticmethod
    def of_stand_in(endpoint: str, limits: Limits, body: bytes, price: Price | None, *, counts_tokens: bool) -> Charge:
        """What a request is counted for at an endpoint that answers it in another's stead: money and tokens, once it is
        known what it took.

        Args:
            endpoint: Who answers.
            limits: Its limits.
            body: The request's.
            price: What its tokens cost; None if nobody knows.
            counts_tokens: Whether its answers are made of tokens.
        """
        who = (Subject(f"{_ENDPOINT}{endpoint}", f"The endpoint {endpoint}", limits),)
        if not (counts_tokens and _by_tokens(limits)):
            return Charge(who)
        return Charge(who, counts_tokens=True, input_tokens=estimate(body)[0], price=price)

    def give_back(self, charge: Charge) -> None:
        """Let go of what was set aside for a request that is refused after all; it stays counted as a request."""
        self._replace(charge, Asked())

    def _replace(self, charge: Charge, used: Asked) -> None:
        if used != charge.asked:
            subjects = charge.subjects
            self._meters.change(
                [subject.name for subject in subjects],
                lambda meters: settled(meters, subjects, charge.asked, charge.day, used, self._clock.now_us()),
            )


def subjects_of(key: ApiKey | None, endpoint: str, limits: Limits | None) -> tuple[Subject, ...]:
    """Whose limits a request is under."""
    mine = () if key is None else (Subject(f"key:{key.id}", f"The API key {key.name}", key.limits),)
    return mine if limits is None else (*mine, Subject(f"{_ENDPOINT}{endpoint}", f"The endpoint {endpoint}", limits))


def estimate(body: bytes) -> tuple[int, int]:
    """Tokens that a request may take, of its own and of its answer's."""
    size, pictures = len(body), 0
    if b";base64," in body:
        found = _PICTURE.findall(body)
        size, pictures = size - sum(map(len, found)), len(found)
    written = max(map(int, _MOST_TOKENS.findall(body)), default=0)
    return size // BYTES_A_TOKEN + pictures * IMAGE_TOKENS, written


def _by_tokens(limits: Limits) -> bool:
    return limits.tokens_per_minute is not None or limits.usd_per_day is not None


def _used(charge: Charge, outcome: Outcome) -> Asked:
    """What a request used that has ended: as the model server counted it, else by the size of the answer."""
    if not charge.counts_tokens or outcome.cache_hit:
        return Asked(0, outcome.cost_usd or 0.0)
    if outcome.input_tokens is not None or outcome.output_tokens is not None:
        return Asked((outcome.input_tokens or 0) + (outcome.output_tokens or 0), outcome.cost_usd or 0.0)
    if outcome.kind in _WITHOUT_ANSWER:
        return Asked(0, outcome.cost_usd or 0.0)
    output_tokens = len(outcome.response) // BYTES_A_TOKEN
    cost = charge.price.cost(charge.input_tokens, output_tokens) if charge.price else 0.0
    return Asked(charge.input_tokens + output_tokens, outcome.cost_usd or cost)
