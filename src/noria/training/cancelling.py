"""Stopping a run, in any process: a change of the state that the worker follows."""

from dataclasses import replace

from noria.domain.errors import Conflict, Refused, UnknownModel
from noria.domain.run import Run, RunState
from noria.ports import Clock, StateStore

TOO_LATE = "register"
"""The step from which on a run has a candidate: that one is for the gates, and for a rollback."""


def cancel(state: StateStore, clock: Clock, run_id: str, actor: str, reason: str) -> Run:
    """End a run in somebody's name; what it is doing is stopped, and it registers nothing.

    Raises:
        UnknownModel: There is no such run.
        Refused: Nobody is named, no reason is given, or the run is over or has its candidate already.
        Conflict: It went on meanwhile.
    """
    run = state.get(Run, run_id)
    if run is None:
        raise UnknownModel(f"There is no run {run_id}.", "See noria run list.")
    if not actor.strip() or not reason.strip():
        raise Refused("Cancelling a run needs a person and a reason.", "Say who asks for it and why.")
    if run.state is not RunState.RUNNING:
        raise Refused(f"Run {run_id} is over: it {run.state.value}.", "There is nothing to cancel.")
    if any(step.name == TOO_LATE for step in run.steps):
        raise Refused(
            f"Run {run_id} has its candidate already.", "The gates decide about it; noria rollback takes it back."
        )
    with state.change(
        actor.strip(), "run.cancelled", run_id, reason=reason.strip(), evidence={"endpoint": run.endpoint}
    ) as change:
        latest = change.get(Run, run_id)
        if latest is None or latest.state is not RunState.RUNNING:
            raise Conflict(f"Run {run_id} ended meanwhile.", "See noria run list.")
        ended = replace(
            latest,
            state=RunState.CANCELLED,
            error=f"cancelled by {actor.strip()}: {reason.strip()}",
            finished_at=clock.now(),
            progress=None,
        )
        change.put(ended)
    return ended
