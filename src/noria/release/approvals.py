"""Approvals: asked for where a policy wants people to have the last word, given or refused by name, and ended in time.

What was asked for goes by what was true then. Should another version have become champion meanwhile, or a version that
was judged later be allowed, the numbers that people would approve are no longer those of the choice they would make.
"""

from dataclasses import dataclass
from datetime import datetime

from noria.domain.approval import Approval, ApprovalState, obstacle
from noria.domain.audit import LOOP
from noria.domain.endpoint import Route
from noria.domain.errors import Refused
from noria.domain.events import CandidateRegistered, GatePassed
from noria.domain.gate import Verdict
from noria.domain.run import Run
from noria.ports import Clock, StateStore
from noria.release.account import OVERRIDE
from noria.settings import ApprovalRule

MANY = 100_000
"""More than there are of anything."""
NEWEST = 200
"""Approvals whose end is looked at for what was said of them; more don't end between two looks."""


@dataclass(frozen=True, slots=True)
class Said:
    """What people have to know of a verdict that asked for approval.

    Attributes:
        approval: As it stands.
        summary: What is waited for, and how to decide; empty if nothing is.
    """

    approval: Approval
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Approvals:
    """Takes people's decisions, and ends what can't be decided any more.

    Attributes:
        state: Verdicts, approvals and routes.
        clock: Times.
    """

    state: StateStore
    clock: Clock

    def approve(self, verdict_id: str, person: str, reason: str) -> Approval:
        """Let a version that passed its gates go to its rollout.

        Raises:
            Refused: Nothing waits under that id, this person may not decide, no reason is given, it is too late, or
                what the verdict compared is no longer so.
        """
        verdict, waiting = self._demand(verdict_id)
        newer = self._newer(verdict)
        with self.state.change(
            person.strip(), "approval.given", verdict.ref, reason=reason.strip(), evidence=_evidence(verdict, waiting)
        ) as change:
            latest = change.get(Approval, verdict_id) or waiting
            approved = latest.decided(ApprovalState.APPROVED, person, self.clock.now(), reason)
            over = newer or _moot(verdict, change.get(Route, verdict.endpoint))
            if over:
                raise Refused(
                    f"There is nothing left to approve about verdict {verdict_id}: {over}.",
                    f"Have it judged once more: noria model add {verdict.endpoint} models:/{verdict.ref}.",
                )
            change.put(approved)
            change.emit(GatePassed(endpoint=verdict.endpoint, verdict_id=verdict_id))
        return approved

    def refuse(self, verdict_id: str, person: str, reason: str) -> Approval:
        """Keep a version that passed its gates out of the traffic.

        Raises:
            Refused: Nothing waits under that id, this person may not decide, no reason is given, or it is too late.
        """
        verdict, waiting = self._demand(verdict_id)
        with self.state.change(
            person.strip(),
            "approval.refused",
            verdict.ref,
            reason=reason.strip(),
            evidence=_evidence(verdict, waiting),
        ) as change:
            latest = change.get(Approval, verdict_id) or waiting
            refused = latest.decided(ApprovalState.REFUSED, person, self.clock.now(), reason)
            change.put(refused)
        return refused

    def turn(self) -> list[Said]:
        """End what can't be decided any more; what waits then, and what ended of late."""
        found, now = self.state.find(Approval, limit=MANY), self.clock.now()
        waiting = [each for each in found if each.waits]
        ended = {each.id: each for each in (self._end_if_due(each, now) for each in waiting)}
        shown = [ended.get(each.id, each) for n, each in enumerate(found) if n < NEWEST or each.waits]
        return [Said(each, self._summary(each)) for each in shown]

    def lapsed(self, endpoint: str) -> str:
        """Of the newest verdict about an endpoint: that nobody decided about it, and why; empty if that isn't so."""
        newest = next(iter(self.state.find(Verdict, endpoint=endpoint, limit=1)), None)
        approval = self.state.get(Approval, newest.id) if newest is not None else None
        if newest is None or approval is None or approval.state is not ApprovalState.EXPIRED:
            return ""
        return f"{newest.ref} passed its gates and gets no traffic: {approval.reason} (verdict {newest.id})."

    def _demand(self, verdict_id: str) -> tuple[Verdict, Approval]:
        verdict, approval = self.state.get(Verdict, verdict_id), self.state.get(Approval, verdict_id)
        if verdict is None:
            raise Refused(f"There is no verdict {verdict_id}.", "noria verdict list names them.")
        if approval is None:
            raise Refused(f"Nobody is asked to approve verdict {verdict_id}.", "See noria verdict show.")
        return verdict, approval

    def _newer(self, verdict: Verdict) -> str:
        """That a version which was judged later, or this one, was allowed otherwise meanwhile; empty if none was."""
        for other in self.state.find(Verdict, endpoint=verdict.endpoint, limit=NEWEST):
            if other.id == f"{verdict.id}{OVERRIDE}":
                return f"{other.override_by} overrode it"
            if other.decided_at > verdict.decided_at and not barrier(self.state, other):
                return f"{other.ref}, judged later, was allowed meanwhile"
        return ""

    def _end_if_due(self, approval: Approval, now: datetime) -> Approval:
        verdict = self.state.get(Verdict, approval.verdict_id)
        assert verdict is not None, "both are written at once"
        why = self._newer(verdict) or _moot(verdict, self.state.get(Route, verdict.endpoint))
        if now >= approval.expires_at:
            why = f"nobody decided within {_span(approval)}, though it waited for {approval.whom}"
        if not why:
            return approval
        evidence = _evidence(verdict, approval)
        ended = approval.ended(now, why)
        try:
            with self.state.change(LOOP, "approval.expired", verdict.ref, reason=why, evidence=evidence) as change:
                if change.get(Approval, approval.id) != approval:
                    raise _Meanwhile
                change.put(ended)
        except _Meanwhile:
            return self.state.get(Approval, approval.id) or approval
        return ended

    def _summary(self, approval: Approval) -> str:
        verdict = self.state.get(Verdict, approval.verdict_id) if approval.waits else None
        if verdict is None:
            return ""
        return f"{verdict.ref} passed its gates and {approval.ending}: noria verdict show {verdict.id}."


