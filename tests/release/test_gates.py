"""Gates and verdicts: what passes, what is refused and why, on versions with made-up answers."""

from datetime import date, timedelta

import numpy as np
import pytest

from fakes.registry import FakeRegistry
from fakes.release import HandClock, Servers, StageHost, immediately, passed_verdict
from fakes.state import FakeState
from noria.domain.approval import Approval, ApprovalState
from noria.domain.audit import broken_at
from noria.domain.endpoint import Wire
from noria.domain.errors import InvalidProject, Refused
from noria.domain.events import CandidateRegistered, GateFailed, GatePassed
from noria.domain.gate import Verdict
from noria.domain.run import Run, RunState, Trigger, TriggerKind
from noria.release import routes
from noria.release.account import keep
from noria.release.approvals import Approvals
from noria.release.case import Case, Rows
from noria.release.gates import CLASSIFIER, judge
from noria.release.gates.parity import groups
from noria.release.judging import Release
from noria.release.manual import Manual
from noria.release.rollouts import _target
from noria.release.trial import Answers, Trial
from noria.settings import Policy, Task

POLICY = {
    "name": "triage",
    "intended_use": "Sort messages so that people answer the unhappy first.",
    "forbidden_use": ["Judge a person."],
    "owner": "care team",
    "review_by": "2026-12-31",
    "rules": {"min_accuracy": 0.7, "margin": 0.05, "max_group_gap": 0.3, "max_group_loss": 0.1, "licences": ["MIT"]},
}
GROUPS = ("delta", "united", "apple", "coachella")
LABELS = ("negative", "neutral", "positive")


def policy(**rules):
    return Policy.model_validate(POLICY | {"rules": POLICY["rules"] | rules})


def rows(n=1200, seed=0, origins=("baseline", "production")):
    rng = np.random.default_rng(seed)
    return Rows(
        texts=tuple(f"message {i}" for i in range(n)),
        labels=tuple(str(label) for label in rng.choice(LABELS, n)),
        groups=tuple(GROUPS[i % len(GROUPS)] for i in range(n)),
        origins=tuple(origins[i % 3 == 0] if len(origins) > 1 else origins[0] for i in range(n)),
    )


def model(held_out, accuracy, seed, **by_group):
    """A version that is right with that probability, or with another one on rows of a group; a function of the text."""
    rng = np.random.default_rng(seed)
    answers = {}
    for text, label, group in zip(held_out.texts, held_out.labels, held_out.groups, strict=True):
        right = rng.random() < by_group.get(group, accuracy)
        answers[text] = label if right else LABELS[(LABELS.index(label) + 1) % 3]
    return answers.__getitem__


def agreeing(held_out, champion, share, seed, **by_group):
    """A version that repeats the champion's answers, but on a share of the rows guesses anew."""
    rng = np.random.default_rng(seed)
    anew = model(held_out, 0.8, seed + 1, **by_group)
    named = zip(held_out.texts, held_out.groups, strict=True)
    changed = {text: rng.random() < share or group in by_group for text, group in named}
    return lambda text: anew(text) if changed[text] else champion(text)


class House:
    """A Release with its surroundings; version 1 may be made champion."""

    def __init__(self, folder):
        self.clock = HandClock()
        self.state = FakeState(self.clock)
        self.registry = FakeRegistry(folder, self.clock)
        self.host = StageHost()
        self.servers = Servers()
        self.rows = rows()
        self.rules = policy()
        self.task = Task.CLASSIFICATION
        self.release = Release(
            state=self.state,
            registry=self.registry,
            host=self.host,
            trial=Trial(self.servers),
            clock=self.clock,
            policy=lambda endpoint: (self.rules, "hash"),
            task=lambda endpoint: self.task,
            holdout=lambda endpoint, run_id: self.rows,
        )

    def add(self, answer, licence="MIT", card=True):
        """Register a version that answers so; returns its number."""
        run = f"run-{len(self.registry.versions('triage'))}"
        artifacts = {"card/README.md": b"# card"} if card else {}
        uri = self.registry.log_model(run, {"model": run.encode()}, artifacts)
        version = self.registry.register(uri, "triage", {"noria.licence": licence})
        self.servers.answer[f"unix:/{version.ref}"] = answer
        return version.version

    def champion(self, answer):
        number = self.add(answer)
        verdict = passed_verdict(number)
        url = self.host.start(self.registry.version("triage", number))
        with self.state.note() as note:
            note.put(verdict)
            note.put(routes.first("triage", Wire.MLFLOW, _target(verdict, url), "hash"))
        return number

    def judge(self, number):
        event = CandidateRegistered(endpoint="triage", model="triage", version=number, run_id="r")
        self.release.judge_candidate(event, immediately)
        return next(v for v in self.state.find(Verdict) if v.version == number)


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


