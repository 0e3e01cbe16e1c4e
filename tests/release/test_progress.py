"""The state machine by itself: what it may do, how seldom it errs, how soon it sees."""

from datetime import UTC, datetime, timedelta
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.domain.endpoint import Role, Route, Target, Wire
from noria.domain.rollout import Arm, Rollout, Stage
from noria.release import routes
from noria.release.progress import BLOCK, Look, Move, advance, fold
from noria.settings import RolloutPlan

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PLAN = RolloutPlan(shadow_requests=200, steps=(10, 50), step_requests=200)


def rollout(**more):
    fields = {
        "id": "v2",
        "endpoint": "triage",
        "model": "triage",
        "version": "2",
        "verdict_id": "v2",
        "stage": Stage.SHADOW,
        "started_at": NOW,
        "changed_at": NOW,
        "cursor_us": 0,
        "feedback_cursor_us": 0,
        "log_threshold": log(2 / PLAN.alpha),
    }
    return Rollout(**fields | more)


def target(version, role=Role.CHAMPION, weight=100):
    return Target(model="triage", version=version, role=role, weight=weight, url="unix:/x", verdict_id=f"v{version}")


def test_a_good_candidate_walks_every_step_and_is_promoted():
    seen, stages, now = rollout(), [], NOW
    while not seen.stage.finished:
        now += timedelta(seconds=1)
        seen, decision = advance(seen, Look(champion=Arm(50, 0), candidate=Arm(50, 0)), PLAN, now)
        if decision.move is not Move.WAIT:
            stages.append((seen.stage, seen.step, seen.weight))
    assert stages == [(Stage.CANARY, 1, 10), (Stage.CANARY, 2, 50), (Stage.PROMOTED, 2, 100)]
    assert [h.stage for h in seen.history] == [Stage.CANARY, Stage.CANARY, Stage.PROMOTED]
    assert "0 of 200 answers failed (champion 0 of 200)" in seen.history[0].reason


def test_a_plan_without_steps_promotes_after_the_shadow():
    seen, decision = advance(rollout(), Look(candidate=Arm(5, 0)), RolloutPlan(shadow_requests=5, steps=()), NOW)
    assert decision.move is Move.PROMOTE
    assert seen.stage is Stage.PROMOTED


def test_a_plan_without_shadow_begins_with_the_first_step():
    seen, _ = advance(rollout(), Look(), RolloutPlan(shadow_requests=0, steps=(20,)), NOW)
    assert (seen.stage, seen.step, seen.weight) == (Stage.CANARY, 1, 20)


def test_a_candidate_that_always_fails_is_taken_back_within_a_few_blocks():
    seen, requests = rollout(), 0
    while not seen.stage.finished:
        requests += BLOCK
        seen, decision = advance(seen, Look(champion=Arm(BLOCK, 0), candidate=Arm(BLOCK, BLOCK)), PLAN, NOW)
    assert seen.stage is Stage.ROLLED_BACK
    assert requests <= 4 * BLOCK
    assert "fails more often" in seen.history[-1].reason
    assert decision.evidence["candidate"]["errors"] == decision.evidence["candidate"]["requests"] == requests


def test_wrong_answers_alone_take_a_candidate_back():
    seen = rollout()
    for _ in range(19):
        look = Look(champion=Arm(10, 0, 10, 2), candidate=Arm(10, 0, 10, 8))
        seen, _ = advance(seen, look, PLAN, NOW)
        if seen.stage.finished:
            break
    assert seen.stage is Stage.ROLLED_BACK
    assert "is wrong more often" in seen.history[-1].reason


def test_one_sided_looks_wait_until_both_sides_fill_a_block():
    seen = rollout(stage=Stage.CANARY, step=1, weight=10)
    for n in range(1, 41):
        arm = Arm(1, int(n % 2 == 0))
        look = Look(candidate=arm) if n % 2 else Look(champion=Arm(1, 0))
        seen = fold(seen, look)
        held = min(seen.champion.requests, seen.candidate.requests)
        _, all_a, _, _ = seen.weighed.get("errors", (0, 0, 0, 0))
        assert all_a in (0, *range(BLOCK, held + 1))
    assert seen.weighed["errors"][1::2] == (20, 20)


