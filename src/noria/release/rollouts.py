"""Rollouts: what a passed verdict sets off, and the worker's turn that moves it on.

One rollout an endpoint: a newer candidate that passed its gates against the same champion takes the place of an older
one that is still on its way, because its verdict is the younger evidence; a queue would promote against a champion
that the waiting verdict never saw.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from noria.domain.audit import LOOP
from noria.domain.endpoint import Role, Route, Target
from noria.domain.errors import Conflict, NoriaError, Refused
from noria.domain.events import CandidateRegistered, GatePassed, RolledBack
from noria.domain.experiment import Experiment
from noria.domain.gate import Verdict
from noria.domain.rollout import Rollout, Stage
from noria.domain.run import Run
from noria.ports import Change, Clock, ModelHost, ModelRegistry, RecordStore, StateStore, Steps
from noria.release import routes
from noria.release.account import ended, evidence, experiment_under_way, install, route_of, unchanged, under_way
from noria.release.aliases import Aliases
from noria.release.approvals import barrier
from noria.release.guards import guards_of, slow_limit, threshold
from noria.release.manual import Manual
from noria.release.progress import Decision, Move, advance
from noria.release.sightings import Sightings
from noria.settings import Endpoint

_ACTIONS = {
    Move.STEP: "rollout.stepped",
    Move.PROMOTE: "version.promoted",
    Move.ROLL_BACK: "rollout.rolled_back",
}
"""What each move is called in the account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """Gives passed candidates their traffic, watches them, and takes it away again.

    Attributes:
        state: Verdicts, routes and rollouts.
        registry: Models and their aliases.
        host: Brings candidates up.
        store: The tables that say how both versions do.
        clock: Times.
        endpoint: An endpoint's settings by its name.
    """

    state: StateStore
    registry: ModelRegistry
    host: ModelHost
    store: RecordStore
    clock: Clock
    endpoint: Callable[[str], Endpoint]
    _watching: dict[str, Sightings] = field(default_factory=dict)

    # --- a verdict passed -------------------------------------------------------------------------------------------

    def begin(self, event: GatePassed, step: Steps) -> None:
        """Bring the candidate up and start its rollout; an endpoint's first version is champion at once.

        Raises:
            Refused: The verdict isn't there, hasn't passed, or the approval that its policy asks for wasn't given.
        """
        verdict = self.state.get(Verdict, event.verdict_id)
        why = "there is none of that id" if verdict is None else barrier(self.state, verdict)
        if verdict is None or why:
            raise Refused(f"Verdict {event.verdict_id} doesn't allow a rollout: {why}.", "See noria verdict show.")
        if not step("take the place", self._take_place, verdict.id):
            return
        try:
            url = step("bring up the candidate", self._bring_up, verdict.id)
        except NoriaError as error:
            step("give up", self._give_up, verdict.id, str(error))
            return
        step("route", self._place, verdict.id, url)
        step("tell the registry", Aliases(self.state, self.registry).follow, verdict.endpoint)

    def _take_place(self, verdict_id: str) -> bool:
        """End an older rollout and note the new one as starting; False if there is nothing to do."""
        verdict = self._verdict(verdict_id)
        route = self.state.get(Route, verdict.endpoint)
        if route is None:
            return True
        known = self.state.get(Rollout, verdict.id)
        if known is not None:
            return known.stage is Stage.STARTING
        if route.champion.ref == verdict.ref:
            return False
        if verdict.champion not in ("", route.champion.ref) and not verdict.override_by:
            self._judge_again(verdict, route.champion.ref)
            return False
        older = under_way(self.state, verdict.endpoint)
        if older is not None:
            self._supersede(route, older, verdict)
        experiment = experiment_under_way(self.state, verdict.endpoint)
        if experiment is not None:
            self._make_room(experiment, verdict)
        with self.state.note() as note:
            note.put(self._starting(verdict, self.clock.now()))
        return True

    def _judge_again(self, verdict: Verdict, champion: str) -> None:
        """A verdict against a version that serves no more says nothing of the one that does: the gates decide anew."""
        ref = verdict.ref
        runs = self.state.find(Run, endpoint=verdict.endpoint)
        run = next((each.id for each in runs if (each.model, each.version) == (verdict.model, verdict.version)), "")
        reason = f"it was compared with {verdict.champion}, and {champion} serves now"
        with self.state.change(
            LOOP,
            "verdict.outdated",
            ref,
            reason=reason,
            evidence={"endpoint": verdict.endpoint, "verdict": verdict.id},
        ) as change:
            change.emit(
                CandidateRegistered(
                    endpoint=verdict.endpoint,
                    model=verdict.model,
                    version=verdict.version,
                    run_id=run,
                    again=verdict.id,
                )
            )

    def _supersede(self, route: Route, older: Rollout, by: Verdict) -> None:
        why = f"superseded by {by.ref}, which passed its gates meanwhile"
        with self.state.change(
            LOOP,
            "rollout.superseded",
            older.ref,
            reason=why,
            evidence=evidence(older) | {"by": by.id},
        ) as change:
            latest = change.get(Rollout, older.id)
            if latest is not None and not latest.stage.finished:
                change.put(routes.alone(route_of(change, route.endpoint)))
                change.put(latest.enter(Stage.ROLLED_BACK, self.clock.now(), why, step=latest.step))

    def _make_room(self, experiment: Experiment, by: Verdict) -> None:
        """End an experiment: what it compares with is about to change."""
        why = f"{by.ref} passed its gates and begins its rollout"
        evidence = {"endpoint": by.endpoint, "by": by.id, "requests": experiment.requests}
        with self.state.change(LOOP, "experiment.superseded", experiment.id, reason=why, evidence=evidence) as change:
            latest = change.get(Experiment, experiment.id)
            if latest is not None and not latest.over:
                change.put(routes.alone(route_of(change, by.endpoint)))
                change.put(ended(latest, self.clock.now(), f"ended undecided: {why}"))

    def _bring_up(self, verdict_id: str) -> str:
        verdict = self._verdict(verdict_id)
        version, route = self.registry.version(verdict.model, verdict.version), self.state.get(Route, verdict.endpoint)
        if route is not None:
            routes.check_wire(route, version.ref, self.host.wire(version), "Give it an endpoint of its own.")
        return self.host.start(version)

    def _give_up(self, verdict_id: str, problem: str) -> None:
        verdict, rollout = self._verdict(verdict_id), self.state.get(Rollout, verdict_id)
        reason = f"its model server did not come up: {problem}"
        with self.state.change(
            LOOP,
            "rollout.rolled_back",
            verdict.ref,
            reason=reason,
            evidence={"verdict": verdict_id},
        ) as change:
            if rollout is not None:
                change.put(rollout.enter(Stage.ROLLED_BACK, self.clock.now(), reason))
            change.emit(RolledBack(endpoint=verdict.endpoint, rollout_id=verdict_id, reason=reason))

    def _place(self, verdict_id: str, url: str) -> None:
        """Give the candidate its place in the route: champion of a new endpoint, else shadow."""
        verdict = self._verdict(verdict_id)
        route, rollout = self.state.get(Route, verdict.endpoint), self.state.get(Rollout, verdict_id)
        candidate = _target(verdict, url)
        if route is None:
            self._first(verdict, candidate)
        elif rollout is not None and rollout.stage is Stage.STARTING:
            reason = f"verdict {verdict.id} allows it; it gets a copy of every request"
            with self.state.change(
                LOOP,
                "rollout.started",
                candidate.ref,
                reason=reason,
                evidence={"endpoint": verdict.endpoint, "verdict": verdict.id, "champion": route.champion.ref},
            ) as change:
                unchanged(change.get(Rollout, rollout.id), rollout, f"Rollout {rollout.id}")
                change.put(routes.shadowed(route_of(change, verdict.endpoint), candidate))
                change.put(rollout.enter(Stage.SHADOW, self.clock.now(), reason))

    def _first(self, verdict: Verdict, champion: Target) -> None:
        wire = self.host.wire(self.registry.version(verdict.model, verdict.version))
        with self.state.change(
            LOOP,
            "version.promoted",
            champion.ref,
            reason=f"the first version of {verdict.endpoint}",
            evidence={"endpoint": verdict.endpoint, "verdict": verdict.id, "previous": ""},
        ) as change:
            install(change, routes.first(verdict.endpoint, wire, champion, verdict.policy_hash))

    def _starting(self, verdict: Verdict, now: datetime) -> Rollout:
        now_us, endpoint = self.clock.now_us(), self.endpoint(verdict.endpoint)
        guards = guards_of(endpoint)
        return Rollout(
            id=verdict.id,
            endpoint=verdict.endpoint,
            model=verdict.model,
            version=verdict.version,
            verdict_id=verdict.id,
            stage=Stage.STARTING,
            started_at=now,
            changed_at=now,
            cursor_us=now_us,
            feedback_cursor_us=now_us,
            guards=guards,
            log_threshold=threshold(len(guards), endpoint.rollout.alpha),
        )

    # --- the worker's turn ------------------------------------------------------------------------------------------

    def tick(self, endpoint: str) -> None:
        """Look at what both versions did since the last turn, and move the rollout on.

        The registry comes last: the guard must work while it is away.
        """
        self._look(endpoint)
        Aliases(self.state, self.registry).follow(endpoint)

    def _look(self, endpoint: str) -> None:
        rollout, route = under_way(self.state, endpoint), self.state.get(Route, endpoint)
        if rollout is None or route is None or rollout.stage is Stage.STARTING:
            return
        now, settings = self.clock.now(), self.endpoint(endpoint)
        sightings = self._watching.pop(rollout.id, None)
        sightings = sightings or Sightings(store=self.store, champion=route.champion.ref, timeout=settings.timeout)
        look, looked = sightings.look(rollout, now)
        moved, decision = advance(looked, look, settings.rollout, now)
        if decision.move is Move.STEP and not moved.slow_ms and "latency" in moved.guards:
            limit = slow_limit(self.store, endpoint, route.champion.ref, now, settings.rollout)
            moved = replace(moved, slow_ms=limit)
        try:
            self._commit(rollout, moved, decision)
        except Conflict:
            return  # somebody ended it meanwhile: what was counted is forgotten with the transaction
        if decision.move in (Move.WAIT, Move.STEP):
            self._watching[rollout.id] = sightings

    def _commit(self, before: Rollout, after: Rollout, decision: Decision) -> None:
        if after == before:
            return
        if decision.move is Move.WAIT:
            with self.state.note() as note:
                unchanged(note.get(Rollout, before.id), before, f"Rollout {before.id}")
                note.put(after)
            return
        with self.state.change(
            LOOP,
            _ACTIONS[decision.move],
            after.ref,
            reason=decision.reason,
            evidence=dict(decision.evidence) | {"endpoint": after.endpoint, "verdict": after.verdict_id},
        ) as change:
            unchanged(change.get(Rollout, before.id), before, f"Rollout {before.id}")
            change.put(after)
            self._move(change, route_of(change, after.endpoint), after, decision)

    def _move(self, change: Change, route: Route, rollout: Rollout, decision: Decision) -> None:
        ref = rollout.ref
        candidate = next(t for t in route.targets if t.ref == ref and t.role is not Role.CHAMPION)
        match decision.move:
            case Move.STEP:
                change.put(routes.shared(route, candidate, decision.weight))
            case Move.PROMOTE:
                policy_hash = self._verdict(rollout.verdict_id).policy_hash
                install(change, routes.promoted(route, candidate, policy_hash))
            case _:
                change.put(routes.alone(route))
                change.emit(RolledBack(endpoint=route.endpoint, rollout_id=rollout.id, reason=decision.reason))

    # --- by hand, and by others -------------------------------------------------------------------------------------

    def rollback(self, endpoint: str, actor: str, reason: str) -> Route:
        """Undo the last change of who answers, now in the registry too; see `Manual.rollback`."""
        route = Manual(self.state, self.clock, self.host.running).rollback(endpoint, actor, reason)
        Aliases(self.state, self.registry).follow(endpoint)
        return route

    def foreign_alias(self, endpoint: str) -> bool:
        """Put the champion alias back if somebody moved it in the registry; True if somebody had."""
        return Aliases(self.state, self.registry).restore(endpoint)

    def _verdict(self, verdict_id: str) -> Verdict:
        verdict = self.state.get(Verdict, verdict_id)
        assert verdict is not None, "verdicts are never deleted"
        return verdict


def _target(verdict: Verdict, url: str) -> Target:
    return Target(
        model=verdict.model, version=verdict.version, role=Role.SHADOW, weight=0, url=url, verdict_id=verdict.id
    )
