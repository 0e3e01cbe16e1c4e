"""Which model servers should be up, and the duty that makes it so."""

import logging
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from noria.domain.approval import Approval
from noria.domain.endpoint import Route, Target
from noria.domain.errors import NoriaError
from noria.domain.experiment import Borrowed, Experiment, ExperimentState
from noria.domain.gate import Verdict
from noria.domain.rollout import Rollout
from noria.ports import Clock, ModelHost, ModelRegistry, StateStore
from noria.release.approvals import barrier

log = logging.getLogger(__name__)

GRACE = timedelta(seconds=5)
"""A server that has just become unneeded stays so long: an API process may still act on the route before."""
ON_ITS_WAY = timedelta(minutes=1)
"""A verdict this young may still be waiting for its rollout to begin, so its model server stays."""

GIVEN_UP = timedelta(hours=2)
"""An experiment that has been starting for longer isn't any more: whoever asked versions beside the traffic died."""
SIDE_BY_SIDE = 4
"""Servers that are started at the same time; loading a model takes a core and the disk."""
LOOK_S = 0.2
"""How long one turn waits for servers that are being started, in seconds: they are ready in a later one."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Keeps a model server up for every version that a route or a rollout needs, and for no other.

    Servers are started side by side, each version once at a time, so that a slow one holds nobody up.
    """

    state: StateStore
    registry: ModelRegistry
    host: ModelHost
    clock: Clock
    look_s: float = LOOK_S
    _idle_since: dict[str, datetime] = field(default_factory=dict)
    _starting: dict[str, "Future[str]"] = field(default_factory=dict)
    _failed: dict[str, NoriaError] = field(default_factory=dict)
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(SIDE_BY_SIDE, "start"))

    def reconcile(self) -> None:
        """Start what is missing (it died, or the machine was restarted), stop what nobody needs.

        Raises:
            NoriaError: A version can't be brought up, as its last start said; the others are.
        """
        routes = self.state.find(Route)
        running = self.host.running()
        needed = {target.ref: target for route in routes for target in _targets(route)}
        for ref in (self._failed.keys() - needed.keys()) | (self._failed.keys() & running.keys()):
            del self._failed[ref]
        for ref, target in needed.items():
            if ref not in running and ref not in self._starting:
                self._begin(target)
        self._move(routes, {**running, **self._started()})
        for ref in self._idle_long_enough(self.unneeded(routes, running)):
            if ref not in self._starting:
                self.host.stop(ref)
        if self._failed:
            raise NoriaError("; ".join(map(str, self._failed.values())))

    def close(self) -> None:
        """Wait for the servers that are being started; no more are."""
        self._threads.shutdown(cancel_futures=True)

    def _begin(self, target: Target) -> None:
        """Have a server started in a thread of its own."""
        try:
            version = self.registry.version(target.model, target.version)
        except NoriaError as error:
            self._failed[target.ref] = error
            return
        self._starting[target.ref] = self._threads.submit(self.host.start, version)

    def _started(self) -> dict[str, str]:
        """Addresses of the servers that have come up since the last turn; what failed is remembered."""
        wait(self._starting.values(), self.look_s)
        urls = {}
        for ref in [ref for ref, future in self._starting.items() if future.done()]:
            try:
                urls[ref] = self._starting.pop(ref).result()
                self._failed.pop(ref, None)
            except NoriaError as error:
                self._failed[ref] = error
            except Exception as error:
                self._failed[ref] = NoriaError(f"{ref} could not be started: {type(error).__name__}: {error}.")
                log.exception("%s could not be started", ref)
        return urls

    def _move(self, routes: Iterable[Route], urls: dict[str, str]) -> None:
        """Have routes lead to where servers have come up."""
        for route in routes:
            moved = {t.ref: urls[t.ref] for t in _targets(route) if t.ref in urls and t.url != urls[t.ref]}
            if moved:
                with self.state.note() as note:
                    latest = note.get(Route, route.endpoint)
                    if latest is not None:
                        note.put(_at_new_addresses(latest, moved))

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
        if ref in self._about_to_be_compared():
            return True
        verdicts = [v for v in self.state.find(Verdict) if v.ref == ref]
        if not verdicts:
            return True
        newest = verdicts[0]
        rollout = self.state.get(Rollout, newest.id)
        if rollout is not None:
            return not rollout.stage.finished
        return not barrier(self.state, newest) and self.clock.now() - self._allowed_at(newest) < ON_ITS_WAY

    def _allowed_at(self, verdict: Verdict) -> datetime:
        """When a verdict came to allow traffic: people take longer than gates, and its server isn't kept meanwhile."""
        approval = self.state.get(Approval, verdict.id)
        return approval.at if approval is not None and approval.at is not None else verdict.decided_at

    def _about_to_be_compared(self) -> set[str]:
        """Versions of experiments that are being brought up; one that takes that long was given up by its process."""
        now = self.clock.now()
        starting = (e for e in self.state.find(Experiment, limit=50) if e.state is ExperimentState.STARTING)
        soon = {v.ref for each in starting if each.changed_at > now - GIVEN_UP for v in each.variants}
        return soon.union(*(each.refs for each in self.state.find(Borrowed) if each.until > now))


def _targets(route: Route) -> tuple[Target, ...]:
    return route.targets if route.previous is None else (*route.targets, route.previous)


def _at_new_addresses(route: Route, urls: dict[str, str]) -> Route:
    """The route with new addresses and nothing else changed: who may answer is not decided here."""

    def move(target: Target) -> Target:
        return replace(target, url=urls.get(target.ref, target.url))

    previous = None if route.previous is None else move(route.previous)
    return replace(route, revision=route.revision + 1, targets=tuple(map(move, route.targets)), previous=previous)
