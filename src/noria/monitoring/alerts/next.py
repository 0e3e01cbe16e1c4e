"""What happens next about an alert: a run was started, waits, or none will be, and why."""

from noria.domain.alert import Alert
from noria.domain.events import AlertRaised
from noria.domain.run import Run, RunState, TriggerCursor
from noria.ports import StateStore
from noria.settings import Project

LABELS = "labels"
"""Name of the step in which a run waits for labels."""


def what_next(state: StateStore, project: Project | None, alert: Alert) -> str:
    """In words, without a full stop; empty for an alert that doesn't fire."""
    if not alert.fires:
        return ""
    event = AlertRaised(endpoint=alert.endpoint, alert_id=alert.id, at=alert.raised_at).id
    runs = state.find(Run, endpoint=alert.endpoint, limit=100) if alert.endpoint else []
    run = next((r for r in runs if r.trigger.cause == event), None)
    if run is not None:
        return _of_run(run)
    if why := _never(project, alert):
        return f"nothing by itself: {why}"
    cursor = state.get(TriggerCursor, alert.endpoint)
    if cursor is not None and cursor.postponed == alert.id:
        return f"a run waits: {cursor.why or 'none can be started yet'}"
    if cursor is not None and cursor.declined == event:
        return f"nothing by itself: {cursor.why or 'a run was declined, see noria audit show'}"
    return "whether a run is started is being decided"


def _of_run(run: Run) -> str:
    match run.state:
        case RunState.FAILED:
            return f"run {run.id} failed: {run.error.rstrip('.') or 'it left no reason'}"
        case RunState.SUCCEEDED:
            return f"run {run.id} has registered {run.model}/{run.version}, and its gates decide"
    waiting = next((step for step in run.steps if step.name == LABELS), None)
    if waiting is not None and len(run.steps) == 1:
        return f"run {run.id} waits for labels: {waiting.summary}"
    return f"run {run.id} is under way" + (f", after {run.steps[-1].name}" if run.steps else "")


def _never(project: Project | None, alert: Alert) -> str:
    """Why no run will come of it; empty if one may."""
    if not alert.asks_for_run:
        return "its rule starts no run" if alert.rule else "an alert like this starts no run"
    endpoint = project.endpoints.get(alert.endpoint) if project is not None else None
    if endpoint is None:
        return "the project has no such endpoint"
    if endpoint.training is None:
        return f"{alert.endpoint} has no training in noria.yaml"
    return "" if endpoint.training.on_alert else "training.on_alert is off"