class _Meanwhile(Exception):
    """Somebody decided this moment."""


def asked(verdict: Verdict, rule: ApprovalRule, requested_by: tuple[str, ...]) -> Approval:
    """What a policy asks of people about a verdict whose gates have passed."""
    return Approval(
        verdict_id=verdict.id,
        endpoint=verdict.endpoint,
        state=ApprovalState.WAITING,
        asked_at=verdict.decided_at,
        expires_at=verdict.decided_at + rule.expires,
        people=rule.people,
        requested_by=requested_by,
        four_eyes=rule.four_eyes,
    )


def requesters(state: StateStore, event: CandidateRegistered) -> tuple[str, ...]:
    """People who asked for the run that made a candidate, or who uploaded or proposed the version."""
    ref = event.ref
    runs = state.find(Run, endpoint=event.endpoint, limit=MANY)
    mine = [run for run in runs if run.id == event.run_id or (run.model, run.version) == (event.model, event.version)]
    uploads = [e.actor for e in state.audit_trail() if e.action == "version.registered" and e.subject == ref]
    people = dict.fromkeys(name.strip() for name in (*(run.trigger.actor for run in mine), *uploads))
    return tuple(name for name in people if name and name != LOOP)


def barrier(state: StateStore, verdict: Verdict) -> str:
    """Why a verdict allows no traffic, its approval included; empty if it does."""
    return obstacle(verdict, state.get(Approval, verdict.id))


def _moot(verdict: Verdict, route: Route | None) -> str:
    """That another champion answers than the one a verdict compared with; empty if it is the same."""
    ref = verdict.ref
    champion = route.champion.ref if route is not None and route.champion.ref != ref else ""
    if champion == verdict.champion:
        return ""
    return f"it was compared with {verdict.champion or 'nobody'}, and {champion or ref} answers now"


def _evidence(verdict: Verdict, approval: Approval) -> dict[str, object]:
    return {
        "endpoint": verdict.endpoint,
        "verdict": verdict.id,
        "policy_hash": verdict.policy_hash,
        "people": list(approval.people),
        "requested_by": list(approval.requested_by),
        "four_eyes": approval.four_eyes,
        "asked_at": approval.asked_at.isoformat(),
        "expires_at": approval.expires_at.isoformat(),
    }


def _span(approval: Approval) -> str:
    """The time that there was, in words."""
    seconds = (approval.expires_at - approval.asked_at).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
