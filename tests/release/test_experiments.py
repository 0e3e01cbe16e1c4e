"""Experiments on a stage: versions side by side until one is better, with deaths, people and rollouts in between."""

import contextlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from fakes.release import Stage as Scene
from fakes.release import immediately, passed_verdict
from noria.domain.audit import broken_at
from noria.domain.endpoint import Role, Route, Target, Wire, choose
from noria.domain.errors import Refused, UnknownEndpoint
from noria.domain.events import ExperimentStarted, GatePassed, VersionPromoted
from noria.domain.experiment import BINS, Experiment, ExperimentState, Metric, Tally, Variant, bin_of
from noria.domain.gate import Verdict
from noria.domain.rollout import Rollout
from noria.release import routes
from noria.release.experimenting import Experimenting, Wanted
from noria.release.experiments import ADAPTS_EVERY, Experiments
from noria.release.fleet import Fleet
from noria.release.manual import Manual
from noria.release.standings import evenly, measures, outcome, split, standings, weigh

WANTED = Wanted(
    endpoint="triage",
    versions=["2"],
    metric=Metric.SUCCESS,
    alpha=0.05,
    max_requests=2000,
    margin=0.0,
    floor=0,
    promote=False,
    by="ada",
    reason="is it better?",
)


@pytest.fixture
def scene(tmp_path):
    scene = Scene(tmp_path)
    for version in ("1", "2", "3"):
        with scene.state.note() as note:
            note.put(passed_verdict(version))
    scene.rollouts.begin(GatePassed(endpoint="triage", verdict_id="verdict-1"), immediately)
    scene.experiments = new_experiments(scene)
    return scene


def new_experiments(scene):
    return Experiments(
        state=scene.state,
        registry=scene.registry,
        host=scene.host,
        store=scene.tables,
        clock=scene.clock,
        endpoint=lambda _: scene.settings,
    )


def desk(scene):
    return Experimenting(scene.state, scene.clock)


def begin(scene, **more):
    made = desk(scene).start(replace(WANTED, **more))
    scene.experiments.begin(ExperimentStarted(endpoint="triage", experiment_id=made.id), immediately)
    scene.clock.pass_s(1)
    return made.id


def serve(scene, looks, right, fails=None, took=None, cost=None, per_look=30, seed=0):
    """Callers ask, half of the answers are labelled, and the worker looks; until the experiment is over."""
    rng = np.random.default_rng(seed)
    for look in range(looks):
        route = scene.state.get(Route, "triage")
        for n in range(per_look):
            target = choose(route, f"caller-{look}-{n}".encode())
            failed = rng.random() < (fails or {}).get(target.version, 0)
            first = scene.request(
                target.version,
                target.role,
                said="negative" if rng.random() < right.get(target.version, 0.8) else "positive",
                outcome="failed" if failed else "answered",
                status=502 if failed else 200,
                execution_duration_ms=(took or {}).get(target.version, 20) + int(rng.integers(5)),
                cost_usd=(cost or {}).get(target.version),
            )
            if n % 2:
                scene.feedback(first, label="negative")
        scene.clock.pass_s(1)
        scene.experiments.tick("triage")
        found = scene.state.find(Experiment)[0]
        if found.over:
            break
    return found


def account(scene):
    trail = list(scene.state.audit_trail())
    assert broken_at(trail) is None
    return [event.action for event in trail]


# --- beginning ------------------------------------------------------------------------------------------------------


def test_the_traffic_is_split_once_every_version_is_up(scene):
    begin(scene, versions=["2", "triage/3"])
    route = scene.state.get(Route, "triage")
    assert [(t.version, t.role, t.weight) for t in route.targets] == [
        ("1", Role.CHAMPION, 34),
        ("2", Role.VARIANT, 33),
        ("3", Role.VARIANT, 33),
    ]
    assert {t.version: t.verdict_id for t in route.variants} == {"2": "verdict-2", "3": "verdict-3"}
    assert set(scene.host.up) == {"triage/1", "triage/2", "triage/3"}
    assert account(scene)[-2:] == ["experiment.started", "experiment.began"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"versions": ["1"]}, "each named once"),
        ({"versions": ["2", "triage/2"]}, "each named once"),
        ({"versions": ["9"]}, "no gate has judged it"),
        ({"reason": " "}, "a person and a reason"),
        ({"metric": Metric.COST, "floor": 10}, "adapts to success or errors"),
        ({"versions": ["2", "3"], "floor": 40}, "can't keep 40 %"),
    ],
)
def test_what_makes_no_experiment_is_refused_and_leaves_nothing(scene, more, says):
    before = scene.state.revision()
    with pytest.raises(Refused, match=says):
        desk(scene).start(replace(WANTED, **more))
    assert scene.state.revision() == before


