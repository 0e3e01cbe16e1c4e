"""Rollouts as a machine that anything may happen to: traffic, deaths, people, newer candidates, a slow state."""

import contextlib
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fakes.release import Stage as Scene
from fakes.release import immediately, passed_verdict
from noria.domain.audit import broken_at
from noria.domain.endpoint import FULL_WEIGHT, Role, Route
from noria.domain.errors import NoriaError, Refused
from noria.domain.events import GatePassed, RolledBack
from noria.domain.gate import Verdict
from noria.domain.model import Alias
from noria.domain.rollout import Rollout, Stage
from noria.release.manual import Manual
from noria.release.steering import Steering

PLAN = {"shadow_requests": 10, "steps": [10, 50], "step_requests": 10}


class Rolling(RuleBasedStateMachine):
    """One endpoint, its candidates, and everybody who may change something, in any order."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.scene = Scene(Path(self.folder.name), **PLAN)
        self.next = 1
        self.before = {}
        """Where each rollout stood when it was seen last."""

    def teardown(self):
        self.folder.cleanup()

    @initialize()
    def first_version(self):
        self.candidate(passed=True)

    @rule(passed=st.booleans())
    @precondition(lambda self: self.next <= 8)
    def candidate(self, passed):
        """A verdict comes; only one that passed may begin."""
        version, self.next = str(self.next), self.next + 1
        if self.next > 4:
            uri = self.scene.registry.log_model(f"run-{version}", {"model": version.encode()})
            self.scene.registry.register(uri, "triage", {"noria.licence": "MIT"})
        verdict = passed_verdict(version, passed=passed or version == "1")
        with self.scene.state.note() as note:
            note.put(verdict)
        with contextlib.suppress(Refused):
            self.scene.rollouts.begin(GatePassed(endpoint="triage", verdict_id=verdict.id), immediately)

    @rule(looks=st.integers(1, 6), bad=st.sampled_from([0, 0, 0, 10]), restart=st.booleans())
    def traffic(self, looks, bad, restart):
        """Callers ask and the worker looks; it may be another worker each time."""
        if restart:
            self.scene.rollouts = self.scene.new_rollouts()
        for _ in range(looks):
            route = self.scene.state.get(Route, "triage")
            for n in range(10):
                canary = route.canary is not None and n < 5
                self._ask(route, route.canary if canary else route.champion, bad, n)
            self.scene.clock.pass_s(1)
            self.scene.rollouts.tick("triage")

    def _ask(self, route, target, bad, n):
        failed = target.role is Role.CANARY and n < bad
        outcome = {"outcome": "failed", "status": 502} if failed else {}
        first = self.scene.request(target.version, target.role, **outcome)
        for shadow in route.shadows:
            worse = {"outcome": "failed", "status": 502} if n < bad else {}
            self.scene.request(shadow.version, Role.SHADOW, shadow_of=first, **worse)

    @rule(what=st.sampled_from(["pause", "resume", "abort"]), named=st.booleans())
    def person(self, what, named):
        """Somebody steers; without a name or a reason, or with nothing under way, nothing happens."""
        before = self.scene.state.revision()
        try:
            getattr(Steering(self.scene.state, self.scene.clock), what)("triage", "ada" if named else "", "because")
        except Refused:
            assert self.scene.state.revision() == before
        else:
            assert named

    @rule()
    def take_back(self):
        """`noria rollback`."""
        with contextlib.suppress(NoriaError):
            Manual(self.scene.state, self.scene.clock, self.scene.host.running).rollback("triage", "ada", "worse")

    @rule()
    def dies_half_way(self):
        """The worker's transaction fails after it looked."""
        kept, self.scene.state.note = self.scene.state.note, lambda: 1 / 0
        changed, self.scene.state.change = self.scene.state.change, lambda *_, **__: 1 / 0
        with contextlib.suppress(ZeroDivisionError):
            self.scene.rollouts.tick("triage")
        self.scene.state.note, self.scene.state.change = kept, changed

    @invariant()
    def the_route_is_whole(self):
        route = self.scene.state.get(Route, "triage")
        if route is None:
            return
        assert sum(t.weight for t in route.targets) == FULL_WEIGHT
        assert sum(t.role is not Role.CHAMPION for t in route.targets) <= 1
        for target in route.targets:
            verdict = self.scene.state.get(Verdict, target.verdict_id)
            assert verdict.passed
            assert verdict.version == target.version

    @invariant()
    def one_candidate_at_a_time_and_it_is_the_routes(self):
        under_way = [r for r in self.scene.state.find(Rollout) if not r.stage.finished]
        assert len(under_way) <= 1
        route = self.scene.state.get(Route, "triage")
        others = [t.version for t in route.targets if t.role is not Role.CHAMPION] if route else []
        assert others == [r.version for r in under_way]
        if under_way and under_way[0].stage is Stage.CANARY:
            assert route.canary.weight == under_way[0].weight

    @invariant()
    def a_paused_rollout_never_moves_up_and_what_is_over_stays_over(self):
        for rollout in self.scene.state.find(Rollout):
            was, self.before[rollout.id] = self.before.get(rollout.id), rollout
            if was is None:
                continue
            if was.stage.finished:
                assert rollout == was
            elif was.paused and rollout.paused:
                assert rollout.weight == was.weight or rollout.stage is Stage.ROLLED_BACK
            if not rollout.stage.finished:
                assert rollout.weight >= was.weight

    @invariant()
    def the_account_is_whole(self):
        trail = list(self.scene.state.audit_trail())
        assert broken_at(trail) is None
        ended = [r for r in self.scene.state.find(Rollout) if r.stage is Stage.PROMOTED]
        assert len([e for e in trail if e.action == "version.promoted"]) == len(ended) + 1

    @invariant()
    def the_registry_follows(self):
        route = self.scene.state.get(Route, "triage")
        if route is None:
            return
        self.scene.rollouts.tick("triage")
        route = self.scene.state.get(Route, "triage")
        assert self.scene.registry.aliases("triage")[Alias.CHAMPION] == route.champion.version


