"""Which model servers should be up, and the duty that makes it so."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from noria.domain.endpoint import Route, Target
from noria.domain.errors import NoriaError
from noria.domain.gate import Verdict
from noria.domain.rollout import Rollout
from noria.ports import Clock, ModelHost, ModelRegistry, StateStore

GRACE = timedelta(seconds=5)
"""A server that has just become unneeded stays so long: an API process may still act on the route before."""
ON_ITS_WAY = timedelta(minutes=1)
"""A verdict this young may still be waiting for its rollout to begin, so its model server stays."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Keeps a model server up for every version that a route or a rollout needs, and for no other."""

    state: StateStore
    registry: ModelRegistry
    host: ModelHost
    clock: Clock
    _idle_since: dict[str, datetime] = field(default_factory=dict)

    def reconcile(self) -> None:
        """Start what is missing (it died, or the machine was restarted), stop what nobody needs.

        Raises:
            NoriaError: A version can't be brought up; the others were.
        """
        routes = self.state.find(Route)
        running = self.host.running()
        problems = [problem for route in routes for problem in self._bring_up(route, running)]
        for ref in self._idle_long_enough(self.unneeded(routes, running)):
            self.host.stop(ref)
        if problems:
            raise NoriaError("; ".join(map(str, problems)))

    def _bring_up(self, route: Route, running: Iterable[str]) -> list[NoriaError]:
        urls, problems = {}, []
        for target in _targets(route):
            if target.ref not in running:
                try:
                    urls[target.ref] = self.host.start(self.registry.version(target.model, target.version))
                except NoriaError as error:
                    problems.append(error)
        moved = {ref: url for ref, url in urls.items() if any(t.ref == ref and t.url != url for t in _targets(route))}
        if moved:
            with self.state.note() as note:
                latest = note.get(Route, route.endpoint)
                if latest is not None:
                    note.put(_at_new_addresses(latest, moved))
        return problems

    def unneeded(self, routes: Iterable[Route], running: Iterable[str]) -> list[str]:
        """Refs of model servers whose version is decided about and has no place in any route or rollout."""
        needed = {target.ref for route in routes for target in _targets(route)}
        return [ref for ref in running if ref not in needed and not self._undecided(ref)]

    def _idle_long_enough(self, unneeded: Iterable[str]) -> list[str]:
        now = self.clock.now()
        idle = {ref: self._idle_since.get(ref, now) for ref in unneeded}
        self._idle_since.clear()
        self._idle_since.update(idle)
        return [ref for ref, since in idle.items() if now - since >= GRACE]

    def _undecided(self, ref: str) -> bool:
        verdicts = [v for v in self.state.find(Verdict) if f"{v.model}/{v.version}" == ref]
        if not verdicts:
            return True
        newest = verdicts[0]
        rollout = self.state.get(Rollout, newest.id)
        if rollout is not None:
            return not rollout.stage.finished
        return newest.passed and self.clock.now() - newest.decided_at < ON_ITS_WAY


def _targets(route: Route) -> tuple[Target, ...]:
    return route.targets if route.previous is None else (*route.targets, route.previous)


def _at_new_addresses(route: Route, urls: dict[str, str]) -> Route:
    """The route with new addresses and nothing else changed: who may answer is not decided here."""

    def move(target: Target) -> Target:
        return replace(target, url=urls.get(target.ref, target.url))

    previous = None if route.previous is None else move(route.previous)
    return replace(route, revision=route.revision + 1, targets=tuple(map(move, route.targets)), previous=previous)
