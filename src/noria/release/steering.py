"""What a person may do about a rollout that is under way, in any process: pause it, let it go on, end it.

Each is a change of the state with a name and a reason; the worker follows at its next look. A paused rollout stays
where it is, and its guards stay awake: it is rolled back like any other.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from noria.domain.endpoint import Role, Route
from noria.domain.errors import Refused
from noria.domain.events import RolledBack
from noria.domain.rollout import Rollout, Stage
from noria.ports import Change, Clock, StateStore
from noria.release import routes
from noria.release.account import evidence, under_way


@dataclass(frozen=True, slots=True)
class Steering:
    """Pauses, resumes and aborts rollouts.

    Attributes:
        state: Routes and rollouts.
        clock: For the account.
    """

    state: StateStore
    clock: Clock

    def pause(self, endpoint: str, actor: str, reason: str) -> Rollout:
        """Let the candidate move no further up until it is resumed.

        Raises:
            Refused: Nobody is named, no reason is given, nothing is under way, or it is paused already.
        """
        rollout = self._demand(endpoint, actor, reason, "pause")
        if rollout.paused:
            raise Refused(f"{rollout.ref} is paused already, by {rollout.paused}.", "noria rollout resume ends that.")
        with self._change(rollout, "rollout.paused", actor, reason) as change:
            paused = replace(_latest(change, rollout), paused=f"{actor}: {reason}")
            change.put(paused)
        return paused

    def resume(self, endpoint: str, actor: str, reason: str) -> Rollout:
        """Let a paused candidate go on from where it stands.

        Raises:
            Refused: Nobody is named, no reason is given, nothing is under way, or it isn't paused.
        """
        rollout = self._demand(endpoint, actor, reason, "resume")
        if not rollout.paused:
            raise Refused(f"{rollout.ref} isn't paused.", "noria rollout show says where it stands.")
        with self._change(rollout, "rollout.resumed", actor, reason) as change:
            resumed = replace(_latest(change, rollout), paused="")
            change.put(resumed)
        return resumed

    def abort(self, endpoint: str, actor: str, reason: str) -> Rollout:
        """Take the candidate out of the traffic for good; the champion answers everything.

        Raises:
            Refused: Nobody is named, no reason is given, or nothing is under way.
        """
        rollout = self._demand(endpoint, actor, reason, "abort")
        with self._change(rollout, "rollout.aborted", actor, reason) as change:
            latest = _latest(change, rollout)
            ended = latest.enter(Stage.ROLLED_BACK, self.clock.now(), f"{actor}: {reason}", step=latest.step)
            change.put(ended)
            route = change.get(Route, endpoint)
            if route is not None and any(t.ref == rollout.ref and t.role is not Role.CHAMPION for t in route.targets):
                change.put(routes.alone(route))
            change.emit(RolledBack(endpoint=endpoint, rollout_id=rollout.id, reason=f"{actor}: {reason}"))
        return ended

    def _demand(self, endpoint: str, actor: str, reason: str, what: str) -> Rollout:
        if not actor.strip() or not reason.strip():
            raise Refused(f"To {what} a rollout takes a person and a reason.", "Say who asks for it and why.")
        rollout = under_way(self.state, endpoint)
        if rollout is None:
            raise Refused(f"No rollout of {endpoint} is under way.", "noria rollout list shows those that were.")
        return rollout

    def _change(self, rollout: Rollout, action: str, actor: str, reason: str) -> AbstractContextManager[Change]:
        told = evidence(rollout) | {"endpoint": rollout.endpoint}
        return self.state.change(actor, action, rollout.ref, reason=reason, evidence=told)


def _latest(change: Change, rollout: Rollout) -> Rollout:
    """The rollout as the worker left it last.

    Raises:
        Refused: It ended this moment.
    """
    latest = change.get(Rollout, rollout.id)
    if latest is None or latest.stage.finished:
        raise Refused(f"The rollout of {rollout.ref} has just ended.", "noria rollout show says how.")
    return latest
