"""Approvals: who may give one, who may not, and that without one nothing goes to the traffic."""

from dataclasses import replace
from datetime import timedelta

import pytest

from fakes.release import Stage as Scene
from fakes.release import immediately, passed_verdict
from noria.domain.approval import Approval, ApprovalState, obstacle, standing
from noria.domain.audit import broken_at
from noria.domain.endpoint import Route
from noria.domain.errors import Refused
from noria.domain.events import CandidateRegistered, GatePassed
from noria.domain.gate import Verdict
from noria.domain.rollout import Rollout, Stage
from noria.domain.run import Run, RunState, Trigger, TriggerKind
from noria.release.account import keep
from noria.release.approvals import Approvals, asked, requesters
from noria.release.experimenting import Experimenting
from noria.release.fleet import ON_ITS_WAY, Fleet
from noria.release.manual import Manual
from noria.settings import ApprovalRule


class Office:
    """A scene whose verdicts wait for people; version 1 is champion."""

    def __init__(self, folder):
        self.scene = Scene(folder)
        self.state, self.clock = self.scene.state, self.scene.clock
        self.approvals = Approvals(self.state, self.clock)
        self.manual = Manual(self.state, self.clock, self.scene.host.running)
        with self.state.note() as note:
            note.put(passed_verdict("1"))
        self.begin("verdict-1")

    def ask(self, version, *, requested_by=("bob",), champion="triage/1", **rule):
        """A verdict whose gates have passed and that waits; its id."""
        self.clock.pass_s(60)
        verdict = passed_verdict(version, champion=champion)
        verdict = replace(verdict, needs_approval=True, decided_at=self.clock.now())
        approval = asked(verdict, ApprovalRule.model_validate(rule), requested_by)
        keep(self.state, verdict, "noria", "verdict.passed", "all gates passed", approval)
        return verdict.id

    def begin(self, verdict_id):
        self.scene.rollouts.begin(GatePassed(endpoint="triage", verdict_id=verdict_id), immediately)

    def told(self, verdict_id):
        """Whether the loop was told that the verdict allows a rollout."""
        return GatePassed(endpoint="triage", verdict_id=verdict_id) in self.state.pending_events(1000)

    def approval(self, verdict_id):
        return self.state.get(Approval, verdict_id)

    def account(self):
        trail = list(self.state.audit_trail())
        assert broken_at(trail) is None
        return trail

    def untouched(self, verdict_id):
        """Whether the refused decision left nothing behind."""
        return self.approval(verdict_id).waits and not self.told(verdict_id) and self.account()[-1].actor == "noria"


@pytest.fixture
def office(tmp_path):
    return Office(tmp_path)


# --- with approval --------------------------------------------------------------------------------------------------


def test_what_waits_gets_no_traffic_and_the_loop_is_not_told(office):
    waits = office.ask("2")
    assert not office.told(waits)
    with pytest.raises(Refused, match="doesn't allow a rollout: waits for approval by anybody but bob"):
        office.begin(waits)
    assert [t.version for t in office.state.get(Route, "triage").targets] == ["1"]
    assert office.state.get(Rollout, waits) is None


def test_an_approved_version_goes_to_its_rollout_under_the_approvers_name(office):
    waits = office.ask("2")
    office.clock.pass_s(30)
    given = office.approvals.approve(waits, " ada ", "the numbers hold")
    assert (given.state, given.by, given.at, given.reason) == (
        ApprovalState.APPROVED, "ada", office.clock.now(), "the numbers hold"
    )  # fmt: skip
    assert office.approval(waits) == given
    assert office.told(waits)
    last = office.account()[-1]
    assert (last.actor, last.action, last.subject, last.reason) == (
        "ada", "approval.given", "triage/2", "the numbers hold"
    )  # fmt: skip
    assert last.evidence["requested_by"] == ["bob"]
    office.begin(waits)
    assert office.state.get(Rollout, waits).stage is Stage.SHADOW


def test_only_a_person_whom_the_policy_names_may_approve(office):
    waits = office.ask("2", people=["Ada Lovelace", "Grace"])
    with pytest.raises(Refused, match="mallory may not decide"):
        office.approvals.approve(waits, "mallory", "looks fine")
    assert office.untouched(waits)
    assert office.approvals.approve(waits, "ada  LOVELACE", "looks fine").state is ApprovalState.APPROVED


# --- four eyes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bob", " BOB ", "\uff22\uff4f\uff42"])
@pytest.mark.parametrize("decide", ["approve", "refuse"])
def test_who_asked_for_it_may_not_decide_however_the_name_is_written(office, name, decide):
    waits = office.ask("2")
    with pytest.raises(Refused, match="wants a second person"):
        getattr(office.approvals, decide)(waits, name, "mine is good")
    assert office.untouched(waits)


def test_who_asked_for_it_may_not_decide_even_where_the_policy_names_them(office):
    waits = office.ask("2", people=["bob", "ada"])
    assert office.approval(waits).whom == "ada"
    with pytest.raises(Refused, match="wants a second person"):
        office.approvals.approve(waits, "bob", "mine is good")
    assert office.untouched(waits)


