"""The loop at a glance, as plain JSON: what `GET /api/status`, `noria status --json` and the console show.

Every noun appears under the field names of its dataclass in `noria/domain`; what is computed here is named in
`loop_status`. Nothing is read but the state store, so this works in the light API process.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from noria.domain.alert import Alert, AlertState, Silence, silenced
from noria.domain.approval import Approval, obstacle, standing
from noria.domain.audit import AuditHead
from noria.domain.endpoint import Route, Target
from noria.domain.gate import Verdict
from noria.domain.monitor import MonitorState
from noria.domain.rollout import Rollout
from noria.domain.run import Run
from noria.domain.status import AppliedProject, Heartbeat
from noria.ports import Clock, StateStore
from noria.settings import MonitorName, Project

NEWEST = 20
"""How many runs, rollouts, verdicts and audit events are shown; the store keeps them all."""
ALIVE_SECONDS = 15.0
"""A worker whose last sign of life is older than this is taken for dead."""


def loop_status(state: StateStore, project: Project | None, clock: Clock) -> dict[str, Any]:
    """Everything worth knowing about the loop now.

    Args:
        state: Where it is read from.
        project: The project in service; None where none was applied yet.
        clock: For ages.

    Returns:
        JSON values under these keys:

        - `at`: now, ISO 8601. `revision`: of the state.
        - `project`: `name`, `default_endpoint`, `hash`, `applied_at`, `actor`; None if there is none.
        - `endpoints`: a list, see `_endpoint`: `name`, `task`, `model`, `wire`, `revision`, `policy_hash`, `champion`,
          `previous`, `canary` (targets or None), `shadows`, `variants`, `monitors`, `alerts_firing`, `run`,
          `rollout`, `verdict`.
        - `alerts`: those that fire, each with `how_sure` in words and `silenced`, the id of what silences it.
        - `runs`, `rollouts`, `verdicts`: the newest, newest first; a run has `seconds`,
          a rollout `finished`, a verdict what `verdict_status` says beside its own fields.
        - `worker`: `alive`, `at`, `age_seconds`, `pid`, `spools` (each with `unshipped`), `unshipped`, `open_intents`,
          `hosts`, `telemetry`, `notifiers`, `problems`; not alive and empty if it was never seen.
        - `audit`: `events` (how many), `newest` (newest first).
    """
    now = clock.now()
    alerts = [a for a in state.find(Alert) if a.state is AlertState.FIRING]
    runs = state.find(Run, limit=NEWEST)
    rollouts = state.find(Rollout, limit=NEWEST)
    verdicts = state.find(Verdict, limit=NEWEST)
    monitors = sorted(state.find(MonitorState), key=_order)
    routes = {r.endpoint: r for r in state.find(Route)}
    names = dict.fromkeys([*(project.endpoints if project else ()), *sorted(routes)])
    endpoints = [_endpoint(name, project, routes.get(name), monitors) for name in names]
    for shown in endpoints:
        name = shown["name"]
        shown["alerts_firing"] = sum(a.endpoint == name for a in alerts)
        shown["run"] = _newest_id(runs, name)
        shown["rollout"] = _newest_id(rollouts, name)
        shown["verdict"] = _newest_id(verdicts, name)
    return {
        "at": plain(now),
        "revision": state.revision(),
        "project": _project(state, project),
        "endpoints": endpoints,
        "alerts": _alerts(state, alerts, now),
        "runs": [run_status(r, now) for r in runs],
        "rollouts": [rollout_status(r) for r in rollouts],
        "verdicts": [verdict_status(v, state.get(Approval, v.id)) for v in verdicts],
        "worker": _worker(state.get(Heartbeat, "worker"), now),
        "audit": audit_status(state),
    }


def _alerts(state: StateStore, alerts: Iterable[Alert], now: datetime) -> list[dict[str, Any]]:
    """Alerts with what nobody has to work out."""
    silences = state.find(Silence)
    held = ((a, silenced(a, silences, now)) for a in alerts)
    return [{**plain(a), "how_sure": a.how_sure, "silenced": s.id if s is not None else ""} for a, s in held]


def plain(noun: object) -> Any:
    """A noun of the domain as JSON values; numbers that JSON doesn't know (NaN, infinity) become None."""
    return msgspec.json.decode(msgspec.json.encode(noun))


def run_status(run: Run, now: datetime) -> dict[str, Any]:
    """A run with its duration so far (`seconds`), that of each of its steps, and what is done and left of the next."""
    shown: dict[str, Any] = plain(run)
    if run.progress is not None:
        shown["progress"] |= {"share": run.progress.share, "remaining_s": run.progress.remaining_s}
    shown["seconds"] = ((run.finished_at or now) - run.started_at).total_seconds()
    for step, done in zip(shown["steps"], run.steps, strict=True):
        step["seconds"] = (done.finished_at - done.started_at).total_seconds()
    return shown