def test_a_version_that_its_gates_refused_answers_nobody(scene):
    refused = passed_verdict("2", passed=False)
    with scene.state.note() as note:
        note.put(refused)
    with pytest.raises(Refused, match="its gates refused it"):
        desk(scene).start(WANTED)


def test_an_endpoint_without_a_version_has_no_experiment(tmp_path):
    with pytest.raises(UnknownEndpoint):
        desk(Scene(tmp_path)).start(WANTED)


def test_one_thing_is_tried_at_a_time(scene):
    begin(scene)
    with pytest.raises(Refused, match="is under way"):
        desk(scene).start(WANTED)
    desk(scene).stop("triage", "ada", "enough")
    scene.rollouts.begin(GatePassed(endpoint="triage", verdict_id="verdict-2"), immediately)
    with pytest.raises(Refused, match="on its way to the traffic"):
        desk(scene).start(WANTED)


def test_a_version_that_does_not_come_up_ends_it_before_it_began(scene):
    scene.host.broken["triage/3"] = "It ran out of memory."
    begin(scene, versions=["2", "3"])
    [found] = scene.state.find(Experiment)
    assert found.over
    assert "out of memory" in found.verdict
    assert len(scene.state.get(Route, "triage").targets) == 1


def test_a_version_of_another_protocol_is_told_to_be_compared_offline(scene):
    scene.host.wires["triage/2"] = Wire.OPENAI
    begin(scene)
    assert "speaks the openai protocol" in scene.state.find(Experiment)[0].verdict


def test_its_servers_stay_up_while_it_begins(scene):
    made = desk(scene).start(WANTED)
    scene.host.start(scene.registry.version("triage", "2"))
    with scene.state.note() as note:
        note.put(replace(passed_verdict("2"), decided_at=scene.clock.now().replace(year=2020)))
    fleet = Fleet(scene.state, scene.registry, scene.host, scene.clock)
    for _ in range(3):
        scene.clock.pass_s(10)
        fleet.reconcile()
    assert "triage/2" in scene.host.up
    desk(scene).stop("triage", "ada", "never mind")
    for _ in range(3):
        scene.clock.pass_s(10)
        fleet.reconcile()
    fleet.close()
    assert "triage/2" not in scene.host.up
    scene.experiments.begin(ExperimentStarted(endpoint="triage", experiment_id=made.id), immediately)
    assert scene.state.find(Experiment)[0].verdict == "stopped by ada: never mind"


def test_a_beginning_survives_a_death_after_any_step(scene):
    class Died(Exception):
        pass

    made, written, died = desk(scene).start(replace(WANTED, versions=["2", "3"])), {}, set()

    def steps(name, function, *arguments):
        if name not in written:
            result = immediately(name, function, *arguments)
            if name not in died:
                died.add(name)
                raise Died
            written[name] = result
        return written[name]

    for _ in range(6):
        with contextlib.suppress(Died):
            scene.experiments.begin(ExperimentStarted(endpoint="triage", experiment_id=made.id), steps)
    assert account(scene).count("experiment.began") == 1
    assert scene.state.get(Experiment, made.id).state is ExperimentState.RUNNING


# --- ending ---------------------------------------------------------------------------------------------------------


def test_the_better_version_is_found_and_the_champion_answers_again(scene):
    begin(scene, max_requests=10_000)
    found = serve(scene, 200, {"1": 0.6, "2": 0.9})
    assert (found.winner, found.state) == ("triage/2", ExperimentState.ENDED)
    assert "triage/2 has a higher success rate than all others" in found.verdict
    assert [t.version for t in scene.state.get(Route, "triage").targets] == ["1"]
    ended = list(scene.state.audit_trail())[-1]
    assert (ended.action, ended.evidence["winner"]) == ("experiment.ended", "triage/2")
    assert ended.evidence["versions"]["triage/2"]["requests"] == found.tallies["triage/2"].requests


def test_a_winner_is_promoted_if_that_was_asked_for(scene):
    begin(scene, promote=True, max_requests=10_000)
    serve(scene, 200, {"1": 0.6, "2": 0.9})
    route = scene.state.get(Route, "triage")
    assert (route.champion.version, route.previous.version, route.champion.weight) == ("2", "1", 100)
    assert route.champion.verdict_id == "verdict-2"
    assert route.policy_hash == "policy-2"
    told = [e for e in scene.state.pending_events(100) if isinstance(e, VersionPromoted)]
    assert told[-1].version == "2"


