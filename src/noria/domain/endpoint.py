"""An endpoint's route: which versions answer, with which weight, and the rule that picks one.

The invariant of the whole system is in the types: a `Target` without a verdict can't be built,
so no version can be given traffic that no verdict allowed.
"""

from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

from noria.domain.errors import Refused

ELSEWHERE = "upstream:"
"""What the address of a version begins with that isn't ours to keep up: `upstream:NAME/MODEL`."""
FULL_WEIGHT = 100
"""The serving targets' weights add up to this: they are per cent of the traffic."""


class Wire(StrEnum):
    """The protocol that a model server speaks."""

    OPENAI = "openai"
    MLFLOW = "mlflow"


class Role(StrEnum):
    """What a target does in its route."""

    CHAMPION = "champion"
    CANARY = "canary"
    SHADOW = "shadow"
    VARIANT = "variant"
    """Takes part in an experiment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A model version in a route.

    Attributes:
        model: Registered model name.
        version: Version of it.
        role: Champion, canary or shadow.
        weight: Per cent of the traffic that it answers; 0 for a shadow.
        url: Its model server, `unix:/path/to.sock` or `http://host:port`.
        verdict_id: The verdict that allowed it.
    """

    model: str
    version: str
    role: Role
    weight: int
    url: str
    verdict_id: str

    def __post_init__(self) -> None:
        if not self.verdict_id:
            raise Refused(
                f"{self.model}/{self.version} has no verdict.",
                "Let its gates run (noria retrain, noria model add), then roll it out.",
            )

    @property
    def ref(self) -> str:
        """`model/version`."""
        return f"{self.model}/{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One endpoint's targets at one revision; replaced whole, never edited.

    Attributes:
        endpoint: The endpoint's name, which is the route's identity.
        wire: Protocol of all its targets.
        revision: Grows by one with each change.
        targets: Exactly one champion, at most one canary, any shadows and variants.
        previous: The champion before this one, kept warm so that a rollback is instant.
        policy_hash: Hash of the policy under which the targets were allowed.
    """

    endpoint: str
    wire: Wire
    revision: int
    targets: tuple[Target, ...]
    previous: Target | None = None
    policy_hash: str = ""

    def __post_init__(self) -> None:
        serving = [t for t in self.targets if t.role is not Role.SHADOW]
        if sum(t.weight for t in serving) != FULL_WEIGHT:
            raise ValueError(f"weights of {self.endpoint} do not add up to {FULL_WEIGHT}")
        if sum(t.role is Role.CHAMPION for t in serving) != 1:
            raise ValueError(f"{self.endpoint} needs exactly one champion")

    @property
    def champion(self) -> Target:
        """The target that holds the `champion` alias."""
        for target in self.targets:
            if target.role is Role.CHAMPION:
                return target
        raise AssertionError  # see above

    @property
    def canary(self) -> Target | None:
        """The target that is being tried on a part of the traffic, if any."""
        for target in self.targets:
            if target.role is Role.CANARY:
                return target
        return None

    @property
    def variants(self) -> tuple[Target, ...]:
        """Targets that answer their share of the traffic in an experiment."""
        return tuple([t for t in self.targets if t.role is Role.VARIANT])

    @property
    def shadows(self) -> tuple[Target, ...]:
        """Targets that get a copy of each request and whose answers nobody sees."""
        return tuple([t for t in self.targets if t.role is Role.SHADOW])


def choose(route: Route, key: bytes) -> Target:
    """Pick the target that answers a caller.

    The same key falls into the same per-cent bucket at every revision, so while a canary grows from 10 to 50 per
    cent, callers only ever move from the champion to the canary, never back and forth.

    Args:
        route: The endpoint's route.
        key: Who is asking (user, conversation), or something random where nobody says.
    """
    if len(route.targets) == 1:  # the champion alone
        return route.targets[0]
    tried = [target for target in route.targets if target.role is Role.CANARY or target.role is Role.VARIANT]
    if not tried:
        return route.champion
    digest = blake2b(key, digest_size=8, person=route.endpoint.encode()[:16]).digest()
    bucket = int.from_bytes(digest) % FULL_WEIGHT
    for target in tried:
        if bucket < target.weight:
            return target
        bucket -= target.weight
    return route.champion
