"""What models elsewhere cost: looked up by the worker, read by the API processes with their snapshot."""

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta

from noria.domain.audit import LOOP
from noria.domain.endpoint import ELSEWHERE, Route, Target
from noria.domain.errors import InvalidProject
from noria.domain.key import ApiKey
from noria.domain.price import FREE, Price, PriceList
from noria.ports import Clock, StateStore
from noria.settings import Project, Upstream, UpstreamKind

FRESH = timedelta(days=1)
"""How long a price is taken for the price."""
MOST_KEYS = 100_000
"""API keys that are looked through for a budget."""
PRICES = "prices"
"""Id of the one PriceList."""

Prices = Mapping[str, Mapping[str, Price]]
"""Endpoint → `model/version` → price, of all versions that may answer for it."""


class PriceKeeper:
    """Looks prices up: when a version elsewhere comes into service, and once a day.

    Args:
        state: Where routes are, and where the list goes.
        clock: Says whether the list is old.
        project: The project in service.
        look_up: Upstream and model → what its provider's list says; None if nobody lists it.
    """

    def __init__(
        self,
        state: StateStore,
        clock: Clock,
        project: Project,
        look_up: Callable[[Upstream, str], Price | None],
    ) -> None:
        self._state = state
        self._clock = clock
        self._project = project
        self._look_up = look_up

    def ensure(self) -> None:
        """Bring the list up to date.

        Raises:
            InvalidProject: Money is limited on an endpoint of which nobody knows what it costs.
        """
        routes = self._state.find(Route)
        addresses = sorted({t.url for route in routes for t in _targets(route) if t.url.startswith(ELSEWHERE)})
        kept = self._state.get(PriceList, PRICES)
        known = {*kept.prices, *kept.unknown} if kept else set()
        if addresses and (kept is None or not known >= set(addresses) or self._clock.now() - kept.at >= FRESH):
            kept = self._replace(kept, addresses)
        self._warn(routes, kept)

    def _replace(self, before: PriceList | None, addresses: Iterable[str]) -> PriceList:
        found = {address: self.price_at(address) for address in addresses}
        prices = {address: price for address, price in found.items() if price is not None}
        unknown = tuple(address for address, price in found.items() if price is None)
        made = PriceList(at=self._clock.now(), prices=prices, unknown=unknown)
        if before is not None and (before.prices, before.unknown) == (prices, unknown):
            with self._state.note() as note:
                note.put(made)
        else:
            evidence = {
                address: [price.input, price.output, price.cached_input, price.source] if price else None
                for address, price in found.items()
            }
            with self._state.change(LOOP, "prices.found", "prices", evidence=evidence) as change:
                change.put(made)
        return made

    def price_at(self, address: str) -> Price | None:
        """What a model at `upstream:NAME/MODEL` costs; None if nobody knows."""
        name, _, model = address.removeprefix(ELSEWHERE).partition("/")
        upstream = self._project.upstreams.get(name)
        if upstream is None:
            return None
        own = upstream.private and upstream.kind in (UpstreamKind.OPENAI, UpstreamKind.MLFLOW)
        return self._look_up(upstream, model) or (Price(input=0.0, source="private upstream") if own else None)

    def _warn(self, routes: Iterable[Route], kept: PriceList | None) -> None:
        """Say that a budget can't be kept."""
        if kept is None or not kept.unknown:
            return
        now = self._clock.now()
        budgets = [k for k in self._state.find(ApiKey, limit=MOST_KEYS) if k.limits.usd_per_day and k.in_force(now)]
        for route in routes:
            endpoint = self._project.endpoints.get(route.endpoint)
            if endpoint is None or endpoint.price is not None:
                continue
            limited = endpoint.limits.usd_per_day is not None or any(k.may_ask(route.endpoint) for k in budgets)
            if limited and any(t.url in kept.unknown for t in _targets(route)):
                raise InvalidProject(
                    f"There is a budget for {route.endpoint}, but nobody knows what {route.champion.ref} costs.",
                    f"Set endpoints.{route.endpoint}.price in noria.yaml; until then nothing is counted.",
                )


def prices_in_service(project: Project, routes: Mapping[str, Route], kept: PriceList | None) -> Prices:
    """What each endpoint's versions cost, and its fallbacks', so that a request costs one look-up.

    An endpoint's own price comes first, then the provider's list; a model server of ours costs nothing.
    """
    listed: Mapping[str, Price] = kept.prices if kept else {}
    found: dict[str, dict[str, Price]] = {}
    for name, endpoint in project.endpoints.items():
        mine = found[name] = {}
        for other in (name, *endpoint.routing.fallbacks):
            said = project.endpoints[other].price
            for target in _targets(routes[other]) if other in routes else ():
                if said is not None:
                    mine.setdefault(
                        target.ref,
                        Price(
                            input=said.input, output=said.output, cached_input=said.cached_input, source="noria.yaml"
                        ),
                    )
                elif not target.url.startswith(ELSEWHERE):
                    mine.setdefault(target.ref, FREE)
                elif target.url in listed:
                    mine.setdefault(target.ref, listed[target.url])
    return found


def _targets(route: Route) -> tuple[Target, ...]:
    """Every version that may answer."""
    return (*route.targets, route.previous) if route.previous else route.targets
