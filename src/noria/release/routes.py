"""Routes as a rollout changes them: pure functions, each one revision further than the route it is given."""

from collections.abc import Sequence
from dataclasses import replace

from noria.domain.endpoint import FULL_WEIGHT, Role, Route, Target, Wire
from noria.domain.errors import Refused


def first(endpoint: str, wire: Wire, target: Target, policy_hash: str) -> Route:
    """An endpoint's first route: one version answers everything."""
    champion = _as(target, Role.CHAMPION, FULL_WEIGHT)
    return Route(endpoint=endpoint, wire=wire, revision=1, targets=(champion,), policy_hash=policy_hash)


def shadowed(route: Route, candidate: Target) -> Route:
    """The champion answers, the candidate gets a copy of every request."""
    return _next(route, (_as(route.champion, Role.CHAMPION, FULL_WEIGHT), _as(candidate, Role.SHADOW, 0)))


def shared(route: Route, candidate: Target, weight: int) -> Route:
    """The candidate answers `weight` per cent of the traffic as canary, the champion the rest."""
    champion = _as(route.champion, Role.CHAMPION, FULL_WEIGHT - weight)
    return _next(route, (champion, _as(candidate, Role.CANARY, weight)))


def split(route: Route, variants: Sequence[Target]) -> Route:
    """An experiment's variants answer per cent of the traffic as they say, the champion the rest."""
    rest = FULL_WEIGHT - sum(variant.weight for variant in variants)
    champion = _as(route.champion, Role.CHAMPION, rest)
    return _next(route, (champion, *(_as(variant, Role.VARIANT, variant.weight) for variant in variants)))


def promoted(route: Route, candidate: Target, policy_hash: str) -> Route:
    """The candidate is champion; the old champion is kept warm."""
    targets = (_as(candidate, Role.CHAMPION, FULL_WEIGHT),)
    previous = _as(route.champion, Role.CHAMPION, FULL_WEIGHT)
    return replace(route, revision=route.revision + 1, targets=targets, previous=previous, policy_hash=policy_hash)


def alone(route: Route) -> Route:
    """The champion answers everything, as if there had never been a candidate."""
    return _next(route, (_as(route.champion, Role.CHAMPION, FULL_WEIGHT),))


def taken_back(route: Route) -> Route:
    """The previous champion answers everything again; there is nothing before it to go back to."""
    assert route.previous is not None, "the caller has looked"
    targets = (_as(route.previous, Role.CHAMPION, FULL_WEIGHT),)
    return replace(route, revision=route.revision + 1, targets=targets, previous=None)


def check_wire(route: Route, ref: str, wire: Wire, remedy: str) -> None:
    """A version can only answer beside others whose callers' protocol it speaks.

    Raises:
        Refused: It speaks another one.
    """
    if wire is not route.wire:
        raise Refused(f"{ref} speaks the {wire} protocol, {route.endpoint} speaks {route.wire}.", remedy)


def _next(route: Route, targets: tuple[Target, ...]) -> Route:
    return replace(route, revision=route.revision + 1, targets=targets)


def _as(target: Target, role: Role, weight: int) -> Target:
    return replace(target, role=role, weight=weight)