def refused_by(verdict):
    return [r.gate for r in verdict.results if not r.passed]


# --- the twins ------------------------------------------------------------------------------------------------------


def test_a_candidate_as_good_as_the_champion_passes_with_every_number_on_record(house):
    champion = model(house.rows, 0.8, 1)
    house.champion(champion)
    verdict = house.judge(house.add(agreeing(house.rows, champion, 0.15, 5)))
    assert verdict.passed, verdict.reasons
    assert verdict.champion == "triage/1"
    assert [r.gate for r in verdict.results] == list(CLASSIFIER)
    numbers = {r.gate: r.numbers for r in verdict.results}
    assert (numbers["quality"]["baseline_rows"], numbers["quality"]["production_rows"]) == (800, 400)
    assert 0.7 < numbers["quality"]["candidate_accuracy"] < 0.9
    assert numbers["groups"]["candidate_groups_judged"] == 4
    assert numbers["groups"]["champion_gap"] >= 0
    assert numbers["latency"]["requests"] == 60
    assert [type(e) for e in house.state.pending_events()] == [GatePassed]
    assert "triage/2" in house.host.running()


def test_a_worse_candidate_is_refused_for_its_quality(house):
    house.champion(model(house.rows, 0.8, 1))
    verdict = house.judge(house.add(model(house.rows, 0.72, 2)))
    assert "quality" in refused_by(verdict)
    assert any("may be worse than -0.05" in reason for reason in verdict.reasons)
    assert [type(e) for e in house.state.pending_events()] == [GateFailed]
    assert house.host.stopped == ["triage/2"]
    trail = list(house.state.audit_trail())
    assert [e.action for e in trail] == ["verdict.refused"]
    assert broken_at(trail) is None
    assert trail[0].evidence["gates"]["quality"]["passed"] is False


def test_a_candidate_that_fails_one_group_is_refused_for_that_group(house):
    champion = model(house.rows, 0.8, 1)
    house.champion(champion)
    unfair = agreeing(house.rows, champion, 0.0, 3, coachella=0.45)
    better = {t for t, g in zip(house.rows.texts, house.rows.groups, strict=True) if g != "coachella"}
    right = dict(zip(house.rows.texts, house.rows.labels, strict=True))
    verdict = house.judge(house.add(lambda text: right[text] if text in better else unfair(text)))
    assert refused_by(verdict) == ["slices", "groups"]
    parts, reason = verdict.reasons
    assert "Group coachella of origin baseline" in parts
    assert "coachella (300 rows) falls from" in reason
    assert "a gap of" in reason
    found = {r.gate: r.numbers for r in verdict.results}
    assert found["groups"]["largest_group_loss"] > 0.2


def test_forgetting_the_old_rows_is_not_made_up_for_by_the_new_ones(house):
    fresh = {t for t, o in zip(house.rows.texts, house.rows.origins, strict=True) if o == "production"}
    assert len(fresh) == 400
    old, new = model(house.rows, 0.8, 1), model(house.rows, 0.95, 2)
    forgetful = model(house.rows, 0.72, 3)
    house.champion(old)
    verdict = house.judge(house.add(lambda text: new(text) if text in fresh else forgetful(text)))
    assert "quality" in refused_by(verdict)
    quality = next(r for r in verdict.results if r.gate == "quality")
    assert quality.numbers["production_log_e"] > quality.thresholds["log_e"]
    assert quality.numbers["baseline_log_e"] < quality.thresholds["log_e"]


def test_an_equal_candidate_is_seldom_refused_for_a_small_group():
    refused, rng, held_out = 0, np.random.default_rng(0), rows(4 * 50)
    for _ in range(40):
        hits = rng.random((2, len(held_out.labels))) < 0.75
        answers = [
            Answers(predictions=tuple(t if h else "other" for t, h in zip(held_out.labels, hit, strict=True)))
            for hit in hits
        ]
        refused += not groups(case(held_out, answers, policy(max_group_gap=None))).passed
    assert refused / 40 <= 0.05


@pytest.mark.parametrize(
    ("accept", "candidate_gap", "passes"), [(False, 0.4, False), (True, 0.4, True), (True, 0.7, False)]
)
def test_a_gap_above_the_limit_passes_only_if_the_policy_takes_progress_and_it_is_progress(
    accept, candidate_gap, passes
):
    held_out = rows(2000)

    def served(gap):
        worse = GROUPS[0]
        return Answers(
            predictions=tuple(
                "other" if g == worse and i % 100 < 100 * gap else label
                for i, (label, g) in enumerate(zip(held_out.labels, held_out.groups, strict=True))
            )
        )

    found = groups(case(held_out, [served(candidate_gap), served(0.6)], policy(accept_smaller_gap=accept)))
    assert found.passed is passes
    assert ("champion's" in found.summary) is passes


