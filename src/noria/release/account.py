"""How the release room writes its decisions down; light, so that any process may take one."""

from noria.domain.events import GateFailed, GatePassed
from noria.domain.gate import Verdict
from noria.domain.rollout import Arm, Rollout
from noria.ports import StateStore

ACTOR = "noria"
"""Who acts when the loop acts by itself."""


def keep(state: StateStore, verdict: Verdict, actor: str, action: str, reason: str) -> None:
    """Store a verdict with its account, and tell the loop."""
    evidence = {
        "endpoint": verdict.endpoint,
        "verdict": verdict.id,
        "champion": verdict.champion,
        "policy_hash": verdict.policy_hash,
        "gates": {r.gate: {"passed": r.passed, "numbers": dict(r.numbers)} for r in verdict.results},
    }
    told = GatePassed if verdict.passed else GateFailed
    subject = f"{verdict.model}/{verdict.version}"
    with state.change(actor, action, subject, reason=reason, evidence=evidence) as change:
        change.put(verdict)
        change.emit(told(endpoint=verdict.endpoint, verdict_id=verdict.id))


def under_way(state: StateStore, endpoint: str) -> Rollout | None:
    """The endpoint's one rollout that isn't finished."""
    return next((r for r in state.find(Rollout, endpoint=endpoint, limit=20) if not r.stage.finished), None)


def tally(rollout: Rollout) -> str:
    """What was seen in the current stage, in words."""
    new, old = rollout.candidate, rollout.champion
    parts = [f"{new.errors} of {new.requests} answers failed (champion {old.errors} of {old.requests})"]
    if new.labelled or old.labelled:
        parts.append(f"{new.wrong} of {new.labelled} labelled were wrong (champion {old.wrong} of {old.labelled})")
    return "; ".join(parts)


def evidence(rollout: Rollout) -> dict[str, object]:
    """The numbers that a decision rests on, for the audit."""

    def arm(seen: Arm) -> dict[str, int]:
        return {"requests": seen.requests, "errors": seen.errors, "labelled": seen.labelled, "wrong": seen.wrong}

    return {
        "rollout": rollout.id,
        "stage": rollout.stage.value,
        "step": rollout.step,
        "weight": rollout.weight,
        "champion": arm(rollout.champion),
        "candidate": arm(rollout.candidate),
        "log_e_errors": rollout.log_e_errors,
        "log_e_wrong": rollout.log_e_wrong,
        "log_threshold": rollout.log_threshold,
    }
