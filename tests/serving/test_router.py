"""Who answers, and what happens when the database that says so is gone."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.plane import TRIAGE, Plane, route, target
from fakes.state import FakeState
from fakes.story import PROJECT, StoppedClock
from noria.domain.endpoint import Role, Route, choose
from noria.domain.errors import InvalidProject, NotReady, UnknownEndpoint
from noria.domain.status import AppliedProject
from noria.serving.router import UNREAD, Router

CANARY = route(target("1", weight=70), target("2", Role.CANARY, 30), revision=2)


def plane(*routes) -> Plane:
    return Plane({}, routes or (TRIAGE,))


def test_a_route_is_found_once_it_was_read():
    router = plane().router
    assert router.route("triage") == TRIAGE
    assert version_for(router, "anyone") == "1"


def test_an_endpoint_that_nobody_knows_is_told_with_the_known_ones():
    with pytest.raises(UnknownEndpoint) as caught:
        plane().router.route("nope")
    assert "triage, assistant" in caught.value.remedy


def test_an_endpoint_without_a_version_is_not_ready():
    with pytest.raises(NotReady, match="No version of assistant"):
        plane().router.route("assistant")


def test_a_new_revision_is_taken_over_and_an_old_one_is_not_read_again():
    here = plane()
    reads = []
    find = here.state.find
    here.state.find = lambda *a, **k: reads.append(a) or find(*a, **k)
    assert here.router.refresh() is False
    assert reads == []
    here.put(route(target("2"), revision=2))
    assert here.router.refresh() is True
    assert here.router.route("triage").champion.version == "2"


def test_a_dead_database_leaves_the_last_snapshot_in_service_and_says_since_when():
    here = plane()
    revision, here.state.revision = here.state.revision, lambda: 1 / 0
    assert here.router.refresh() is False
    assert here.router.route("triage") == TRIAGE
    assert here.router.stale_since == here.clock.now()
    here.state.revision = revision
    here.router.refresh()
    assert here.router.stale_since is None


def test_a_router_that_never_read_anything_knows_the_projects_endpoints():
    state = FakeState(StoppedClock())
    state.revision = lambda: 1 / 0
    router = Router(state, PROJECT, lambda text: PROJECT, StoppedClock())
    router.refresh()
    assert router.snapshot.revision == UNREAD
    with pytest.raises(NotReady):
        router.route("triage")


def test_an_applied_project_replaces_the_files_and_one_that_cannot_be_read_does_not():
    here = plane()
    smaller = PROJECT.model_copy(update={"endpoints": {"triage": PROJECT.endpoints["triage"]}})

    def parse(text):
        if text != "good":
            raise InvalidProject("nonsense")
        return smaller

    router = Router(here.state, PROJECT, parse, here.clock)
    for text, digest in (("good", "1"), ("bad", "2")):
        with here.state.change("ada", "project.applied", "p") as change:
            change.put(AppliedProject(text=text, hash=digest, applied_at=here.clock.now(), actor="ada"))
        router.refresh()
        assert list(router.project.endpoints) == ["triage"]


@given(st.text(min_size=1, max_size=40))
def test_whoever_a_key_stands_for_is_answered_by_one_version_and_only_moves_to_the_canary(key):
    here = plane(CANARY)
    picks = []
    for weight in (10, 30, 50, 90):
        here.put(route(target("1", weight=100 - weight), target("2", Role.CANARY, weight), revision=weight))
        here.router.refresh()
        picks.append(version_for(here.router, key))
        assert version_for(here.router, key) == picks[-1]
    assert picks == sorted(picks)


WEIGHTS = st.integers(0, 100)


def split(weight: int) -> Route:
    """A route whose canary has that weight, with a shadow beside it."""
    shadow = target("3", Role.SHADOW, 0)
    return route(shadow, target("2", Role.CANARY, weight), target("1", weight=100 - weight))


@given(st.binary(min_size=1, max_size=40), WEIGHTS, WEIGHTS)
def test_a_growing_canary_only_ever_takes_callers_and_a_shrinking_one_only_gives_them_back(key, one, other):
    less, more = sorted((one, other))
    picked = [choose(split(weight), key).version for weight in (0, less, more, 100)]
    assert picked == sorted(picked)
    assert (picked[0], picked[-1]) == ("1", "2")


@given(st.binary(min_size=1, max_size=40), WEIGHTS, st.permutations(range(3)))
def test_the_order_of_targets_makes_no_difference_and_a_shadow_is_never_picked(key, weight, order):
    one = split(weight)
    shuffled = replace(one, targets=tuple(one.targets[place] for place in order))
    assert choose(one, key) == choose(shuffled, key)
    assert choose(one, key).role is not Role.SHADOW


@given(WEIGHTS)
def test_every_weight_is_the_share_that_it_says(weight):
    route = split(weight)
    seen = sum(choose(route, f"user-{n}".encode()).version == "2" for n in range(4000))
    assert abs(seen / 4000 - weight / 100) < 0.04


def test_endpoints_draw_their_callers_apart():
    users = [f"user-{n}".encode() for n in range(1000)]
    here, there = (replace(split(50), endpoint=name) for name in ("triage", "other"))
    same = sum(choose(here, user).version == choose(there, user).version for user in users)
    assert 400 < same < 600


def test_weights_are_the_shares_of_many_callers():
    router = plane(CANARY).router
    seen = Counter(version_for(router, f"user-{n}") for n in range(5000))
    assert 0.27 < seen["2"] / 5000 < 0.33


def test_a_version_that_was_started_anew_is_found_at_its_new_address():
    here = plane()
    moved = target("1")
    object.__setattr__(moved, "url", "unix:/elsewhere.sock")
    here.put(route(moved, revision=2))
    here.router.refresh()
    assert here.router.current("triage", TRIAGE.champion).url == "unix:/elsewhere.sock"
    assert here.router.current("triage", target("9")).url == target("9").url


def test_the_champion_before_this_one_is_still_found():
    here = plane()
    here.put(route(target("2"), revision=2))
    with here.state.change("noria", "route.changed", "test") as change:
        change.put(type(TRIAGE)(**{**fields(route(target("2"), revision=3)), "previous": target("1")}))
    here.router.refresh()
    assert here.router.current("triage", TRIAGE.champion).ref == "triage/1"


def version_for(router: Router, key: str) -> str:
    return choose(router.route("triage"), key.encode()).version


def fields(noun) -> dict:
    return {name: getattr(noun, name) for name in noun.__dataclass_fields__}
