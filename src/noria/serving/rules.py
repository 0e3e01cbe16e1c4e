"""What the project file says of an endpoint's requests, in the units of the hot path: read once, when it changes."""

from collections.abc import Mapping
from dataclasses import dataclass

from noria.domain.limits import Limits
from noria.serving.cache import AnswerCache, CacheRules
from noria.settings import Cache, Endpoint, Project
from noria.settings import Limits as LimitsSetting

HEADER = "header:"
"""How `routing.sticky` names a header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """One endpoint's rules.

    Attributes:
        timeout_s: Until the last byte of an answer, over everything that is tried, seconds.
        tries: Most requests that reach a version before the next is asked.
        try_timeout_s: Longest time of one try, seconds; None if only the whole is bounded.
        patience_s: How long a request waits for a version that isn't there at the moment, seconds.
        fallbacks: Endpoints whose champion answers if this one's versions can't, in order.
        sticky: Whose value is always answered by the same version: a key of the metadata, or as bytes a header's name.
        breaker_failures: Failures in a row after which a version is left alone.
        breaker_open_s: For how long, seconds.
        limits: How much may be asked of the endpoint; None if there is no limit.
        cache: Its answers that are kept; None if none are.
    """

    timeout_s: float
    tries: int
    try_timeout_s: float | None
    patience_s: float
    fallbacks: tuple[str, ...]
    sticky: tuple[str | bytes, ...]
    breaker_failures: int
    breaker_open_s: float
    cache: AnswerCache | None = None
    limits: Limits | None = None


def rules_of(project: Project, before: Mapping[str, Rules] | None = None) -> Mapping[str, Rules]:
    """Endpoint → its rules.

    Args:
        project: The project file.
        before: The rules until now, whose caches go on where nothing about them changed.
    """
    caches = {name: rules.cache for name, rules in (before or {}).items()}
    return {name: _rules(endpoint, caches.get(name)) for name, endpoint in project.endpoints.items()}


def _rules(endpoint: Endpoint, cache: AnswerCache | None) -> Rules:
    routing = endpoint.routing
    return Rules(
        timeout_s=endpoint.timeout.total_seconds(),
        tries=routing.tries,
        try_timeout_s=None if routing.try_timeout is None else routing.try_timeout.total_seconds(),
        patience_s=routing.patience.total_seconds(),
        fallbacks=routing.fallbacks,
        sticky=tuple(_sticky(name) for name in routing.sticky),
        breaker_failures=routing.breaker.failures,
        breaker_open_s=routing.breaker.open_for.total_seconds(),
        cache=None if routing.cache is None else _cache(routing.cache, cache),
        limits=_limits(endpoint.limits),
    )


def _limits(said: LimitsSetting) -> Limits | None:
    """The limits that the project file sets; None if it sets none."""
    limits = Limits(
        requests_per_minute=said.requests_per_minute,
        tokens_per_minute=said.tokens_per_minute,
        usd_per_day=said.usd_per_day,
    )
    return limits if limits.any else None


def _cache(settings: Cache, before: AnswerCache | None) -> AnswerCache:
    rules = CacheRules(int(settings.ttl.total_seconds() * 1_000_000), settings.entries, settings.max_bytes)
    return before if before is not None and before.rules == rules else AnswerCache(rules)


def _sticky(name: str) -> str | bytes:
    return name.removeprefix(HEADER).lower().encode() if name.startswith(HEADER) else name
