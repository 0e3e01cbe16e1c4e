"""What tokens cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model's tokens cost, US dollars for a million.

    Attributes:
        input: Of the request.
        output: Of the answer.
        cached_input: Of those input tokens that the provider had in its cache; None if they cost the same.
        source: Who says so, for people.
    """

    input: float
    output: float = 0.0
    cached_input: float | None = None
    source: str = ""

    @property
    def free(self) -> bool:
        """Whether tokens cost nothing, however many."""
        return not (self.input or self.output or self.cached_input)

    def cost(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
        """What a request costs, US dollars. Cached tokens are among the input tokens."""
        cached = min(cached_tokens, input_tokens)
        cached_price = self.input if self.cached_input is None else self.cached_input
        return (self.input * (input_tokens - cached) + cached_price * cached + self.output * output_tokens) / MILLION


FREE = Price(input=0.0, source="a model server of ours")
"""What a model costs that runs on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """What the models elsewhere cost that are in service; there is one.

    Attributes:
        id: There is one.
        at: When it was looked up.
        prices: Address (`upstream:NAME/MODEL`) → price.
        unknown: Addresses whose price nobody knows.
    """

    id: str = "prices"
    at: datetime
    prices: Mapping[str, Price] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
