"""What a person may do about experiments, in any process: begin one, stop one. The worker does the rest."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from noria.domain.endpoint import FULL_WEIGHT, Route
from noria.domain.errors import Refused, UnknownEndpoint
from noria.domain.events import ExperimentStarted
from noria.domain.experiment import Experiment, ExperimentState, Metric, Variant
from noria.domain.gate import Verdict
from noria.ports import Clock, StateStore
from noria.release import routes
from noria.release.account import ended, experiment_under_way, under_way
from noria.release.approvals import barrier
from noria.release.standings import evenly

MOST_VARIANTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for.

    Attributes:
        endpoint: Endpoint whose callers take part.
        versions: Versions beside the champion: `model/version`, or the number of one of the endpoint's own model.
        metric: By what the better one is found.
        alpha: Probability of finding a difference where there is none.
        max_requests: Requests after which it ends undecided.
        margin: Versions that differ by less are as good as equal; 0 to go on until they differ.
        floor: Per cent that each version keeps of a split that adapts; 0 for an even split that stays.
        promote: Whether a winner becomes champion.
        by: Who asks.
        reason: Why.
    """

    endpoint: str
    versions: Sequence[str]
    metric: Metric
    alpha: float
    max_requests: int
    margin: float
    floor: int
    promote: bool
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Experimenting:
    """Begins and stops experiments.

    Attributes:
        state: Experiments, routes, verdicts.
        clock: For the account.
    """

    state: StateStore
    clock: Clock

    def start(self, wanted: Wanted) -> Experiment:
        """Ask for an experiment.

        Raises:
            UnknownEndpoint: It has no version in service.
            Refused: It can't be done so; the sentence says why.
        """
        if not wanted.by.strip() or not wanted.reason.strip():
            raise Refused("An experiment takes a person and a reason.", "Say who asks for it and why.")
        route = self.state.get(Route, wanted.endpoint)
        if route is None:
            raise UnknownEndpoint(f"{wanted.endpoint} has no version in service.", "See noria status.")
        self._check_free(wanted.endpoint)
        experiment = self._made(wanted, route)
        evidence = {
            "endpoint": wanted.endpoint,
            "versions": {v.ref: v.verdict_id for v in experiment.variants},
            "metric": wanted.metric.value,
            "alpha": wanted.alpha,
            "max_requests": wanted.max_requests,
            "promote": wanted.promote,
        }
        with self.state.change(
            wanted.by, "experiment.started", experiment.id, reason=wanted.reason, evidence=evidence
        ) as change:
            change.put(experiment)
            change.emit(ExperimentStarted(endpoint=wanted.endpoint, experiment_id=experiment.id))
        return experiment

    def stop(self, endpoint: str, actor: str, reason: str) -> Experiment:
        """End an experiment undecided; the champion answers everything.

        Raises:
            Refused: Nobody is named, no reason is given, or none is under way.
        """
        if not actor.strip() or not reason.strip():
            raise Refused("To stop an experiment takes a person and a reason.", "Say who asks for it and why.")
        found = experiment_under_way(self.state, endpoint)
        if found is None:
            raise Refused(f"No experiment on {endpoint} is under way.", "noria experiment list shows those that were.")
        evidence = {"endpoint": endpoint, "requests": found.requests}
        with self.state.change(actor, "experiment.stopped", found.id, reason=reason, evidence=evidence) as change:
            latest, route = change.get(Experiment, found.id) or found, change.get(Route, endpoint)
            if latest.over:
                raise Refused(f"Experiment {found.id} has just ended.", "noria experiment status says how.")
            stopped = ended(latest, self.clock.now(), f"stopped by {actor}: {reason}")
            change.put(stopped)
            if route is not None and route.variants:
                change.put(routes.alone(route))
        return stopped

    def _check_free(self, endpoint: str) -> None:
        running = experiment_under_way(self.state, endpoint)
        if running is not None:
            raise Refused(
                f"Experiment {running.id} on {endpoint} is under way.",
                f"Stop it first: noria experiment stop {endpoint}.",
            )
        rollout = under_way(self.state, endpoint)
        if rollout is not None:
            raise Refused(
                f"{rollout.ref} is on its way to the traffic of {endpoint}.",
                "Wait for the end of its rollout, or abort it: noria rollout abort.",
            )

    def _made(self, wanted: Wanted, route: Route) -> Experiment:
        refs = [_ref(each, route.champion.model) for each in wanted.versions]
        if not refs or len({route.champion.ref, *refs}) <= len(refs):
            raise Refused(
                f"An experiment compares the champion {route.champion.ref} with other versions, each named once.",
                "See noria model list for the versions.",
            )
        if len(refs) >= MOST_VARIANTS:
            raise Refused(f"An experiment compares {MOST_VARIANTS} versions at most.", "Leave some out.")
        if wanted.floor and wanted.metric not in (Metric.SUCCESS, Metric.ERRORS):
            raise Refused("A split adapts to success or errors only.", "Choose one of these metrics, or an even split.")
        if wanted.floor * (len(refs) + 1) > FULL_WEIGHT:
            raise Refused(f"{len(refs) + 1} versions can't keep {wanted.floor} % each.", "Choose a lower floor.")
        weights, now, now_us = evenly(len(refs) + 1), self.clock.now(), self.clock.now_us()
        champion = Variant(
            model=route.champion.model,
            version=route.champion.version,
            verdict_id=route.champion.verdict_id,
            weight=weights[0],
        )
        others = [self._variant(wanted.endpoint, ref, weight) for ref, weight in zip(refs, weights[1:], strict=True)]
        return Experiment(
            id=f"{wanted.endpoint}-{now:%Y%m%d-%H%M%S}",
            endpoint=wanted.endpoint,
            state=ExperimentState.STARTING,
            variants=(champion, *others),
            metric=wanted.metric,
            alpha=wanted.alpha,
            max_requests=wanted.max_requests,
            margin=wanted.margin,
            floor=wanted.floor,
            promote=wanted.promote,
            started_at=now,
            started_by=wanted.by,
            reason=wanted.reason,
            changed_at=now,
            began_at=now,
            cursor_us=now_us,
            feedback_cursor_us=now_us,
        )

    def _variant(self, endpoint: str, ref: str, weight: int) -> Variant:
        model, _, version = ref.rpartition("/")
        verdicts = [v for v in self.state.find(Verdict, endpoint=endpoint) if (v.model, v.version) == (model, version)]
        passed = next((v for v in verdicts if not barrier(self.state, v)), None)
        if passed is None:
            judged = next((v for v in verdicts if v.passed), None)
            known = (
                barrier(self.state, judged)
                if judged
                else "its gates refused it"
                if verdicts
                else "no gate has judged it"
            )
            raise Refused(
                f"{ref} may not answer callers of {endpoint}: {known}.",
                "Compare it offline with noria experiment run, or see noria verdict show.",
            )
        return Variant(model=model, version=version, verdict_id=passed.id, weight=weight)


def _ref(said: str, model: str) -> str:
    """`model/version` of what a person wrote."""
    return f"{model}/{said}" if re.fullmatch(r"\d+", said) else said