def test_a_champion_that_wins_stays(scene):
    begin(scene, promote=True, max_requests=10_000)
    found = serve(scene, 200, {"1": 0.9, "2": 0.6})
    assert found.winner == "triage/1"
    assert scene.state.get(Route, "triage").champion.version == "1"


def test_equal_versions_end_undecided_at_the_last_request(scene):
    begin(scene, max_requests=600)
    found = serve(scene, 200, {})
    assert (found.winner, found.over) == ("", True)
    assert "still open" in found.verdict
    assert 600 <= found.requests < 630


def test_equal_versions_end_sooner_if_a_margin_says_what_equal_is(scene):
    begin(scene, max_requests=100_000, margin=0.3)
    found = serve(scene, 100, {})
    assert "differs from the champion's by 0.3 or more" in found.verdict


def test_a_version_that_fails_more_often_ends_it_whatever_it_is_about(scene):
    begin(scene, max_requests=100_000)
    found = serve(scene, 100, {}, fails={"2": 0.5})
    assert "triage/2 fails more often than the champion" in found.verdict
    assert [t.version for t in scene.state.get(Route, "triage").targets] == ["1"]


def test_the_faster_and_the_cheaper_version_are_found(scene):
    begin(scene, metric=Metric.LATENCY, max_requests=10_000)
    assert serve(scene, 50, {}, took={"1": 80, "2": 20}).winner == "triage/2"
    begin(scene, metric=Metric.COST, max_requests=10_000)
    found = serve(scene, 50, {}, cost={"1": 0.002, "2": 0.001})
    assert (found.winner, found.metric) == ("triage/2", Metric.COST)


def test_a_worker_that_dies_between_looks_counts_each_answer_once(scene):
    begin(scene, max_requests=100_000)
    for _ in range(6):
        scene.experiments = new_experiments(scene)
        serve(scene, 1, {})
        scene.experiments.tick("triage")
    found = scene.state.find(Experiment)[0]
    rows = Counter(row["model_version"] for row in scene.tables.rows["inference"])
    assert {ref: t.requests for ref, t in found.tallies.items()} == {f"triage/{v}": n for v, n in rows.items()}
    assert sum(t.labelled for t in found.tallies.values()) == len(scene.tables.rows["feedback"])


def test_what_was_asked_before_the_split_counts_for_nothing(scene):
    made = desk(scene).start(WANTED)
    early = scene.request("1", "champion")
    scene.clock.pass_s(5)
    scene.experiments.begin(ExperimentStarted(endpoint="triage", experiment_id=made.id), immediately)
    scene.clock.pass_s(1)
    scene.feedback(early, label="negative")
    scene.feedback(scene.request("1", "champion"), label="negative")
    scene.experiments.tick("triage")
    [found] = scene.state.find(Experiment)
    assert (found.tallies["triage/1"].requests, found.tallies["triage/1"].labelled) == (1, 1)


def test_a_person_may_stop_it(scene):
    begin(scene)
    serve(scene, 2, {})
    with pytest.raises(Refused, match="person and a reason"):
        desk(scene).stop("triage", "ada", "")
    desk(scene).stop("triage", "ada", "enough")
    assert scene.state.get(Route, "triage").variants == ()
    with pytest.raises(Refused, match="No experiment on triage"):
        desk(scene).stop("triage", "ada", "again")
    assert account(scene)[-1] == "experiment.stopped"


def test_a_rollback_ends_it(scene):
    begin(scene)
    route = Manual(scene.state, scene.clock, scene.host.running).rollback("triage", "ada", "callers complain")
    assert [t.version for t in route.targets] == ["1"]
    assert scene.state.find(Experiment)[0].verdict == "stopped by ada: callers complain"


def test_a_candidate_that_passed_its_gates_takes_its_place(scene):
    begin(scene, versions=["2"])
    scene.rollouts.begin(GatePassed(endpoint="triage", verdict_id="verdict-3"), immediately)
    found = scene.state.find(Experiment)[0]
    assert found.over
    assert "triage/3 passed its gates" in found.verdict
    assert [(t.version, t.role) for t in scene.state.get(Route, "triage").targets] == [
        ("1", Role.CHAMPION),
        ("3", Role.SHADOW),
    ]
    assert scene.state.get(Rollout, "verdict-3") is not None


