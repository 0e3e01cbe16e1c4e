"""What providers charge, from the list in the package genai-prices. It is part of the package: nothing is fetched.

The worker imports this and writes what it finds into the state; the API process never does.
"""

from importlib.metadata import version

from noria.domain.price import Price
from noria.settings import Upstream, UpstreamKind

_PROVIDERS = {UpstreamKind.AZURE: "azure", UpstreamKind.DATABRICKS: "databricks"}
_SAMPLE = 1000
"""Tokens that are priced to learn the price of one: few enough for the first of a list with steps."""


def list_price(upstream: Upstream, model: str) -> Price | None:
    """What a model at an upstream costs by its provider's list; None if nobody lists it.

    Args:
        upstream: Its kind names the provider, or else its address does.
        model: What the upstream calls it. On Azure that is a deployment's name, which is found if it is the model's.
    """
    provider = _PROVIDERS.get(upstream.kind)
    try:
        reading = _dollars(upstream, provider, model, input_tokens=_SAMPLE)
        writing = _dollars(upstream, provider, model, output_tokens=_SAMPLE)
        cached = _dollars(upstream, provider, model, input_tokens=_SAMPLE, cache_read_tokens=_SAMPLE)
    except LookupError:
        return None
    source = f"genai-prices {version('genai-prices')}"
    return Price(input=reading, output=writing, cached_input=cached, source=source)


def _dollars(upstream: Upstream, provider: str | None, model: str, **tokens: int) -> float:
    """Of a million such tokens."""
    from genai_prices import Usage, calc_price

    usage = Usage(**tokens)
    priced = (
        calc_price(usage, model, provider_id=provider)
        if provider
        else calc_price(usage, model, provider_api_url=upstream.url)
    )
    return float(priced.total_price) * 1_000_000 / _SAMPLE