def test_without_four_eyes_one_person_is_enough(office):
    waits = office.ask("2", four_eyes=False)
    assert office.approval(waits).whom == "anybody"
    assert office.approvals.approve(waits, "bob", "mine is good").by == "bob"


def test_the_loop_itself_approves_nothing(office):
    waits = office.ask("2", requested_by=())
    with pytest.raises(Refused, match="it takes a person"):
        office.approvals.approve(waits, "Noria", "all gates passed")
    assert office.untouched(waits)


def test_all_who_asked_are_known_whoever_ran_or_uploaded_or_proposed_it(office):
    trigger = Trigger(kind=TriggerKind.PERSON, cause="c", actor="bob", reason="r")
    run = Run(id="run-1", endpoint="triage", trigger=trigger, state=RunState.SUCCEEDED, started_at=office.clock.now())
    other = replace(run, id="run-2", model="triage", version="2", trigger=replace(trigger, actor="eve"))
    mine = replace(run, id="run-3", model="triage", version="9", trigger=replace(trigger, actor="stranger"))
    with office.state.note() as note:
        for each in (run, other, mine):
            note.put(each)
    for actor in ("carol", "noria", "carol"):
        with office.state.change(actor, "version.registered", "triage/2"):
            pass
    event = CandidateRegistered(endpoint="triage", model="triage", version="2", run_id="run-1")
    assert sorted(requesters(office.state, event)) == ["bob", "carol", "eve"]


def test_a_run_that_the_loop_began_itself_was_asked_for_by_nobody(office):
    trigger = Trigger(kind=TriggerKind.ALERT, cause="c", actor="noria", reason="r")
    with office.state.note() as note:
        note.put(Run(id="r", endpoint="triage", trigger=trigger, state=RunState.RUNNING, started_at=office.clock.now()))
    event = CandidateRegistered(endpoint="triage", model="triage", version="2", run_id="r")
    assert requesters(office.state, event) == ()


# --- refused, twice, too late ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("person", "reason"), [("", "good"), ("  ", "good"), ("ada", ""), ("ada", "  ")])
def test_an_approval_has_a_person_and_a_reason(office, person, reason):
    waits = office.ask("2")
    with pytest.raises(Refused, match="a person and a reason"):
        office.approvals.approve(waits, person, reason)
    assert office.untouched(waits)


def test_what_people_refused_gets_no_rollout(office):
    waits = office.ask("2")
    office.approvals.refuse(waits, "ada", "wrong tone")
    assert office.account()[-1].action == "approval.refused"
    assert not office.told(waits)
    with pytest.raises(Refused, match="refused by ada: wrong tone"):
        office.begin(waits)


@pytest.mark.parametrize("first", ["approve", "refuse"])
@pytest.mark.parametrize("then", ["approve", "refuse"])
def test_it_is_decided_once(office, first, then):
    waits = office.ask("2")
    decided = getattr(office.approvals, first)(waits, "ada", "so be it")
    with pytest.raises(Refused, match="waits for nobody"):
        getattr(office.approvals, then)(waits, "grace", "or not")
    assert office.approval(waits) == decided
    assert [e.actor for e in office.account() if e.action.startswith("approval.")] == ["ada"]


def test_an_approval_that_expired_can_not_be_given_even_before_the_worker_looks(office):
    waits = office.ask("2", expires="1h")
    office.clock.pass_s(3600)
    with pytest.raises(Refused, match="was over at"):
        office.approvals.approve(waits, "ada", "late")
    assert office.untouched(waits)


def test_what_nobody_decided_expires_on_record_once(office):
    waits = office.ask("2", expires="3d", people=["ada"])
    office.clock.pass_s(timedelta(days=3).total_seconds() - 1)
    [said] = office.approvals.turn()
    assert "waits for approval by ada until" in said.summary
    assert office.approvals.lapsed("triage") == ""
    office.clock.pass_s(1)
    for _ in range(3):
        [said] = office.approvals.turn()
        assert (said.approval.state, said.summary) == (ApprovalState.EXPIRED, "")
    assert [e.actor for e in office.account() if e.action == "approval.expired"] == ["noria"]
    assert "nobody decided within 3 d, though it waited for ada" in office.approvals.lapsed("triage")
    with pytest.raises(Refused, match="expired: nobody decided"):
        office.begin(waits)
    with pytest.raises(Refused, match="waits for nobody"):
        office.approvals.approve(waits, "ada", "late")


def test_a_verdict_whose_approval_is_missing_gets_no_rollout(office):
    with office.state.note() as note:
        note.put(replace(passed_verdict("2", champion="triage/1"), needs_approval=True))
    with pytest.raises(Refused, match="asks for an approval, and none is kept"):
        office.begin("verdict-2")
    with pytest.raises(Refused, match="Nobody is asked"):
        office.approvals.approve("verdict-2", "ada", "good")
    with pytest.raises(Refused, match="There is no verdict"):
        office.approvals.approve("verdict-7", "ada", "good")


# --- what was true then ---------------------------------------------------------------------------------------------


