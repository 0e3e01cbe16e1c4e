"""How the release room writes its decisions down; light, so that any process may take one."""

from dataclasses import asdict, replace
from datetime import datetime

from noria.domain.approval import Approval
from noria.domain.endpoint import Route
from noria.domain.errors import Conflict
from noria.domain.events import GateFailed, GatePassed, VersionPromoted
from noria.domain.experiment import Experiment, ExperimentState
from noria.domain.gate import Verdict
from noria.domain.rollout import Rollout, Stage
from noria.ports import Change, StateStore

OVERRIDE = "-override"
"""What the id of a verdict that overrides another one ends in."""


def keep(
    state: StateStore, verdict: Verdict, actor: str, action: str, reason: str, approval: Approval | None = None
) -> None:
    """Store a verdict with its account and, if it waits for people, what they are asked; else tell the loop."""
    evidence: dict[str, object] = {
        "endpoint": verdict.endpoint,
        "verdict": verdict.id,
        "champion": verdict.champion,
        "policy_hash": verdict.policy_hash,
        "gates": {r.gate: {"passed": r.passed, "numbers": dict(r.numbers)} for r in verdict.results},
    }
    if approval is not None:
        evidence |= {"waits_for": approval.whom, "until": approval.expires_at.isoformat()}
    told = GatePassed if verdict.passed else GateFailed
    subject = verdict.ref
    with state.change(actor, action, subject, reason=reason, evidence=evidence) as change:
        change.put(verdict)
        if approval is not None:
            change.put(approval)
        if not (verdict.passed and verdict.needs_approval):
            change.emit(told(endpoint=verdict.endpoint, verdict_id=verdict.id))


def under_way(state: StateStore, endpoint: str) -> Rollout | None:
    """The endpoint's one rollout that isn't finished."""
    return next((r for r in state.find(Rollout, endpoint=endpoint, limit=20) if not r.stage.finished), None)


def experiment_under_way(state: StateStore, endpoint: str) -> Experiment | None:
    """The endpoint's one experiment that isn't over."""
    return next((e for e in state.find(Experiment, endpoint=endpoint, limit=20) if not e.over), None)


def ended(experiment: Experiment, at: datetime, verdict: str, winner: str = "") -> Experiment:
    """The experiment, over."""
    return replace(experiment, state=ExperimentState.ENDED, changed_at=at, verdict=verdict, winner=winner)


def route_of(change: Change, endpoint: str) -> Route:
    """The route as it is now, of an endpoint that serves."""
    route = change.get(Route, endpoint)
    assert route is not None, "a route is replaced, never removed"
    return route


def install(change: Change, route: Route) -> None:
    """Put a route with a new champion and tell the loop."""
    champion = route.champion
    change.put(route)
    change.emit(
        VersionPromoted(
            endpoint=route.endpoint, model=champion.model, version=champion.version, revision=route.revision
        )
    )


def unchanged(found: object, expected: object, what: str, remedy: str = "Look again.") -> None:
    """What is about to be replaced is what was looked at.

    Raises:
        Conflict: It isn't.
    """
    if found != expected:
        raise Conflict(f"{what} changed meanwhile.", remedy)


def tally(rollout: Rollout) -> str:
    """What was seen in the current stage, in words."""
    new, old = rollout.candidate, rollout.champion
    parts = [f"{new.errors} of {new.requests} answers failed (champion {old.errors} of {old.requests})"]
    if new.slow or old.slow:
        over = f"took longer than {rollout.slow_ms:.0f} ms"
        parts.append(f"{new.slow} of {new.timed} {over} (champion {old.slow} of {old.timed})")
    if new.refused or old.refused:
        parts.append(f"{new.refused} of {new.worded} decline (champion {old.refused} of {old.worded})")
    if new.stopped or old.stopped:
        parts.append(f"{new.stopped} were stopped by a guardrail (champion {old.stopped})")
    if new.labelled or old.labelled:
        parts.append(f"{new.wrong} of {new.labelled} labelled were wrong (champion {old.wrong} of {old.labelled})")
    if rollout.stage is Stage.SHADOW and rollout.compared:
        parts.append(f"{rollout.agreed} of {rollout.compared} answers were the same")
    return "; ".join(parts)


def evidence(rollout: Rollout) -> dict[str, object]:
    """The numbers that a decision rests on, for the audit."""
    return {
        "rollout": rollout.id,
        "stage": rollout.stage.value,
        "step": rollout.step,
        "weight": rollout.weight,
        "champion": asdict(rollout.champion),
        "candidate": asdict(rollout.candidate),
        "log_e": {guard: rollout.log_e.get(guard, 0.0) for guard in rollout.guards},
        "log_threshold": rollout.log_threshold,
        "slow_ms": rollout.slow_ms,
        "compared": rollout.compared,
        "agreed": rollout.agreed,
        "differing": list(rollout.differing),
    }
