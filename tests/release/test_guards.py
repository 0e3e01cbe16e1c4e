"""What takes a candidate back beside failures and wrong answers, and how seldom all guards together err."""

import json
from datetime import timedelta
from statistics import median

import pytest

from fakes.release import Stage as Scene
from fakes.release import immediately, passed_verdict
from noria.domain.events import GatePassed
from noria.domain.rollout import Arm, Rollout, Stage
from noria.release.guards import GUARDS, LEAST_SLOWER_MS, LEAST_TIMES, guards_of, slow_limit
from noria.release.sightings import Sightings
from noria.release.simulation import Rates, share_rolled_back, simulate
from noria.settings import Endpoint, RolloutPlan

PLAN = RolloutPlan()


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path, shadow_requests=0, steps=[50], step_requests=400)


def begin(scene, *versions):
    for version in versions:
        with scene.state.note() as note:
            note.put(passed_verdict(version))
        scene.rollouts.begin(GatePassed(endpoint="triage", verdict_id=f"verdict-{version}"), immediately)
    scene.clock.pass_s(1)


def chat(said, finish="stop"):
    message = {"role": "assistant", "content": said}
    return json.dumps({"choices": [{"message": message, "finish_reason": finish}]})


def serve(scene, looks, champion, candidate):
    """Ten answers of each side a look, until the rollout is over."""
    for _ in range(looks):
        for n in range(10):
            scene.request("1", "champion", **champion(n))
            scene.request("2", "canary", **candidate(n))
        scene.clock.pass_s(1)
        scene.rollouts.tick("triage")
        if scene.state.get(Rollout, "verdict-2").stage.finished:
            break
    return scene.state.get(Rollout, "verdict-2")


def usual(n):
    return {"execution_duration_ms": 20 + n}


# --- latency --------------------------------------------------------------------------------------------------------


def test_a_candidate_that_is_slow_more_often_than_its_champion_is_taken_back(scene):
    begin(scene, "1")
    for n in range(60):
        scene.request("1", "champion", **usual(n % 10))
    begin(scene, "2")
    scene.rollouts.tick("triage")
    assert scene.state.get(Rollout, "verdict-2").slow_ms == 29 + LEAST_SLOWER_MS
    ended = serve(scene, 30, usual, lambda n: {"execution_duration_ms": 200 if n < 4 else 20})
    assert ended.stage is Stage.ROLLED_BACK
    assert "slow more often" in ended.history[-1].reason
    assert "took longer than 79 ms" in ended.history[-1].reason


def test_the_limit_is_frozen_before_the_answers_that_it_judges(scene):
    begin(scene, "1")
    for n in range(60):
        scene.request("1", "champion", **usual(n % 10))
    begin(scene, "2")
    scene.rollouts.tick("triage")
    ended = serve(scene, 3, lambda _: {"execution_duration_ms": 5000}, lambda _: {"execution_duration_ms": 5000})
    assert ended.slow_ms == 29 + LEAST_SLOWER_MS
    assert (ended.champion.slow, ended.champion.timed) == (30, 30)
    assert ended.log_e["latency"] <= 0


def test_without_enough_answers_of_the_champion_no_time_is_compared(scene):
    begin(scene, "1")
    for n in range(LEAST_TIMES - 1):
        scene.request("1", "champion", **usual(n % 10))
    begin(scene, "2")
    scene.rollouts.tick("triage")
    ended = serve(scene, 3, usual, lambda _: {"execution_duration_ms": 9000})
    assert (ended.slow_ms, ended.candidate.timed, ended.stage) == (0, 0, Stage.CANARY)


def test_a_stated_limit_needs_no_history(scene):
    plan = scene.settings.rollout.model_copy(update={"slow_ms": 100.0})
    assert slow_limit(scene.tables, "triage", "triage/1", scene.clock.now(), plan) == 100


def test_only_the_champions_own_answers_to_callers_say_what_is_usual(scene):
    begin(scene, "1")
    for _ in range(100):
        scene.request("1", "champion", execution_duration_ms=10)
        scene.request("1", "champion", execution_duration_ms=0, cache_hit=True)
        scene.request("1", "champion", execution_duration_ms=30_000, outcome="timed_out")
        scene.request("2", "shadow", execution_duration_ms=900)
    limit = slow_limit(scene.tables, "triage", "triage/1", scene.clock.now(), RolloutPlan(slow_factor=10))
    assert limit == 100


# --- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"response": chat("I'm sorry, but I can't help with that.")}, "declines more often"),
        ({"response": chat("", "content_filter")}, "stopped more often"),
        ({"logging_error_codes": ["GUARDRAIL_TOXICITY"]}, "stopped more often"),
    ],
)
def test_a_candidate_that_declines_or_is_stopped_more_often_is_taken_back(scene, bad, says):
    chats = {"task": "chat", "policy": "p.yaml", "gguf": {"gguf": "m.gguf", "licence": "MIT", "source": "here"}}
    scene.settings = Endpoint.model_validate(chats | {"rollout": scene.settings.rollout.model_dump()})
    begin(scene, "1", "2")
    good = {"response": chat("Your parcel comes on Monday.")}
    ended = serve(scene, 40, lambda _: good, lambda n: bad if n < 5 else good)
    assert ended.stage is Stage.ROLLED_BACK
    assert says in ended.history[-1].reason


