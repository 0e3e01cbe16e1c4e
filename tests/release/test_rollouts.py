"""Rollouts on a stage: what the worker does with a passed verdict, with traffic, with deaths and with people."""

import contextlib
from dataclasses import replace

import pytest

from fakes.release import Stage as Scene
from fakes.release import immediately, passed_verdict
from noria.domain.audit import broken_at
from noria.domain.endpoint import Role, Route, Wire
from noria.domain.errors import Refused, UnknownEndpoint
from noria.domain.events import CandidateRegistered, GatePassed, RolledBack, VersionPromoted
from noria.domain.gate import Verdict
from noria.domain.model import Alias
from noria.domain.rollout import Arm, Rollout, Stage
from noria.release import routes
from noria.release.manual import Manual


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)


def decide(scene, version, **more):
    """A passed verdict, and the rollout that it sets off."""
    verdict = passed_verdict(version, **more)
    with scene.state.note() as note:
        note.put(verdict)
    begin(scene, verdict.id)
    return verdict.id


def begin(scene, verdict_id, steps=immediately):
    scene.rollouts.begin(GatePassed(endpoint="triage", verdict_id=verdict_id), steps)


def serve(scene, *, looks=200, bad=0, wrong=0, rollouts=None):
    """Traffic as the route says, ten requests a look, until the rollout is over; `bad` of ten candidate answers fail,
    `wrong` of ten are wrong."""
    rollouts = rollouts or scene.rollouts
    for _ in range(looks):
        route = scene.state.get(Route, "triage")
        for n in range(10):
            canary = route.canary is not None and n < max(1, route.canary.weight // 10)
            role = "canary" if canary else "champion"
            first = ask(scene, route, role, n, bad, wrong)
            if route.shadows:
                ask(scene, route, "shadow", n, bad, wrong, shadow_of=first)
            if n % 2 == 0:
                scene.feedback(first, label="negative")
        scene.clock.pass_s(1)
        rollouts.tick("triage")
        if all(r.stage.finished for r in scene.state.find(Rollout)):
            return


def ask(scene, route, role, n, bad, wrong, shadow_of=""):
    target = next(t for t in route.targets if t.role == role)
    candidate = role != "champion"
    failed = candidate and n < bad
    return scene.request(
        target.version,
        role,
        said="positive" if candidate and n < wrong else "negative",
        outcome="failed" if failed else "answered",
        status=502 if failed else 200,
        shadow_of=shadow_of,
    )


def account(scene):
    trail = list(scene.state.audit_trail())
    assert broken_at(trail) is None
    return [event.action for event in trail]


def of_kind(scene, kind):
    return [e for e in scene.state.pending_events(10_000) if isinstance(e, kind)]


# --- beginning ------------------------------------------------------------------------------------------------------


def test_the_first_version_is_champion_at_once(scene):
    decide(scene, "1")
    route = scene.state.get(Route, "triage")
    assert (route.champion.ref, route.champion.weight, route.revision) == ("triage/1", 100, 1)
    assert (route.wire, route.policy_hash, route.champion.verdict_id) == (Wire.MLFLOW, "policy-1", "verdict-1")
    assert route.champion.url == scene.host.up["triage/1"]
    assert scene.registry.aliases("triage") == {"champion": "1"}
    assert account(scene) == ["version.promoted"]
    assert [(e.version, e.revision) for e in of_kind(scene, VersionPromoted)] == [("1", 1)]
    assert scene.state.find(Rollout) == []


def test_the_next_version_begins_in_the_shadow(scene):
    decide(scene, "1")
    decide(scene, "2")
    route = scene.state.get(Route, "triage")
    assert (route.champion.version, route.champion.weight) == ("1", 100)
    assert [(t.version, t.weight) for t in route.shadows] == [("2", 0)]
    assert scene.state.get(Rollout, "verdict-2").stage is Stage.SHADOW
    assert scene.registry.aliases("triage") == {"champion": "1", "challenger": "2"}


def test_without_a_passed_verdict_nothing_begins(scene):
    verdict = passed_verdict("1", passed=False)
    with scene.state.note() as note:
        note.put(verdict)
    for verdict_id in (verdict.id, "unheard-of"):
        with pytest.raises(Refused, match="doesn't allow"):
            begin(scene, verdict_id)
    assert scene.state.get(Route, "triage") is None
    assert scene.host.up == {}


def test_a_verdict_against_a_version_that_serves_no_more_is_not_acted_on_but_judged_anew(scene):
    decide(scene, "1")
    before = scene.state.get(Route, "triage")
    outdated = decide(scene, "2", champion="triage/77")
    assert scene.state.get(Route, "triage") == before
    assert scene.state.get(Rollout, outdated) is None
    [again] = [event for event in scene.state.pending_events() if isinstance(event, CandidateRegistered)]
    assert (again.model, again.version, again.again) == ("triage", "2", outdated)
    said = list(scene.state.audit_trail())[-1]
    assert (said.action, said.reason) == ("verdict.outdated", "it was compared with triage/77, and triage/1 serves now")
    begin(scene, outdated)  # told again: still one new judgement
    assert len([event for event in scene.state.pending_events() if isinstance(event, CandidateRegistered)]) == 1
    decide(scene, "2", champion="triage/1")
    assert [target.role for target in scene.state.get(Route, "triage").targets] == [Role.CHAMPION, Role.SHADOW]


def test_what_a_person_allowed_by_name_is_acted_on_whatever_served_then(scene):
    decide(scene, "1")
    allowed = replace(passed_verdict("2", champion="triage/77"), override_by="ada", override_reason="known")
    with scene.state.note() as note:
        note.put(allowed)
    begin(scene, allowed.id)
    assert scene.state.get(Rollout, allowed.id).stage is Stage.SHADOW


def test_a_beginning_that_is_told_again_changes_nothing(scene):
    decide(scene, "1")
    decide(scene, "2")
    before = (scene.state.get(Route, "triage"), scene.state.get(Rollout, "verdict-2"), account(scene))
    for verdict_id in ("verdict-1", "verdict-2"):
        begin(scene, verdict_id)
    assert (scene.state.get(Route, "triage"), scene.state.get(Rollout, "verdict-2"), account(scene)) == before


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_beginning_survives_a_death_after_any_step(scene, version):
    if version == "2":
        decide(scene, "1")
    with scene.state.note() as note:
        note.put(passed_verdict(version))

    class Died(Exception):
        pass

    written, died = {}, set()

    def steps(name, function, *arguments):
        if name not in written:
            result = immediately(name, function, *arguments)
            if name not in died:  # the step was done, but nobody wrote that down
                died.add(name)
                raise Died
            written[name] = result
        return written[name]

    for _ in range(5):
        with contextlib.suppress(Died):
            begin(scene, f"verdict-{version}", steps)
    assert len(written) == 4
    route = scene.state.get(Route, "triage")
    assert account(scene) == (["version.promoted"] if version == "1" else ["version.promoted", "rollout.started"])
    assert route.revision == int(version)
    assert scene.registry.aliases("triage") == {"champion": "1"} | ({"challenger": "2"} if version == "2" else {})


def test_a_candidate_whose_server_does_not_come_up_is_given_up_with_the_reason(scene):
    decide(scene, "1")
    scene.host.broken["triage/2"] = "It ran out of memory."
    decide(scene, "2")
    rollout = scene.state.get(Rollout, "verdict-2")
    assert rollout.stage is Stage.ROLLED_BACK
    assert "ran out of memory" in rollout.history[-1].reason
    assert [e.rollout_id for e in of_kind(scene, RolledBack)] == ["verdict-2"]
    assert len(scene.state.get(Route, "triage").targets) == 1


def test_a_candidate_that_speaks_another_protocol_is_given_up(scene):
    decide(scene, "1")
    scene.host.wires["triage/2"] = Wire.OPENAI
    decide(scene, "2")
    rollout = scene.state.get(Rollout, "verdict-2")
    assert rollout.stage is Stage.ROLLED_BACK
    assert "openai" in rollout.history[-1].reason


def test_a_newer_candidate_takes_the_place_of_one_that_is_on_its_way(scene):
    decide(scene, "1")
    decide(scene, "2")
    decide(scene, "3")
    assert scene.state.get(Rollout, "verdict-2").stage is Stage.ROLLED_BACK
    assert "superseded by triage/3" in scene.state.get(Rollout, "verdict-2").history[-1].reason
    assert [t.version for t in scene.state.get(Route, "triage").shadows] == ["3"]
    assert of_kind(scene, RolledBack) == []
    assert account(scene)[-2:] == ["rollout.superseded", "rollout.started"]
    assert scene.registry.aliases("triage")["challenger"] == "3"


def test_the_champion_itself_is_not_rolled_out_again(scene):
    decide(scene, "1")
    again = passed_verdict("1")
    with scene.state.note() as note:
        note.put(Verdict(**{f: getattr(again, f) for f in again.__dataclass_fields__} | {"id": "other"}))
    begin(scene, "other")
    assert scene.state.find(Rollout) == []
    assert scene.state.get(Route, "triage").revision == 1


# --- the way --------------------------------------------------------------------------------------------------------


def test_a_good_candidate_is_promoted_step_by_step_while_traffic_goes_on(scene):
    decide(scene, "1")
    decide(scene, "2")
    serve(scene)
    rollout, route = scene.state.get(Rollout, "verdict-2"), scene.state.get(Route, "triage")
    assert [(h.stage, h.weight) for h in rollout.history] == [
        (Stage.SHADOW, 0),
        (Stage.CANARY, 10),
        (Stage.CANARY, 50),
        (Stage.PROMOTED, 100),
    ]
    assert [(t.version, t.role, t.weight) for t in route.targets] == [("2", Role.CHAMPION, 100)]
    assert (route.previous.version, route.policy_hash) == ("1", "policy-2")
    assert scene.registry.aliases("triage") == {"champion": "2", "previous": "1"}
    assert [e.version for e in of_kind(scene, VersionPromoted)] == ["1", "2"]
    assert account(scene) == [
        "version.promoted",
        "rollout.started",
        "rollout.stepped",
        "rollout.stepped",
        "version.promoted",
    ]
    promoted = list(scene.state.audit_trail())[-1]
    assert promoted.evidence["verdict"] == "verdict-2"
    assert promoted.evidence["candidate"]["requests"] >= 40
    assert promoted.evidence["candidate"]["labelled"] > 0


@pytest.mark.parametrize(("harm", "says"), [({"bad": 9}, "fails more often"), ({"wrong": 9}, "is wrong more often")])
def test_a_bad_candidate_is_taken_back_before_any_caller_meets_it(scene, harm, says):
    scene.settings = scene.settings.model_copy(
        update={"rollout": scene.settings.rollout.model_copy(update={"shadow_requests": 200})}
    )
    decide(scene, "1")
    decide(scene, "2")
    serve(scene, **harm)
    rollout, route = scene.state.get(Rollout, "verdict-2"), scene.state.get(Route, "triage")
    assert rollout.stage is Stage.ROLLED_BACK
    assert says in rollout.history[-1].reason
    assert all(h.stage is not Stage.CANARY for h in rollout.history)
    assert [t.version for t in route.targets] == ["1"]
    assert [e.rollout_id for e in of_kind(scene, RolledBack)] == ["verdict-2"]
    assert scene.registry.aliases("triage") == {"champion": "1"}
    assert account(scene)[-1] == "rollout.rolled_back"
    evidence = list(scene.state.audit_trail())[-1].evidence
    assert max(evidence["log_e"].values()) >= evidence["log_threshold"]


def test_a_canary_that_turns_bad_is_taken_back(scene):
    decide(scene, "1")
    decide(scene, "2")
    while scene.state.get(Route, "triage").canary is None:
        serve(scene, looks=1)
    serve(scene, bad=10)
    assert scene.state.get(Rollout, "verdict-2").stage is Stage.ROLLED_BACK
    assert scene.state.get(Route, "triage").champion.version == "1"


def test_the_guard_works_while_the_registry_is_away(scene):
    decide(scene, "1")
    decide(scene, "2")

    def away(*_):
        raise ConnectionError("no registry")

    kept, scene.registry.set_alias = scene.registry.set_alias, away
    while scene.state.get(Rollout, "verdict-2").stage is Stage.SHADOW:
        with contextlib.suppress(ConnectionError):
            serve(scene, looks=1, bad=9)
    assert scene.state.get(Route, "triage").shadows == ()
    scene.registry.set_alias = kept
    scene.rollouts.tick("triage")
    assert scene.registry.aliases("triage") == {"champion": "1"}


def test_without_traffic_a_rollout_waits(scene):
    decide(scene, "1")
    decide(scene, "2")
    before = scene.state.revision()
    for _ in range(3):
        scene.clock.pass_s(60)
        scene.rollouts.tick("triage")
    assert scene.state.revision() == before
    assert scene.state.get(Rollout, "verdict-2").stage is Stage.SHADOW


def test_ticking_an_endpoint_without_rollout_or_route_does_nothing(scene):
    scene.rollouts.tick("triage")
    decide(scene, "1")
    before = scene.state.revision()
    scene.rollouts.tick("triage")
    assert scene.state.revision() == before


def test_a_worker_that_restarts_between_looks_counts_each_row_once(scene):
    decide(scene, "1")
    decide(scene, "2")
    for n in range(30):
        first = scene.request("1", "champion", spool=f"s{n % 3}")
        scene.request("2", "shadow", shadow_of=first, spool=f"s{n % 3}")
        scene.feedback(first, label="negative", spool=f"s{n % 2}")
        scene.clock.pass_s(1)
        rollouts = scene.new_rollouts() if n % 4 == 0 else scene.rollouts
        rollouts.tick("triage")
    rollout = scene.state.get(Rollout, "verdict-2")
    assert rollout.champion == rollout.candidate == Arm(30, 0, 30, 0)


def test_a_look_whose_transaction_fails_is_looked_at_again(scene, monkeypatch):
    decide(scene, "1")
    decide(scene, "2")
    first = scene.request("1", "champion")
    scene.request("2", "shadow", shadow_of=first)
    scene.feedback(first, label="negative")
    with monkeypatch.context() as patch:
        patch.setattr(scene.state, "note", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            scene.rollouts.tick("triage")
    scene.rollouts.tick("triage")
    rollout = scene.state.get(Rollout, "verdict-2")
    assert rollout.champion == rollout.candidate == Arm(1, 0, 1, 0)


# --- back -----------------------------------------------------------------------------------------------------------


def promoted(scene):
    decide(scene, "1")
    decide(scene, "2")
    serve(scene)
    assert scene.state.get(Route, "triage").champion.version == "2"


def test_a_rollback_brings_the_previous_champion_back_at_once(scene):
    promoted(scene)
    revision = scene.state.get(Route, "triage").revision
    scene.rollouts.rollback("triage", "ana", "customers complain")
    route = scene.state.get(Route, "triage")
    assert (route.champion.ref, route.champion.weight, route.previous) == ("triage/1", 100, None)
    assert route.revision == revision + 1
    assert scene.registry.aliases("triage") == {"champion": "1"}
    last = list(scene.state.audit_trail())[-1]
    assert (last.actor, last.action, last.reason) == ("ana", "version.rolled_back", "customers complain")
    assert of_kind(scene, VersionPromoted)[-1].version == "1"
    assert of_kind(scene, RolledBack)[-1].rollout_id == "verdict-2"
    with pytest.raises(Refused, match="no previous champion"):
        scene.rollouts.rollback("triage", "ana", "again")


def test_a_rollback_during_a_rollout_withdraws_the_candidate(scene):
    decide(scene, "1")
    decide(scene, "2")
    serve(scene, looks=7)
    assert scene.state.get(Route, "triage").canary is not None
    scene.rollouts.rollback("triage", "ana", "not today")
    assert scene.state.get(Rollout, "verdict-2").stage is Stage.ROLLED_BACK
    assert [t.version for t in scene.state.get(Route, "triage").targets] == ["1"]
    assert list(scene.state.audit_trail())[-1].action == "rollout.withdrawn"


def test_a_rollback_needs_a_previous_champion_that_runs(scene):
    promoted(scene)
    scene.host.up.pop("triage/1")
    before = scene.state.get(Route, "triage")
    with pytest.raises(Refused, match="isn't running"):
        scene.rollouts.rollback("triage", "ana", "customers complain")
    assert scene.state.get(Route, "triage") == before


@pytest.mark.parametrize(("actor", "reason"), [("", "why"), ("ana", " ")])
def test_a_rollback_needs_a_person_and_a_reason(scene, actor, reason):
    promoted(scene)
    with pytest.raises(Refused, match="person and a reason"):
        scene.rollouts.rollback("triage", actor, reason)


def test_a_rollback_of_what_was_never_served_is_an_unknown_endpoint(scene):
    with pytest.raises(UnknownEndpoint, match="triage"):
        scene.rollouts.rollback("triage", "ana", "why")


def test_another_process_may_take_back_and_the_aliases_follow_at_the_next_turn(scene):
    promoted(scene)
    Manual(scene.state, scene.clock, scene.host.running).rollback("triage", "ana", "now")
    assert scene.registry.aliases("triage")["champion"] == "2"
    scene.rollouts.tick("triage")
    assert scene.registry.aliases("triage") == {"champion": "1"}
    assert "alias.reverted" not in account(scene)


# --- the registry's aliases -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["3", None])
def test_a_foreign_change_of_the_champion_alias_is_put_back_and_accounted_for(scene, version):
    promoted(scene)
    assert scene.rollouts.foreign_alias("triage") is False
    scene.registry.set_alias("triage", Alias.CHAMPION, version)
    assert scene.rollouts.foreign_alias("triage") is True
    assert scene.registry.aliases("triage")["champion"] == "2"
    last = list(scene.state.audit_trail())[-1]
    assert (last.actor, last.action, last.subject) == ("noria", "alias.reverted", "triage@champion")
    assert last.evidence == {"endpoint": "triage", "found": version or "", "restored": "2"}
    assert scene.rollouts.foreign_alias("triage") is False


def test_an_alias_that_follows_a_promotion_while_the_guard_looks_is_no_foreign_change(scene, monkeypatch):
    decide(scene, "1")
    decide(scene, "2")
    asked = scene.registry.aliases

    def promoted_meanwhile(name):
        """The other lane has moved the route and the alias, and not yet written down that it told the registry."""
        monkeypatch.setattr(scene.registry, "aliases", asked)
        route = scene.state.get(Route, "triage")
        candidate = next(target for target in route.targets if target.role is Role.SHADOW)
        with scene.state.change("noria", "version.promoted", "triage/2") as change:
            change.put(routes.promoted(route, candidate, "hash"))
        scene.registry.set_alias("triage", Alias.CHAMPION, "2")
        return asked(name)

    scene.rollouts.tick("triage")
    monkeypatch.setattr(scene.registry, "aliases", promoted_meanwhile)
    assert not scene.rollouts.foreign_alias("triage")
    assert scene.registry.aliases("triage")["champion"] == "2"
    assert not [event for event in scene.state.audit_trail() if event.action == "alias.reverted"]


def test_an_alias_that_noria_has_not_moved_yet_is_no_foreign_change(scene):
    promoted(scene)
    Manual(scene.state, scene.clock, scene.host.running).rollback("triage", "ana", "now")
    assert scene.rollouts.foreign_alias("triage") is False
    assert scene.registry.aliases("triage") == {"champion": "1"}
    assert scene.rollouts.foreign_alias("unknown") is False