# --- the split ------------------------------------------------------------------------------------------------------


def test_an_adaptive_split_moves_to_what_does_better_and_keeps_its_floor(scene):
    begin(scene, versions=["2", "3"], floor=10, max_requests=100_000, alpha=0.0001)
    for seed in range(8):
        scene.clock.pass_s(ADAPTS_EVERY.total_seconds())
        found = serve(scene, 3, {"1": 0.5, "2": 0.5, "3": 0.9}, seed=seed)
        if found.over:
            break
    weights = {v.version: v.weight for v in found.variants}
    assert sum(weights.values()) == 100
    assert min(weights.values()) >= 10
    assert weights["3"] > 60
    assert "experiment.adapted" in account(scene)


def test_a_split_is_a_function_of_the_counts(scene):
    begin(scene, versions=["2", "3"], floor=5)
    found = replace(
        scene.state.find(Experiment)[0],
        tallies={"triage/1": Tally(labelled=100, wrong=50), "triage/2": Tally(labelled=100, wrong=10)},
    )
    first = split(found)
    assert first == split(found)
    assert sum(first) == 100
    assert min(first) >= 5
    assert first[1] > first[0]


@pytest.mark.parametrize("number", range(2, 9))
def test_an_even_split_adds_up(number):
    shares = evenly(number)
    assert sum(shares) == 100
    assert max(shares) - min(shares) < number


def test_callers_are_spread_as_the_weights_say_and_stay_where_they_are():
    def variant(version, weight, role=Role.VARIANT):
        return Target(model="m", version=version, role=role, weight=weight, url="unix:/x", verdict_id="v")

    champion = variant("1", 100, Role.CHAMPION)
    first = routes.first("triage", Wire.MLFLOW, champion, "p")
    route = routes.split(first, [variant("2", 20), variant("3", 30)])
    keys = [f"user-{n}".encode() for n in range(4000)]
    chosen = Counter(choose(route, key).version for key in keys)
    assert [round(chosen[v] / 4000, 1) for v in ("1", "2", "3")] == [0.5, 0.2, 0.3]
    assert all(choose(route, key) == choose(route, key) for key in keys[:100])


# --- numbers --------------------------------------------------------------------------------------------------------


def test_times_fall_into_bins_that_a_quantile_is_read_from():
    times = [0] * BINS
    for ms in (10, 20, 20, 20, 900):
        times[bin_of(ms)] += 1
    found = measures(Tally(times=tuple(times)), 0.05)
    assert 18 <= found["latency"].value <= 22
    assert found["latency_p95"].value > 700


def test_false_winners_are_seldom_however_often_one_looks():
    rng, false = np.random.default_rng(5), 0
    blank = experiment()
    for _ in range(60):
        seen, tallies = blank, {v.ref: Tally() for v in blank.variants}
        for _ in range(25):
            for ref in tallies:
                labelled = int(rng.integers(20, 40))
                more = Tally(requests=labelled, labelled=labelled, wrong=int(rng.binomial(labelled, 0.2)))
                tallies[ref] += more
            seen = weigh(replace(seen, tallies=tallies))
            if outcome(seen).winner:
                false += 1
                break
    assert false / 60 <= blank.alpha


def test_differences_stand_beside_the_numbers():
    tallies = {"m/1": Tally(requests=100, labelled=100, wrong=40), "m/2": Tally(requests=100, labelled=100, wrong=10)}
    champion, other = standings(replace(experiment(), tallies=tallies))
    assert champion.against == {}
    assert other.against["success"].value == pytest.approx(0.3)
    assert other.against["success"].low < 0.3 < other.against["success"].high


def experiment():
    made = passed_verdict("1").decided_at
    return Experiment(
        id="e",
        endpoint="triage",
        state=ExperimentState.RUNNING,
        variants=tuple(Variant(model="m", version=v, verdict_id=v, weight=50) for v in ("1", "2")),
        metric=Metric.SUCCESS,
        alpha=0.05,
        max_requests=10**9,
        margin=0.0,
        floor=0,
        promote=False,
        started_at=made,
        started_by="ada",
        reason="why",
        changed_at=made,
        began_at=made,
        cursor_us=0,
        feedback_cursor_us=0,
    )


def test_a_verdict_is_never_given_by_an_experiment(scene):
    before = {v.id for v in scene.state.find(Verdict)}
    begin(scene, promote=True, max_requests=10_000)
    serve(scene, 200, {"1": 0.6, "2": 0.9})
    assert {v.id for v in scene.state.find(Verdict)} == before