def test_a_classifier_is_not_watched_for_refusals(scene):
    assert "refusals" not in guards_of(scene.settings)
    assert set(guards_of(scene.settings)) < set(GUARDS)


# --- what the shadow says -------------------------------------------------------------------------------------------


@pytest.fixture
def shadowed(tmp_path):
    scene = Scene(tmp_path)
    begin(scene, "1", "2")
    return scene


def look(scene, sightings):
    return sightings.look(scene.state.get(Rollout, "verdict-2"), scene.clock.now())[0]


def both(scene, ours, theirs, **more):
    first = scene.request("1", "champion", said=ours)
    scene.request("2", "shadow", said=theirs, shadow_of=first, **more)
    return first


def test_answers_of_the_shadow_are_compared_with_the_champions(shadowed):
    both(shadowed, "negative", "negative")
    differs = both(shadowed, "negative", "positive")
    both(shadowed, "negative", "positive", outcome="failed")
    seen = look(shadowed, Sightings(store=shadowed.tables, champion="triage/1", timeout=timedelta(seconds=60)))
    assert (seen.compared, seen.agreed, seen.similarity, seen.differing) == (2, 1, 1.0, (differs,))


def test_a_pair_counts_once_whenever_its_second_half_comes(shadowed):
    first = shadowed.request("1", "champion", said="negative")
    for _ in range(2):
        shadowed.rollouts.tick("triage")
    shadowed.request("2", "shadow", said="negative", shadow_of=first, spool="another")
    for _ in range(3):  # each time as after a restart
        shadowed.new_rollouts().tick("triage")
    rollout = shadowed.state.get(Rollout, "verdict-2")
    assert (rollout.compared, rollout.agreed) == (1, 1)


def test_how_much_two_answers_overlap_is_told_beside_whether_they_are_the_same(shadowed):
    first = shadowed.request("1", "champion", response=chat("It comes on Monday"))
    shadowed.request("2", "shadow", response=chat("It comes  on monday"), shadow_of=first)
    second = shadowed.request("1", "champion", response=chat("It comes on Monday"))
    shadowed.request("2", "shadow", response=chat("It comes soon"), shadow_of=second)
    seen = look(shadowed, Sightings(store=shadowed.tables, champion="triage/1", timeout=timedelta(seconds=60)))
    assert (seen.compared, seen.agreed) == (2, 1)
    assert seen.similarity == pytest.approx(1 + 4 / 7)


def test_the_step_out_of_the_shadow_says_how_often_they_agreed(shadowed):
    for n in range(40):
        both(shadowed, "negative", "negative" if n % 4 else "positive")
    shadowed.clock.pass_s(1)
    shadowed.rollouts.tick("triage")
    rollout = shadowed.state.get(Rollout, "verdict-2")
    assert "30 of 40 answers were the same" in rollout.history[-1].reason
    assert len(rollout.differing) == 10
    assert list(shadowed.state.audit_trail())[-1].evidence["agreed"] == 30


# --- simulated ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rates", [Rates(), Rates(errors=0.05, slow=0.05, refusals=0.1, guardrails=0.05, wrong=0.35)])
def test_all_guards_together_seldom_roll_an_equal_candidate_back(rates):
    assert share_rolled_back([simulate(PLAN, rates, rates, seed) for seed in range(60)]) <= PLAN.alpha


@pytest.mark.parametrize(
    ("worse", "guard", "most"),
    [
        (Rates(errors=0.2), "errors", 200),
        (Rates(slow=0.5), "latency", 300),
        (Rates(refusals=0.3), "refusals", 200),
        (Rates(guardrails=0.2), "guardrails", 200),
        (Rates(wrong=0.8), "feedback", 250),
    ],
)
def test_a_bad_candidate_is_rolled_back_by_its_guard_within_the_stated_delay(worse, guard, most):
    runs = [simulate(PLAN, Rates(), worse, seed) for seed in range(20)]
    assert all(run.stage is Stage.ROLLED_BACK for run in runs)
    assert sum(run.guard == guard for run in runs) >= 18
    assert median(run.copies + run.candidate_requests for run in runs) <= most


def test_simulated_rollouts_are_repeatable():
    assert simulate(PLAN, Rates(), Rates(errors=0.2), 3) == simulate(PLAN, Rates(), Rates(errors=0.2), 3)


def test_counts_add_up():
    assert Arm(1, 2, 3, 4, 5, 6, 7, 8, 9) + Arm(1, 1, 1, 1, 1, 1, 1, 1, 1) == Arm(2, 3, 4, 5, 6, 7, 8, 9, 10)