def case(held_out, answers, rules):
    return Case(
        candidate=registered(),
        policy=rules,
        today=date(2026, 3, 1),
        has_card=True,
        rows=held_out,
        answers=answers[0],
        champion="triage/1",
        champion_answers=answers[1],
    )


def registered():
    from noria.domain.model import Flavor, ModelVersion

    return ModelVersion(
        name="triage",
        version="2",
        flavor=Flavor.PYFUNC,
        uri="",
        run_id="r",
        checksum="",
        source="",
        licence="MIT",
        created_at=HandClock().now(),
    )


# --- the other gates ------------------------------------------------------------------------------------------------


def test_a_first_version_has_to_reach_the_floor(house):
    assert house.judge(house.add(model(house.rows, 0.8, 1))).passed
    verdict = house.judge(house.add(model(house.rows, 0.6, 1)))
    assert refused_by(verdict) == ["quality"]
    assert "at least 0.700 is asked" in verdict.reasons[0]
    assert verdict.champion == ""


def test_an_expired_policy_lets_nothing_through(house):
    house.rules = Policy.model_validate(POLICY | {"review_by": "2026-02-28"})
    verdict = house.judge(house.add(model(house.rows, 0.9, 1)))
    assert refused_by(verdict) == ["policy"]
    assert "expired on 2026-02-28: care team" in verdict.reasons[0]


def test_a_policy_that_cannot_be_read_lets_nothing_through(house):
    def broken(endpoint):
        raise InvalidProject("policies/triage.yaml:3: owner: is missing.", "Write it.")

    object.__setattr__(house.release, "policy", broken)
    verdict = house.judge(house.add(model(house.rows, 0.9, 1)))
    assert not verdict.passed
    assert "owner: is missing" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("licence", "says"), [("", "No licence"), ("Proprietary", "isn't among the policy's licences")]
)
def test_a_licence_has_to_be_named_and_allowed(house, licence, says):
    verdict = house.judge(house.add(model(house.rows, 0.9, 1), licence=licence))
    assert refused_by(verdict) == ["licence"]
    assert says in verdict.reasons[0]


def test_a_version_without_a_card_is_refused(house):
    assert refused_by(house.judge(house.add(model(house.rows, 0.9, 1), card=False))) == ["card"]


def test_a_slow_version_is_refused(house):
    house.rules = policy(max_latency_p95_ms=0.000001)
    assert refused_by(house.judge(house.add(model(house.rows, 0.9, 1)))) == ["latency"]


def test_a_gap_that_cannot_be_measured_is_not_within_its_limit(house):
    house.rules = policy(min_group_rows=1000)
    verdict = house.judge(house.add(model(house.rows, 0.9, 1)))
    assert refused_by(verdict) == ["groups"]
    assert "fewer than two have 1000" in verdict.reasons[0]


# --- fail closed ----------------------------------------------------------------------------------------------------


def test_a_model_server_that_does_not_come_up_is_a_refusal_that_says_why(house):
    number = house.add(model(house.rows, 0.9, 1))
    house.host.broken["triage/1"] = "The model file is damaged."
    verdict = house.judge(number)
    assert refused_by(verdict) == ["answers", "quality", "groups", "latency", "cost"]
    assert all("The model file is damaged." in reason for reason in verdict.reasons)


def test_a_model_server_that_answers_garbage_is_a_refusal_that_says_why(house):
    verdict = house.judge(house.add(lambda text: {"no": "label"}))
    assert "answers" not in [r.gate for r in verdict.results if r.passed]
    assert any("say something" in r or "one answer for each row" in r for r in verdict.reasons)


def test_without_held_out_rows_nothing_passes(house):
    house.rows = None
    verdict = house.judge(house.add(lambda text: "negative"))
    assert {"quality", "groups"} <= set(refused_by(verdict))


def test_a_champion_that_is_coming_back_is_waited_for(house):
    champion = model(house.rows, 0.8, 1)
    house.champion(champion)
    house.servers.answer["unix:/new"] = house.servers.answer.pop("unix:/triage/1")
    house.host.up["triage/1"] = "unix:/new"
    assert house.judge(house.add(champion)).passed


def test_a_champion_that_stays_away_refuses_the_candidate(house):
    house.champion(model(house.rows, 0.8, 1))
    house.servers.answer.pop("unix:/triage/1")
    verdict = house.judge(house.add(model(house.rows, 0.9, 1)))
    assert refused_by(verdict) == ["quality", "slices", "groups"]
    assert "gave no answers to compare with" in verdict.reasons[0]


