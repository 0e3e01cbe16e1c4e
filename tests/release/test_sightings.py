"""What counts as seen: each row once, of the right version, in the right stage."""

from datetime import timedelta

import pytest

from fakes.release import Stage as Scene
from fakes.release import immediately, passed_verdict
from noria.domain.events import GatePassed
from noria.domain.rollout import Arm, Rollout, Stage
from noria.release.following import PATIENCE
from noria.release.sightings import Sightings


@pytest.fixture
def scene(tmp_path):
    scene = Scene(tmp_path)
    for version in ("1", "2"):
        with scene.state.note() as note:
            note.put(passed_verdict(version))
        scene.rollouts.begin(GatePassed(endpoint="triage", verdict_id=f"verdict-{version}"), immediately)
    scene.clock.pass_s(1)
    return scene


@pytest.fixture
def sightings(scene):
    return Sightings(store=scene.tables, champion="triage/1", timeout=timedelta(seconds=60))


def look(scene, sightings, rollout=None):
    found, moved = sightings.look(rollout or scene.state.get(Rollout, "verdict-2"), scene.clock.now())
    return found.champion, found.candidate, moved


@pytest.mark.parametrize(
    ("outcome", "status", "arm"),
    [
        ("answered", 200, Arm(1, 0)),
        ("answered", 500, Arm(1, 1)),
        ("failed", 502, Arm(1, 1)),
        ("timed_out", 504, Arm(1, 1)),
        ("rejected", 422, Arm()),
        ("disconnected", 499, Arm()),
        ("interrupted", 500, Arm()),
    ],
)
def test_only_ends_that_say_something_of_the_version_count(scene, sightings, outcome, status, arm):
    scene.request("1", "champion", outcome=outcome, status=status)
    scene.request("2", "shadow", outcome=outcome, status=status)
    assert look(scene, sightings)[:2] == (arm, arm)


def test_rows_of_other_versions_roles_and_stages_are_not_counted(scene, sightings):
    scene.request("2", "canary")
    scene.request("1", "shadow")
    scene.request("3", "champion")
    champion, candidate, moved = look(scene, sightings)
    assert (champion, candidate) == (Arm(), Arm())
    scene.clock.pass_s(1)
    canary = moved.enter(Stage.CANARY, scene.clock.now(), "go", step=1, weight=10)
    scene.request("2", "canary")
    scene.request("2", "shadow")
    assert look(scene, sightings, canary)[:2] == (Arm(), Arm(1, 0))


def test_a_request_that_a_fallback_rescued_counts_as_an_error_of_the_version_that_was_picked(scene, sightings):
    stood_in = {"model_name": "spare", "logging_error_codes": ["upstream_failed", "fallback_from_triage"]}
    scene.request("1", "champion", **stood_in)
    scene.request("7", "shadow", **stood_in)
    scene.request("1", "champion", logging_error_codes=["converted_from_csv"])
    assert look(scene, sightings)[:2] == (Arm(2, 1), Arm(1, 1))


def test_answers_from_memory_say_nothing_of_a_version(scene, sightings):
    scene.request("1", "champion", cache_hit=True)
    scene.request("1", "champion", cache_hit=False)
    assert look(scene, sightings)[:2] == (Arm(1, 0), Arm())


def test_a_request_from_before_the_stage_is_not_counted_in_it(scene, sightings):
    scene.request("1", "champion")
    scene.clock.pass_s(5)
    later = scene.state.get(Rollout, "verdict-2").enter(Stage.CANARY, scene.clock.now(), "go", step=1, weight=10)
    assert look(scene, sightings, later)[:2] == (Arm(), Arm())


def test_nothing_new_in_the_tables_is_not_read_again(scene, sightings):
    scene.request("1", "champion")
    *_, moved = look(scene, sightings)
    scans = len(scene.tables.scans)
    assert look(scene, sightings, moved) == (Arm(), Arm(), moved)
    assert len(scene.tables.scans) == scans