def test_what_was_compared_with_another_champion_is_not_approved(office):
    waits = office.ask("2", champion="triage/3")
    with pytest.raises(Refused, match="compared with triage/3, and triage/1 answers now"):
        office.approvals.approve(waits, "ada", "good")
    assert office.untouched(waits)
    office.approvals.turn()
    assert office.approval(waits).state is ApprovalState.EXPIRED


def test_an_older_verdict_is_not_approved_past_a_later_one_that_was_allowed(office):
    older, newer = office.ask("2"), office.ask("3")
    office.approvals.approve(newer, "ada", "better")
    with pytest.raises(Refused, match="triage/3, judged later, was allowed meanwhile"):
        office.approvals.approve(older, "ada", "good, too")
    office.approvals.turn()
    assert [office.approval(each).state for each in (older, newer)] == [ApprovalState.EXPIRED, ApprovalState.APPROVED]


def test_of_two_that_wait_the_older_may_be_approved_first(office):
    older, newer = office.ask("2"), office.ask("3")
    assert office.approvals.approve(older, "ada", "good").state is ApprovalState.APPROVED
    assert office.approval(newer).waits


def test_what_expires_while_somebody_decides_stays_as_decided(office, monkeypatch):
    waits = office.ask("2", expires="1h")
    office.clock.pass_s(3599)
    stale = office.approval(waits)
    office.approvals.approve(waits, "ada", "just in time")
    office.clock.pass_s(1)
    ended = office.approvals._end_if_due(stale, office.clock.now())  # as a worker that had read before
    assert ended.state is ApprovalState.APPROVED
    assert office.approval(waits).by == "ada"
    assert "approval.expired" not in [e.action for e in office.account()]


# --- by other ways --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["waiting", "refused", "expired"])
def test_an_override_is_a_verdict_in_somebodys_own_name(office, end):
    waits = office.ask("2", expires="1h")
    if end == "refused":
        office.approvals.refuse(waits, "ada", "no")
    if end == "expired":
        office.clock.pass_s(3600)
        office.approvals.turn()
    over = office.manual.override(waits, "grace", "incident 12")
    assert (over.override_by, over.needs_approval, office.told(over.id)) == ("grace", False, True)
    assert standing(over, None) == "overridden"
    assert office.account()[-1].action == "verdict.overridden"
    with pytest.raises(Refused):
        office.approvals.approve(waits, "ada", "after all")
    office.approvals.turn()
    assert not office.approval(waits).waits
    office.begin(over.id)
    assert office.state.get(Rollout, over.id).stage is Stage.SHADOW


def test_what_is_approved_has_nothing_to_override(office):
    waits = office.ask("2")
    office.approvals.approve(waits, "ada", "good")
    with pytest.raises(Refused, match="passed already"):
        office.manual.override(waits, "grace", "hurry")


def test_what_waits_is_not_tried_on_callers_in_an_experiment_either(office):
    waits = office.ask("2")
    variant = Experimenting(office.state, office.clock)._variant
    with pytest.raises(Refused, match="may not answer callers of triage: waits for approval"):
        variant("triage", "triage/2", 50)
    office.approvals.approve(waits, "ada", "good")
    assert variant("triage", "triage/2", 50).verdict_id == waits


def test_the_model_server_of_what_waits_is_let_go_and_kept_once_it_is_approved(office):
    waits = office.ask("2")
    office.scene.host.start(office.scene.registry.version("triage", "2"))
    fleet = Fleet(office.state, office.scene.registry, office.scene.host, office.clock)
    routes, running = office.state.find(Route), office.scene.host.running()
    assert fleet.unneeded(routes, running) == ["triage/2"]
    office.clock.pass_s(2 * ON_ITS_WAY.total_seconds())
    office.approvals.approve(waits, "ada", "good")
    assert fleet.unneeded(routes, running) == []


# --- words ----------------------------------------------------------------------------------------------------------


def test_a_verdict_says_in_a_word_what_it_comes_to(office):
    plain, failed = passed_verdict("2"), passed_verdict("2", passed=False)
    assert [standing(plain, None), standing(failed, None)] == ["passed", "refused"]
    assert [obstacle(plain, None), obstacle(failed, None)] == ["", "quality: Worse"]
    asking = replace(plain, needs_approval=True)
    assert standing(asking, None) == "unapproved"
    waits = asked(asking, ApprovalRule(), ("bob",))
    words = {state: standing(asking, replace(waits, state=state)) for state in ApprovalState}
    assert words == {state: state.value for state in ApprovalState}
    free = [state for state in ApprovalState if not obstacle(asking, replace(waits, state=state))]
    assert free == [ApprovalState.APPROVED]


def test_a_policy_that_names_only_who_asked_for_it_says_that_nobody_can_decide(office):
    assert office.approval(office.ask("2", people=["Bob"])).whom == "nobody: Bob asked for it"


def test_verdicts_that_were_stored_before_approvals_were_asked_for_stand(office):
    assert office.state.get(Verdict, "verdict-1").needs_approval is False
    assert office.state.get(Route, "triage").champion.version == "1"
