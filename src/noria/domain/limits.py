"""How much may be asked, of an endpoint or by a key."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Each is None where there is no such limit.

    Attributes:
        requests_per_minute: Requests.
        tokens_per_minute: Input and output tokens together.
        usd_per_day: US dollars; a day begins at 0:00 UTC.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    usd_per_day: float | None = None

    @property
    def any(self) -> bool:
        """Whether anything is limited."""
        return not (self.requests_per_minute is self.tokens_per_minute is self.usd_per_day is None)


class Meter(NamedTuple):
    """What somebody has used of his limits.

    Attributes:
        at_us: When the levels were taken, microseconds since the epoch.
        requests: Requests that haven't flowed off yet.
        tokens: Tokens that haven't flowed off yet.
        day: The day that the money was spent on, days since the epoch, UTC.
        usd: What was spent on that day, and what is set aside for requests under way.
    """

    at_us: int = 0
    requests: float = 0.0
    tokens: float = 0.0
    day: int = 0
    usd: float = 0.0


class Standing(NamedTuple):
    """How somebody stands with one of his limits.

    Attributes:
        what: `requests` or `tokens`.
        limit: In a minute.
        remaining: At once, now.
        reset_s: Until all of it is there again, seconds.
    """

    what: str
    limit: int
    remaining: int
    reset_s: float
