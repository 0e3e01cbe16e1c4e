"""Experiments as the worker runs them: versions brought up, traffic split among them, looked at until one is better.

Looks may be as frequent as they like: the intervals hold at all of them at once (`release.standings`). A version that
fails more often than the champion ends the experiment at once, whatever it is about.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

from noria.domain.audit import LOOP
from noria.domain.endpoint import Role, Route, Target
from noria.domain.errors import Conflict, NoriaError
from noria.domain.events import ExperimentStarted
from noria.domain.experiment import Experiment, ExperimentState, Variant
from noria.domain.gate import Verdict
from noria.ports import Change, Clock, ModelHost, ModelRegistry, RecordStore, StateStore, Steps
from noria.release import routes
from noria.release.account import ended, experiment_under_way, install, route_of, unchanged
from noria.release.contest import Contest
from noria.release.standings import Outcome, Standing, outcome, split, standings
from noria.settings import Endpoint

ADAPTS_EVERY = timedelta(seconds=30)
"""An adaptive split is computed anew so often at most: callers shouldn't move to and fro."""
LEAST_MOVE = 5
"""Per cent of the traffic that have to move for a new split to be worth its change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiments:
    """Runs what people asked for.

    Attributes:
        state: Experiments, routes and verdicts.
        registry: Models.
        host: Brings versions up.
        store: The tables that say how they do.
        clock: Times.
        endpoint: An endpoint's settings by its name.
    """

    state: StateStore
    registry: ModelRegistry
    host: ModelHost
    store: RecordStore
    clock: Clock
    endpoint: Callable[[str], Endpoint]
    _watching: dict[str, Contest] = field(default_factory=dict)

    def begin(self, event: ExperimentStarted, step: Steps) -> None:
        """Bring every version up, then split the traffic; what can't be brought up ends the experiment."""
        experiment = self.state.get(Experiment, event.experiment_id)
        if experiment is None or experiment.state is not ExperimentState.STARTING:
            return
        try:
            urls = {
                variant.ref: step(f"bring up {variant.ref}", self._bring_up, experiment.endpoint, variant.ref)
                for variant in experiment.variants[1:]
            }
        except NoriaError as error:
            step("give up", self._give_up, experiment.id, str(error))
            return
        step("split the traffic", self._place, experiment.id, urls)

    def _bring_up(self, endpoint: str, ref: str) -> str:
        name, _, number = ref.rpartition("/")
        version, route = self.registry.version(name, number), self.state.get(Route, endpoint)
        if route is not None:
            remedy = "Compare them offline, with noria experiment run."
            routes.check_wire(route, ref, self.host.wire(version), remedy)
        return self.host.start(version)

    def _give_up(self, experiment_id: str, problem: str) -> None:
        with self.state.change(LOOP, "experiment.failed", experiment_id, reason=problem) as change:
            latest = change.get(Experiment, experiment_id)
            if latest is not None and not latest.over:
                change.put(ended(latest, self.clock.now(), f"it could not begin: {problem}"))

    def _place(self, experiment_id: str, urls: dict[str, str]) -> None:
        found = self.state.get(Experiment, experiment_id)
        if found is None or found.state is not ExperimentState.STARTING:
            return
        shares = {variant.ref: variant.weight for variant in found.variants}
        with self.state.change(
            LOOP, "experiment.began", experiment_id, reason=found.reason, evidence={"split": shares}
        ) as change:
            latest, route = change.get(Experiment, experiment_id), change.get(Route, found.endpoint)
            if latest is None or latest.over or route is None:
                return
            if route.champion.ref != latest.variants[0].ref or len(route.targets) > 1:
                change.put(ended(latest, self.clock.now(), "it could not begin: the route changed meanwhile"))
                return
            change.put(routes.split(route, [_target(v, urls[v.ref]) for v in latest.variants[1:]]))
            now = self.clock.now()
            change.put(replace(latest, state=ExperimentState.RUNNING, changed_at=now, began_at=now))

    # --- the worker's turn ------------------------------------------------------------------------------------------

    def tick(self, endpoint: str) -> None:
        """Look at what the versions did since the last turn; adapt the split, or end it."""
        found = experiment_under_way(self.state, endpoint)
        if found is None or found.state is not ExperimentState.RUNNING:
            return
        contest = self._watching.pop(found.id, None)
        contest = contest or Contest(store=self.store, timeout=self.endpoint(endpoint).timeout)
        looked = contest.look(found, self.clock.now())
        if looked == found:
            self._watching[found.id] = contest
            return
        come_to = outcome(looked)
        try:
            if come_to.over:
                self._end(found, looked, come_to)
                return
            self._note(found, looked)
        except Conflict:
            return  # somebody ended it meanwhile
        self._watching[found.id] = contest

    def _note(self, before: Experiment, after: Experiment) -> None:
        """Keep what was counted, with another split if it is time for one."""
        weights = split(after) if after.floor else tuple(v.weight for v in after.variants)
        moves = max(abs(new - v.weight) for new, v in zip(weights, after.variants, strict=True))
        if moves < LEAST_MOVE or self.clock.now() - after.changed_at < ADAPTS_EVERY:
            with self.state.note() as note:
                unchanged(note.get(Experiment, before.id), before, f"Experiment {before.id}")
                note.put(after)
            return
        variants = tuple(replace(v, weight=new) for new, v in zip(weights, after.variants, strict=True))
        evidence = {"endpoint": after.endpoint, "split": {v.ref: v.weight for v in variants}} | told(standings(after))
        with self.state.change(
            LOOP, "experiment.adapted", after.id, reason="more traffic to what does better", evidence=evidence
        ) as change:
            unchanged(change.get(Experiment, before.id), before, f"Experiment {before.id}")
            route = route_of(change, after.endpoint)
            shares = {v.ref: v.weight for v in variants}
            change.put(routes.split(route, [replace(t, weight=shares[t.ref]) for t in route.variants]))
            change.put(replace(after, variants=variants, changed_at=self.clock.now()))

    def _end(self, before: Experiment, after: Experiment, come_to: Outcome) -> None:
        champion = after.variants[0].ref
        promotes = after.promote and come_to.winner not in ("", champion)
        numbers = told(standings(after)) | {"endpoint": after.endpoint, "winner": come_to.winner}
        with self.state.change(LOOP, "experiment.ended", after.id, reason=come_to.sentence, evidence=numbers) as change:
            unchanged(change.get(Experiment, before.id), before, f"Experiment {before.id}")
            route = route_of(change, after.endpoint)
            change.put(ended(after, self.clock.now(), come_to.sentence, come_to.winner))
            if promotes:
                self._promote(change, route, next(t for t in route.variants if t.ref == come_to.winner))
            else:
                change.put(routes.alone(route))

    def _promote(self, change: Change, route: Route, winner: Target) -> None:
        verdict = change.get(Verdict, winner.verdict_id)
        policy_hash = verdict.policy_hash if verdict is not None else route.policy_hash
        install(change, routes.promoted(route, winner, policy_hash))


def told(found: list[Standing]) -> dict[str, object]:
    """The numbers that a decision rests on, for the audit."""
    return {
        "versions": {
            each.ref: {"requests": each.requests, "weight": each.weight}
            | {name: [i.value, i.low, i.high] for name, i in each.measures.items()}
            for each in found
        }
    }


def _target(variant: Variant, url: str) -> Target:
    return Target(
        model=variant.model,
        version=variant.version,
        role=Role.VARIANT,
        weight=variant.weight,
        url=url,
        verdict_id=variant.verdict_id,
    )