def test_a_gate_that_breaks_has_not_passed(monkeypatch):
    def quality(case):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("noria.release.gates.CLASSIFIER", ("quality",))
    [result] = judge(Task.CLASSIFICATION, case(rows(8), [None, None], policy()), lambda name: quality)
    assert (result.gate, result.passed) == ("quality", False)
    assert "ZeroDivisionError: by zero" in result.summary


def test_judging_again_after_a_death_keeps_the_first_verdict(house):
    number = house.add(model(house.rows, 0.8, 1))
    first = house.judge(number)
    house.rules = policy(min_accuracy=0.99)
    assert house.judge(number) == first
    assert len(list(house.state.audit_trail())) == 1


# --- chat -----------------------------------------------------------------------------------------------------------


def test_a_chat_version_has_to_say_something_in_time(house):
    house.task, house.rows, house.rules = Task.CHAT, None, policy(min_accuracy=None)
    assert house.judge(house.add(lambda prompt: f"Sure: {prompt}")).passed
    asked = [body for _, path, body in house.servers.calls if path == "/v1/chat/completions"]
    assert len(asked) == 4
    silent = house.judge(house.add(lambda prompt: " "))
    assert refused_by(silent) == ["answers"]
    assert "0 of 4 answers say something" in silent.reasons[0]


# --- by hand --------------------------------------------------------------------------------------------------------


def test_a_refusal_may_be_overridden_by_a_named_person_with_a_reason(house):
    refused = house.judge(house.add(model(house.rows, 0.6, 1)))
    manual = Manual(house.state, house.clock, house.host.running)
    allowed = manual.override(refused.id, " ana ", "the floor is wrong")
    assert allowed.passed
    assert allowed.id != refused.id
    assert (allowed.override_by, allowed.override_reason) == ("ana", "the floor is wrong")
    assert allowed.results == refused.results
    assert manual.override(refused.id, "ana", "the floor is wrong") == allowed
    last = list(house.state.audit_trail())[-1]
    assert (last.actor, last.action, last.subject) == ("ana", "verdict.overridden", "triage/1")
    assert [type(e) for e in house.state.pending_events()] == [GateFailed, GatePassed]


def test_an_override_needs_a_name_a_reason_and_a_refusal(house):
    manual = Manual(house.state, house.clock, house.host.running)
    refused, passed = passed_verdict("1", passed=False), passed_verdict("2")
    keep(house.state, refused, "noria", "verdict.refused", "")
    keep(house.state, passed, "noria", "verdict.passed", "")
    for verdict_id, person, reason, says in [
        ("unknown", "ana", "why", "no verdict unknown"),
        (refused.id, "", "why", "person and a reason"),
        (refused.id, "ana", "", "person and a reason"),
        (passed.id, "ana", "why", "passed already"),
    ]:
        with pytest.raises(Refused, match=says):
            manual.override(verdict_id, person, reason)


# --- where people have the last word --------------------------------------------------------------------------------


def asking(**approval):
    return Policy.model_validate(POLICY | {"approval": approval})


def test_what_passed_waits_where_the_policy_asks_for_approval_and_the_loop_is_not_told(house):
    house.rules = asking(people=["ada"], expires="2d")
    trigger = Trigger(kind=TriggerKind.PERSON, cause="c", actor="bob", reason="new words")
    with house.state.note() as note:
        note.put(
            Run(id="r", endpoint="triage", trigger=trigger, state=RunState.SUCCEEDED, started_at=house.clock.now())
        )
    verdict = house.judge(house.add(model(house.rows, 0.8, 1)))
    assert verdict.passed, verdict.reasons
    assert verdict.needs_approval
    approval = house.state.get(Approval, verdict.id)
    assert (approval.state, approval.people, approval.requested_by) == (ApprovalState.WAITING, ("ada",), ("bob",))
    assert approval.expires_at - approval.asked_at == timedelta(days=2)
    assert house.state.pending_events() == []
    [account] = house.state.audit_trail()
    assert (account.action, account.evidence["waits_for"]) == ("verdict.passed", "ada")
    assert "waits for approval by ada" in account.reason


def test_a_verdict_that_is_told_again_after_it_was_approved_asks_nobody_again(house):
    house.rules = asking()
    number = house.add(model(house.rows, 0.8, 1))
    verdict = house.judge(number)
    Approvals(house.state, house.clock).approve(verdict.id, "ada", "good")
    house.judge(number)
    assert house.state.get(Approval, verdict.id).state is ApprovalState.APPROVED
    assert [type(e) for e in house.state.pending_events()] == [GatePassed]


def test_nobody_is_asked_to_approve_what_the_gates_refused(house):
    house.rules = asking()
    verdict = house.judge(house.add(model(house.rows, 0.4, 1)))
    assert not verdict.passed
    assert not verdict.needs_approval
    assert house.state.get(Approval, verdict.id) is None
    assert [type(e) for e in house.state.pending_events()] == [GateFailed]
