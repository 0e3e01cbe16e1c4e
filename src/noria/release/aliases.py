"""The registry's aliases as a mirror of the routes.

The route decides who answers, so it changes first; the aliases follow. Should the worker die in between, the mirror is
behind and is brought up to date at the next turn. What Noria set last is kept in the state, which tells its own
unfinished work apart from somebody else's change.
"""

from dataclasses import dataclass

from noria.domain.audit import LOOP
from noria.domain.endpoint import Role, Route
from noria.domain.model import Alias
from noria.ports import ModelRegistry, StateStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrored:
    """What the registry was last told about an endpoint: `model/version` by alias, empty for none."""

    endpoint: str
    champion: str
    previous: str = ""
    challenger: str = ""


@dataclass(frozen=True, slots=True)
class Aliases:
    """Keeps `champion`, `previous` and `challenger` where the routes say."""

    state: StateStore
    registry: ModelRegistry

    def follow(self, endpoint: str) -> None:
        """Set what the route changed since the registry was last told; may be repeated."""
        route = self.state.get(Route, endpoint)
        if route is None or (wanted := _wanted(route)) == self.state.get(Mirrored, endpoint):
            return
        model, held = route.champion.model, self.registry.aliases(route.champion.model)
        for alias, ref in (
            (Alias.CHAMPION, wanted.champion),
            (Alias.PREVIOUS, wanted.previous),
            (Alias.CHALLENGER, wanted.challenger),
        ):
            name, _, version = ref.rpartition("/")
            version = version if name == model else ""  # aliases belong to one registered model
            if held.get(alias, "") != version:
                self.registry.set_alias(model, alias, version or None)
        with self.state.note() as note:
            note.put(wanted)

    def restore(self, endpoint: str) -> bool:
        """Put the champion alias back if somebody else moved it; True if somebody had.

        The account is written first: a death in between leaves a second account of one restoration, never a
        restoration without account.
        """
        self.follow(endpoint)
        route = self.state.get(Route, endpoint)
        if route is None:
            return False
        champion = route.champion
        found = self.registry.aliases(champion.model).get(Alias.CHAMPION, "")
        if found == champion.version:
            return False
        if self.state.get(Route, endpoint) != route:
            return False  # the route moved on while the registry was asked, and `follow` with it
        told = self.state.get(Mirrored, endpoint)
        if told is None or told.champion != champion.ref:
            return False  # the route moved on since `follow`; the next turn tells the registry
        with self.state.change(
            LOOP,
            "alias.reverted",
            f"{champion.model}@{Alias.CHAMPION}",
            reason=f"somebody pointed it at {found or 'nothing'}, but no verdict and no rollout did",
            evidence={"endpoint": endpoint, "found": found, "restored": champion.version},
        ):
            pass
        self.registry.set_alias(champion.model, Alias.CHAMPION, champion.version)
        return True


def _wanted(route: Route) -> Mirrored:
    candidate = next((t for t in route.targets if t.role is not Role.CHAMPION), None)
    return Mirrored(
        endpoint=route.endpoint,
        champion=route.champion.ref,
        previous=route.previous.ref if route.previous else "",
        challenger=candidate.ref if candidate else "",
    )