def rollout_status(rollout: Rollout) -> dict[str, Any]:
    """A rollout, and whether it is over (`finished`)."""
    return {**plain(rollout), "finished": rollout.stage.finished}


def verdict_status(verdict: Verdict, approval: Approval | None) -> dict[str, Any]:
    """A verdict with what it comes to.

    Returns:
        Its own fields, `passed` (whether its gates did, or somebody overrode them), `reasons` (why they didn't),
        `standing` (passed, refused, overridden; where people are asked: waiting, approved, refused, expired),
        `obstacle` (why it allows no traffic, empty if it does) and `approval` (None if nobody is asked), with `whom`:
        for whom it waits.
    """
    return {
        **plain(verdict),
        "passed": verdict.passed,
        "reasons": list(verdict.reasons),
        "standing": standing(verdict, approval),
        "obstacle": obstacle(verdict, approval),
        "approval": None if approval is None else {**plain(approval), "whom": approval.whom},
    }


def audit_status(state: StateStore, newest: int = NEWEST) -> dict[str, Any]:
    """How many audit events there are (`events`) and the newest of them, newest first (`newest`)."""
    head = state.get(AuditHead, "audit") or AuditHead()
    tail = list(state.audit_trail(after=max(0, head.sequence - newest)))
    return {"events": head.sequence, "newest": [plain(event) for event in reversed(tail)]}


def _project(state: StateStore, project: Project | None) -> dict[str, Any] | None:
    """What is in service, and who put it there."""
    if project is None:
        return None
    applied = state.get(AppliedProject, "project")
    return {
        "name": project.project,
        "default_endpoint": project.default,
        "hash": applied.hash if applied else "",
        "applied_at": plain(applied.applied_at) if applied else None,
        "actor": applied.actor if applied else "",
    }


def _endpoint(
    name: str, project: Project | None, route: Route | None, monitors: Iterable[MonitorState]
) -> dict[str, Any]:
    """One endpoint: what it is for, who answers, and the evidence against the champion's baseline."""
    known = project.endpoints.get(name) if project else None
    champion = route.champion.version if route else ""
    return {
        "name": name,
        "task": known.task.value if known else "",
        "model": route.champion.model if route else (project.model_name(name) if project and known else ""),
        "wire": route.wire.value if route else "",
        "revision": route.revision if route else 0,
        "policy_hash": route.policy_hash if route else "",
        "champion": _target(route.champion if route else None),
        "previous": _target(route.previous if route else None),
        "canary": _target(route.canary if route else None),
        "shadows": [_target(t) for t in route.shadows] if route else [],
        "variants": [_target(t) for t in route.variants] if route else [],
        "monitors": [_monitor(m) for m in monitors if m.endpoint == name and m.model_version == champion],
    }


def _target(target: Target | None) -> dict[str, Any] | None:
    """A target without its URL, which is of no use to anybody outside."""
    if target is None:
        return None
    shown: dict[str, Any] = plain(target)
    del shown["url"]
    return shown


def _order(monitor: MonitorState) -> tuple[int, str]:
    """Monitors stand in the order in which the project file's schema names them."""
    known = [name.value for name in MonitorName]
    return (known.index(monitor.monitor) if monitor.monitor in known else len(known), monitor.monitor)


def _monitor(monitor: MonitorState) -> dict[str, Any]:
    """A monitor's evidence, without the counts that it is computed from."""
    shown: dict[str, Any] = plain(monitor)
    del shown["counts"], shown["starts"], shown["log_capitals"]
    return {**shown, "alarms": monitor.alarms}


def _worker(beat: Heartbeat | None, now: datetime) -> dict[str, Any]:
    """The worker's last sign of life."""
    if beat is None:
        return {"id": "worker", "alive": False, "at": None, "age_seconds": None, "pid": None, "spools": {},
                "unshipped": 0, "open_intents": 0, "hosts": {}, "telemetry": {}, "notifiers": {},
                "problems": []}  # fmt: skip
    shown: dict[str, Any] = plain(beat)
    age = (now - beat.at).total_seconds()
    for name, spool in beat.spools.items():
        shown["spools"][name]["unshipped"] = spool.unshipped
    return {
        **shown,
        "alive": age <= ALIVE_SECONDS,
        "age_seconds": age,
        "unshipped": sum(s.unshipped for s in beat.spools.values()),
        "open_intents": sum(s.open_intents for s in beat.spools.values()),
    }


def _newest_id(nouns: Iterable[Run | Rollout | Verdict], endpoint: str) -> str:
    """Id of the first of them that belongs to the endpoint, empty if none does."""
    return next((n.id for n in nouns if n.endpoint == endpoint), "")