def test_later_looks_read_only_what_may_be_new(scene, sightings):
    rollout = scene.state.get(Rollout, "verdict-2")
    for _ in range(3):
        scene.clock.pass_s(600)
        scene.request("1", "champion")
        champion, _, rollout = look(scene, sightings, rollout)
        assert champion == Arm(1, 0)
    since = dict(scene.tables.scans[-2:])
    assert since["inference"] > scene.clock.now() - timedelta(seconds=600 + 120)


def test_a_label_is_about_the_champions_answer_and_its_shadows(scene, sightings):
    first = scene.request("1", "champion", said="negative")
    scene.request("2", "shadow", said="positive", shadow_of=first)
    scene.feedback(first, label="positive")
    champion, candidate, _ = look(scene, sightings)
    assert (champion, candidate) == (Arm(1, 0, 1, 1), Arm(1, 0, 1, 0))


def test_a_score_is_about_the_answer_that_was_given(scene, sightings):
    first = scene.request("1", "champion")
    scene.request("2", "shadow", shadow_of=first)
    scene.feedback(first, score=0.2)
    champion, candidate, _ = look(scene, sightings)
    assert (champion.labelled, champion.wrong, candidate.labelled) == (1, 1, 0)


def test_a_second_opinion_and_an_empty_one_do_not_count(scene, sightings):
    first = scene.request("1", "champion")
    scene.feedback(first)
    scene.feedback(first, label="negative")
    *_, moved = look(scene, sightings)
    scene.feedback(first, label="positive")
    champion, _, moved = look(scene, sightings, moved)
    assert champion == Arm()
    again = Sightings(store=scene.tables, champion="triage/1", timeout=timedelta(seconds=60))  # after a restart
    scene.feedback(first, label="positive")
    assert look(scene, again, moved)[0] == Arm()


def test_a_label_that_comes_stages_later_still_counts(scene, sightings):
    first = scene.request("1", "champion")
    *_, moved = look(scene, sightings)
    scene.clock.pass_s(30)
    later = moved.enter(Stage.CANARY, scene.clock.now(), "go", step=1, weight=10)
    scene.feedback(first, label="negative")
    assert look(scene, sightings, later)[0] == Arm(0, 0, 1, 0)


def test_a_label_waits_for_the_record_of_its_request(scene, sightings):
    scene.request("1", "champion")
    missing = f"{10**6:032x}"
    scene.feedback(missing, label="negative", spool="other")
    champion, _, moved = look(scene, sightings)
    assert champion == Arm(1, 0)
    assert "feedback:other" not in moved.seen
    row = scene.tables.rows["inference"][-1] | {"databricks_request_id": missing, "sequence": 10**6}
    scene.tables.append_rows("inference", [row])
    assert look(scene, sightings, moved)[0] == Arm(1, 0, 1, 0)


def test_a_label_of_a_request_that_never_comes_is_let_go(scene, sightings):
    scene.request("1", "champion")
    scene.feedback(f"{10**6:032x}", label="negative")
    *_, moved = look(scene, sightings)
    scene.clock.pass_s(PATIENCE.total_seconds() + 1)
    known = scene.request("1", "champion")
    scene.feedback(known, label="negative")
    assert look(scene, sightings, moved)[0] == Arm(1, 0, 1, 0)


def test_a_label_of_a_request_from_before_the_rollout_holds_nothing_up(scene, sightings):
    known = scene.request("1", "champion")
    scene.feedback(f"{0:032x}", label="negative")
    scene.feedback(known, label="negative")
    assert look(scene, sightings)[0] == Arm(1, 0, 1, 0)


def test_answers_to_several_texts_at_once_are_not_compared_with_one_label(scene, sightings):
    first = scene.request("1", "champion")
    scene.tables.rows["inference"][-1]["response"] = '{"predictions": ["negative", "positive"]}'
    scene.feedback(first, label="negative")
    assert look(scene, sightings)[0] == Arm(1, 0, 0, 0)