Rolling.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestRolling = Rolling.TestCase


# --- one by one ----------------------------------------------------------------------------------------------------


@pytest.fixture
def scene(tmp_path):
    scene = Scene(tmp_path, **PLAN)
    for version in ("1", "2"):
        with scene.state.note() as note:
            note.put(passed_verdict(version))
        scene.rollouts.begin(GatePassed(endpoint="triage", verdict_id=f"verdict-{version}"), immediately)
    scene.clock.pass_s(1)
    return scene


def rollout(scene):
    return scene.state.get(Rollout, "verdict-2")


def copies(scene, number, failed=0):
    for n in range(number):
        first = scene.request("1", "champion")
        worse = {"outcome": "failed", "status": 502} if n < failed else {}
        scene.request("2", "shadow", shadow_of=first, **worse)
    scene.clock.pass_s(1)
    scene.rollouts.tick("triage")


def steering(scene):
    return Steering(scene.state, scene.clock)


def test_a_paused_rollout_stays_and_goes_on_at_once_when_it_is_resumed(scene):
    steering(scene).pause("triage", "ada", "a holiday")
    for _ in range(3):
        copies(scene, 10)
    assert (rollout(scene).stage, rollout(scene).candidate.requests) == (Stage.SHADOW, 30)
    assert rollout(scene).paused == "ada: a holiday"
    steering(scene).resume("triage", "ada", "back again")
    copies(scene, 1)
    assert rollout(scene).stage is Stage.CANARY
    actions = [e.action for e in scene.state.audit_trail()]
    assert actions[-3:] == ["rollout.paused", "rollout.resumed", "rollout.stepped"]


def test_a_paused_rollout_is_still_rolled_back(scene):
    steering(scene).pause("triage", "ada", "a holiday")
    for _ in range(10):
        copies(scene, 10, failed=10)
    assert rollout(scene).stage is Stage.ROLLED_BACK
    assert [t.version for t in scene.state.get(Route, "triage").targets] == ["1"]


def test_an_aborted_candidate_is_out_of_the_traffic_at_once(scene):
    steering(scene).abort("triage", "ada", "wrong data")
    assert rollout(scene).stage is Stage.ROLLED_BACK
    assert scene.state.get(Route, "triage").shadows == ()
    told = [e for e in scene.state.pending_events(100) if isinstance(e, RolledBack)]
    assert [(e.rollout_id, e.reason) for e in told] == [("verdict-2", "ada: wrong data")]
    with pytest.raises(Refused, match="No rollout of triage"):
        steering(scene).abort("triage", "ada", "again")


def test_what_makes_no_sense_is_refused(scene):
    with pytest.raises(Refused, match="person and a reason"):
        steering(scene).pause("triage", "ada", " ")
    with pytest.raises(Refused, match="isn't paused"):
        steering(scene).resume("triage", "ada", "go")
    steering(scene).pause("triage", "ada", "wait")
    with pytest.raises(Refused, match="paused already, by ada: wait"):
        steering(scene).pause("triage", "bob", "wait")


def test_a_pause_that_comes_while_the_worker_looks_is_kept(scene, monkeypatch):
    commit = type(scene.rollouts)._commit

    def late(self, before, after, decision):
        if not rollout(scene).paused:
            steering(scene).pause("triage", "ada", "now")
        commit(self, before, after, decision)

    monkeypatch.setattr(type(scene.rollouts), "_commit", late)
    copies(scene, 10)
    assert (rollout(scene).stage, rollout(scene).paused) == (Stage.SHADOW, "ada: now")
    copies(scene, 1)
    assert rollout(scene).candidate.requests == 11  # what the first look saw is counted, once


class SlowState:
    """A control database that takes its time, and every third time doesn't answer at all."""

    def __init__(self, state, pause_s):
        self._state, self._pause_s, self.calls = state, pause_s, 0

    def __getattr__(self, name):
        method = getattr(self._state, name)

        def slowly(*args, **kwargs):
            self.calls += 1
            time.sleep(self._pause_s)
            if self.calls % 7 == 0:
                raise NoriaError("The state can't be reached.", "Try again.")
            return method(*args, **kwargs)

        return slowly


def test_a_bad_candidate_is_rolled_back_while_the_control_database_is_slow_and_fails_now_and_then(scene):
    patient = scene.settings.rollout.model_copy(update={"shadow_requests": 400})
    scene.settings = scene.settings.model_copy(update={"rollout": patient})
    state, scene.state = scene.state, SlowState(scene.state, 0.01)
    scene.rollouts = scene.new_rollouts()
    looks = 0
    while not state.get(Rollout, "verdict-2").stage.finished and looks < 60:
        looks += 1
        with contextlib.suppress(NoriaError):  # the worker reports it and looks again
            copies(scene, 10, failed=10)
    ended = state.get(Rollout, "verdict-2")
    assert ended.stage is Stage.ROLLED_BACK
    assert "fails more often" in ended.history[-1].reason
    assert [t.version for t in state.get(Route, "triage").targets] == ["1"]
    assert ended.candidate.requests == ended.candidate.errors == 0  # begun anew with the stage
    trail = [e for e in state.audit_trail() if e.action == "rollout.rolled_back"]
    assert trail[-1].evidence["candidate"]["requests"] <= looks * 10
