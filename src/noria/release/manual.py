"""What a person may decide, in any process: these are changes of the state alone, and the worker follows them."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from noria.domain.endpoint import Route
from noria.domain.errors import Refused, UnknownEndpoint
from noria.domain.events import RolledBack
from noria.domain.experiment import Experiment
from noria.domain.gate import Verdict
from noria.domain.rollout import Rollout, Stage
from noria.ports import Change, Clock, StateStore
from noria.release import routes
from noria.release.account import OVERRIDE, ended, evidence, experiment_under_way, install, keep, unchanged, under_way
from noria.release.approvals import barrier


@dataclass(frozen=True, slots=True)
class Manual:
    """Takes versions back at once, and allows by name what the gates refused.

    Attributes:
        state: Routes, rollouts and verdicts.
        clock: For the account.
        running: `model/version` of every model server that answers now.
    """

    state: StateStore
    clock: Clock
    running: Callable[[], Collection[str]]

    def rollback(self, endpoint: str, actor: str, reason: str) -> Route:
        """Withdraw what is tried (a candidate on its way, an experiment's versions); else bring the last champion back.

        The previous champion was kept warm, so nothing has to start. The registry's aliases follow in the worker.

        Raises:
            UnknownEndpoint: It has no route.
            Refused: Nobody is named, no reason is given, or there is nothing that could answer instead.
            Conflict: The route changed meanwhile.
        """
        if not actor.strip() or not reason.strip():
            raise Refused("A rollback needs a person and a reason.", "Say who asks for it and why.")
        route = self.state.get(Route, endpoint)
        if route is None:
            raise UnknownEndpoint(f"{endpoint} has no version in service.", "See noria status for what is there.")
        experiment = experiment_under_way(self.state, endpoint)
        if experiment is not None:
            return self._end(route, experiment, actor, reason)
        rollout = under_way(self.state, endpoint)
        if rollout is not None and len(route.targets) > 1:
            return self._withdraw(route, rollout, actor, reason)
        return self._take_back(route, rollout, actor, reason)

    def override(self, verdict_id: str, person: str, reason: str) -> Verdict:
        """Allow what the gates refused, or nobody approved, in somebody's name; returns the overriding verdict.

        Raises:
            Refused: No such verdict, nobody is named, no reason is given, or there is nothing to override.
        """
        verdict = self.state.get(Verdict, verdict_id)
        if verdict is None:
            raise Refused(f"There is no verdict {verdict_id}.", "See noria status for the verdicts.")
        if not person.strip() or not reason.strip():
            raise Refused("An override needs a person and a reason.", "Say who allows it and why.")
        if not barrier(self.state, verdict):
            raise Refused(f"Verdict {verdict_id} passed already.", "There is nothing to override.")
        overriding = replace(
            verdict,
            id=f"{verdict.id}{OVERRIDE}",
            decided_at=self.clock.now(),
            override_by=person.strip(),
            override_reason=reason.strip(),
            needs_approval=False,
        )
        known = self.state.get(Verdict, overriding.id)
        if known is not None:
            return known
        keep(self.state, overriding, person.strip(), "verdict.overridden", reason.strip())
        return overriding

    def _end(self, route: Route, experiment: Experiment, actor: str, reason: str) -> Route:
        alone = routes.alone(route)
        with self.state.change(
            actor,
            "experiment.stopped",
            experiment.id,
            reason=reason,
            evidence={"endpoint": route.endpoint, "champion": route.champion.ref, "requests": experiment.requests},
        ) as change:
            _still(change, route)
            change.put(alone)
            latest = change.get(Experiment, experiment.id) or experiment
            change.put(ended(latest, self.clock.now(), f"stopped by {actor}: {reason}"))
        return alone

    def _withdraw(self, route: Route, rollout: Rollout, actor: str, reason: str) -> Route:
        alone, now = routes.alone(route), self.clock.now()
        ended = rollout.enter(Stage.ROLLED_BACK, now, f"{actor}: {reason}", step=rollout.step)
        with self.state.change(
            actor,
            "rollout.withdrawn",
            rollout.ref,
            reason=reason,
            evidence=evidence(rollout) | {"endpoint": route.endpoint, "champion": route.champion.ref},
        ) as change:
            _still(change, route)
            change.put(alone)
            change.put(ended)
            change.emit(RolledBack(endpoint=route.endpoint, rollout_id=rollout.id, reason=reason))
        return alone

    def _take_back(self, route: Route, rollout: Rollout | None, actor: str, reason: str) -> Route:
        back = self._previous_champion(route)
        gone = route.champion
        with self.state.change(
            actor,
            "version.rolled_back",
            gone.ref,
            reason=reason,
            evidence={"endpoint": route.endpoint, "champion": back.champion.ref, "verdict": back.champion.verdict_id},
        ) as change:
            _still(change, route)
            if rollout is not None:
                why = f"{actor} took its champion back: {reason}"
                change.put(rollout.enter(Stage.ROLLED_BACK, self.clock.now(), why))
            change.emit(RolledBack(endpoint=route.endpoint, rollout_id=gone.verdict_id, reason=reason))
            install(change, back)
        return back

    def _previous_champion(self, route: Route) -> Route:
        if route.previous is None:
            raise Refused(
                f"{route.endpoint} has no previous champion to go back to.",
                "Roll out another version; it needs a verdict like any other.",
            )
        if route.previous.ref not in self.running():
            raise Refused(
                f"{route.previous.ref} isn't running, so it can't answer.",
                "Wait until noria status shows it up (the worker starts it), then try again.",
            )
        return routes.taken_back(route)


def _still(change: Change, route: Route) -> None:
    what, remedy = f"The route of {route.endpoint}", "Look at noria status and try again."
    unchanged(change.get(Route, route.endpoint), route, what, remedy)