@given(st.lists(st.tuples(*[st.integers(0, 30)] * 4), max_size=30), st.sampled_from([(), (10,), (10, 50), (1, 5, 99)]))
def test_whatever_comes_in_the_rollout_only_moves_forward_or_ends(looks, steps):
    plan = RolloutPlan(shadow_requests=20, steps=steps, step_requests=20)
    seen, route, now = rollout(), routes.shadowed(champion_route(), target("2", Role.SHADOW, 0)), NOW
    place, total = (0, 0), Arm()
    for a, a_errors, b, b_errors in looks:
        now += timedelta(seconds=1)
        look = Look(champion=Arm(a, min(a, a_errors)), candidate=Arm(b, min(b, b_errors)))
        before = seen
        seen, decision = advance(seen, look, plan, now)
        total = total + look.candidate
        if before.stage.finished:
            assert decision.move is Move.WAIT
            continue
        assert (seen.step, seen.weight) >= place or seen.stage is Stage.ROLLED_BACK
        place = (seen.step, seen.weight)
        route = follow(route, decision)
        assert sum(t.weight for t in route.targets) == 100
        assert sum(t.role is Role.CANARY for t in route.targets) <= 1
        assert all(t.verdict_id for t in route.targets)
        if seen.stage is Stage.PROMOTED:
            assert route.champion.version == "2"
            assert route.previous.version == "1"
        if seen.stage is Stage.ROLLED_BACK:
            assert [t.version for t in route.targets] == ["1"]
    assert seen.history == () or seen.history[-1].stage is seen.stage


def champion_route():
    return routes.first("triage", Wire.MLFLOW, target("1"), "p1")


def follow(route, decision):
    candidate = target("2", Role.SHADOW, 0)
    match decision.move:
        case Move.STEP:
            return routes.shared(route, candidate, decision.weight)
        case Move.PROMOTE:
            return routes.promoted(route, candidate, "p2")
        case Move.ROLL_BACK:
            return routes.alone(route)
    return route


@given(st.lists(st.sampled_from(["shadow", "share", "promote", "alone", "back"]), max_size=20), st.integers(1, 99))
def test_any_sequence_of_changes_leaves_a_whole_route(changes, weight):
    route, versions = champion_route(), iter(range(2, 100))
    for change in changes:
        candidate = target(str(next(versions)), Role.SHADOW, 0)
        before = route
        if change == "back" and route.previous is None:
            continue
        route = {
            "shadow": lambda r, c: routes.shadowed(r, c),
            "share": lambda r, c: routes.shared(r, c, weight),
            "promote": lambda r, c: routes.promoted(r, c, "p"),
            "alone": lambda r, c: routes.alone(r),
            "back": lambda r, c: routes.taken_back(r),
        }[change](route, candidate)
        assert isinstance(route, Route)
        assert route.revision == before.revision + 1
        assert sum(t.weight for t in route.targets) == 100
        assert sum(t.role is Role.CANARY for t in route.targets) <= 1
        assert all(t.weight == 0 for t in route.shadows)


def walk(rng, fail_a, fail_b, wrong_a, wrong_b, plan=PLAN):
    """A whole rollout on simulated traffic, looked at every 20 requests or so."""
    seen = rollout()
    for _ in range(2000):
        share = 1.0 if seen.stage is Stage.SHADOW else seen.weight / 100
        n = int(rng.integers(5, 30))
        b = n if seen.stage is Stage.SHADOW else int(rng.binomial(n, share))
        a = n if seen.stage is Stage.SHADOW else n - b
        arms = []
        for size, fail, wrong in ((a, fail_a, wrong_a), (b, fail_b, wrong_b)):
            labelled = int(rng.binomial(size, 0.3))
            arms.append(Arm(size, int(rng.binomial(size, fail)), labelled, int(rng.binomial(labelled, wrong))))
        seen, _ = advance(seen, Look(champion=arms[0], candidate=arms[1]), plan, NOW)
        if seen.stage.finished:
            return seen.stage
    raise AssertionError("the rollout never ended")


def share_rolled_back(runs, *rates):
    return np.mean([walk(np.random.default_rng(seed), *rates) is Stage.ROLLED_BACK for seed in range(runs)])


@pytest.mark.parametrize("rates", [(0.0, 0.0, 0.2, 0.2), (0.05, 0.05, 0.35, 0.35), (0.3, 0.3, 0.5, 0.5)])
def test_an_equal_candidate_is_seldom_rolled_back(rates):
    assert share_rolled_back(300, *rates) <= PLAN.alpha


@pytest.mark.parametrize("rates", [(0.01, 0.3, 0.2, 0.2), (0.0, 0.2, 0.2, 0.2), (0.02, 0.02, 0.2, 0.7)])
def test_a_bad_candidate_is_nearly_always_rolled_back(rates):
    assert share_rolled_back(100, *rates) >= 0.95


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32))
def test_a_better_candidate_is_never_rolled_back_for_what_it_is_better_at(seed):
    rng = np.random.default_rng(seed)
    assert walk(rng, 0.5, 0.0, 0.9, 0.1) is Stage.PROMOTED
