"""Who answers: an immutable snapshot of the project and its routes, which outlives the database it came from.

A snapshot is replaced whole, so a request sees one revision from its beginning to its end and no lock is needed.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from noria.domain.endpoint import Route, Target, Wire
from noria.domain.errors import InvalidProject, NotReady, UnknownEndpoint
from noria.domain.key import ApiKey, Keyring
from noria.domain.price import Price, PriceList
from noria.domain.status import AppliedProject
from noria.ports import Clock, StateStore
from noria.serving.prices import PRICES, Prices, prices_in_service
from noria.serving.rules import Rules, rules_of
from noria.settings import Project

log = logging.getLogger(__name__)

UNREAD = -1
"""The revision before anything was read."""
MOST_KEYS = 100_000
"""API keys that are read, the newest first."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was in service at one revision of the state.

    Attributes:
        revision: The state's.
        project: The project in service.
        routes: Endpoint → route.
        rules: Endpoint → the project's rules for its requests.
        project_hash: Of the text that the project was read from; empty while it is the file's own.
        keys: SHA-256 of a token → its API key, revoked ones included; None if no key was ever made.
        keys_revision: The keyring's.
        prices: Endpoint → `model/version` → what its tokens cost.
    """

    revision: int
    project: Project
    routes: Mapping[str, Route]
    rules: Mapping[str, Rules]
    project_hash: str = ""
    keys: Mapping[str, ApiKey] | None = None
    keys_revision: int = 0
    prices: Prices = field(default_factory=dict)


class Router:
    """Knows which versions answer; `domain.endpoint.choose` picks one of a route.

    Args:
        state: Where routes and the applied project are read from.
        project: The project to go by until one has been applied.
        parse: Reads the text of a project.
        clock: Says since when the snapshot is stale.
    """

    def __init__(self, state: StateStore, project: Project, parse: Callable[[str], Project], clock: Clock) -> None:
        self._state = state
        self._parse = parse
        self._clock = clock
        self.snapshot = Snapshot(UNREAD, project, {}, rules_of(project))
        self.stale_since: datetime | None = None
        """When the state stopped answering; None while it answers."""

    @property
    def project(self) -> Project:
        """The project in service."""
        return self.snapshot.project

    def refresh(self) -> bool:
        """Take over what changed in the state; whether anything did. Blocks on the database, never raises."""
        try:
            revision = self._state.revision()
            if revision == self.snapshot.revision:
                changed = False
            else:
                self.snapshot = self._read(revision)
                changed = True
        except Exception as error:  # whatever a database can throw: inference goes on with what is known
            if self.stale_since is None:
                self.stale_since = self._clock.now()
                log.warning("the state can't be read, going on with revision %s: %s", self.snapshot.revision, error)
            return False
        if self.stale_since is not None:
            log.info("the state can be read again, at revision %s", revision)
            self.stale_since = None
        return changed

    def route(self, endpoint: str) -> Route:
        """The endpoint's route.

        Raises:
            UnknownEndpoint: The project has no such endpoint.
            NotReady: It has, but no version of it is in service yet.
        """
        snapshot = self.snapshot
        if endpoint not in snapshot.project.endpoints:
            known = ", ".join(snapshot.project.endpoints)
            raise UnknownEndpoint(f"There is no endpoint named {endpoint[:64]!r}.", f"Known endpoints: {known}.")
        if endpoint not in snapshot.routes:
            raise NotReady(
                f"No version of {endpoint} is in service yet.",
                "Its first version is still on the way; noria status shows how far it is.",
            )
        return snapshot.routes[endpoint]

    def rules(self, endpoint: str) -> Rules:
        """The rules for the endpoint's requests; it must be one of the project."""
        return self.snapshot.rules[endpoint]

    def fallback(self, endpoint: str, wire: Wire) -> tuple[Target, Rules] | None:
        """Who answers in another endpoint's stead, and by which rules; None if nobody there understands the request."""
        snapshot = self.snapshot
        route, rules = snapshot.routes.get(endpoint), snapshot.rules.get(endpoint)
        return (route.champion, rules) if route is not None and rules is not None and route.wire is wire else None

    def price(self, endpoint: str, ref: str) -> Price | None:
        """What the tokens of a version cost that answers for an endpoint; None if nobody knows."""
        prices = self.snapshot.prices.get(endpoint)
        return None if prices is None else prices.get(ref)

    def in_service(self) -> frozenset[str]:
        """All versions that may be asked, `model/version`."""
        return frozenset(target.ref for route in self.snapshot.routes.values() for target in route.targets)

    def current(self, endpoint: str, target: Target) -> Target:
        """The same version at the address where it listens now: it may have been started anew elsewhere."""
        route = self.snapshot.routes.get(endpoint)
        if route is not None and target in route.targets:
            return target
        places = (*route.targets, *([route.previous] if route.previous else [])) if route else ()
        return next((replace(target, url=t.url) for t in places if t.ref == target.ref), target)

    def _read(self, revision: int) -> Snapshot:
        """Read routes and project anew. The revision was read before them, so a change meanwhile is seen next time."""
        routes = {route.endpoint: route for route in self._state.find(Route)}
        applied = self._state.get(AppliedProject, "project")
        project, rules, digest = self.snapshot.project, self.snapshot.rules, self.snapshot.project_hash
        if applied is not None and applied.hash != digest:
            digest = applied.hash
            try:
                project = self._parse(applied.text)
                rules = rules_of(project, rules)
            except InvalidProject as error:
                log.error("the applied project can't be read, going on with the one before: %s", error)
        keys, keys_revision = self._keys()
        prices = prices_in_service(project, routes, self._state.get(PriceList, PRICES))
        return Snapshot(revision, project, routes, rules, digest, keys, keys_revision, prices)

    def _keys(self) -> tuple[Mapping[str, ApiKey] | None, int]:
        """The keys and their revision; read anew only when one was made or revoked."""
        ring = self._state.get(Keyring, Keyring().id)
        if ring is None or ring.revision == self.snapshot.keys_revision:
            return self.snapshot.keys, self.snapshot.keys_revision
        return {key.hash: key for key in self._state.find(ApiKey, limit=MOST_KEYS)}, ring.revision
