"""How much may be asked, of an endpoint or by a key."""

from dataclasses import dataclass


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
