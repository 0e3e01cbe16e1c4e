"""Which gates a version has to pass, and the verdict about it: fail closed, every number on record."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from noria.domain.endpoint import Route, Target
from noria.domain.errors import NoriaError, UpstreamFailed
from noria.domain.events import CandidateRegistered
from noria.domain.gate import GateResult, Verdict
from noria.domain.model import ModelVersion
from noria.ports import Clock, ModelHost, ModelRegistry, StateStore, Steps
from noria.release import checks, parity
from noria.release.account import ACTOR, keep
from noria.release.case import Case, Rows
from noria.release.trial import Answers, Trial
from noria.settings import Policy, Task

__all__ = ["GATES", "Release", "Rows", "judge"]

Gate = Callable[[Case], GateResult]
"""Looks at a case; raises if it can't. It is named like its function."""

GATES: Mapping[Task, tuple[Gate, ...]] = {
    Task.CLASSIFICATION: (
        checks.policy,
        checks.answers,
        checks.quality,
        parity.groups,
        checks.latency,
        checks.licence,
        checks.card,
    ),
    Task.CHAT: (checks.policy, checks.answers, checks.latency, checks.licence, checks.card),
}
"""What a version of each kind of endpoint has to pass."""


def judge(task: Task, case: Case) -> tuple[GateResult, ...]:
    """What every gate says; one that could not look has not passed."""
    return tuple(_ask(gate, case) for gate in GATES[task])


def _ask(gate: Gate, case: Case) -> GateResult:
    try:
        return gate(case)
    except Exception as error:  # whatever went wrong, the version has not been shown to be fit
        name = getattr(gate, "__name__", "gate")
        why = error.problem if isinstance(error, NoriaError) else f"{type(error).__name__}: {error}"
        return GateResult(gate=name, passed=False, summary=f"Could not be judged: {why}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Has candidates tried on their real model servers, and keeps the verdicts.

    Attributes:
        state: Routes and verdicts.
        registry: Models.
        host: Brings candidates up.
        trial: Asks model servers.
        clock: Times.
        policy: The policy in force for an endpoint, and its hash.
        task: What an endpoint does.
        holdout: Held-out rows of a training run (endpoint, run id); None if there are none.
    """

    state: StateStore
    registry: ModelRegistry
    host: ModelHost
    trial: Trial
    clock: Clock
    policy: Callable[[str], tuple[Policy, str]]
    task: Callable[[str], Task]
    holdout: Callable[[str, str], Rows | None]

    def judge_candidate(self, event: CandidateRegistered, step: Steps) -> None:
        """Bring the candidate up, try it beside the champion, and let the gates decide."""
        problem = step("bring up the candidate", self._bring_up, event.model, event.version)
        verdict_id = step("judge", self._judge, event, problem)
        step("let go of the refused", self._let_go, verdict_id)

    def _bring_up(self, model: str, version: str) -> str:
        """Empty if the candidate's model server answers, else what is wrong."""
        try:
            self.host.start(self.registry.version(model, version))
        except NoriaError as error:
            return error.problem
        return ""

    def _judge(self, event: CandidateRegistered, problem: str) -> str:
        verdict_id = f"{event.endpoint}-{event.version}-{sha256(event.id.encode()).hexdigest()[:8]}"
        if self.state.get(Verdict, verdict_id) is not None:
            return verdict_id  # told before the worker died
        route = self.state.get(Route, event.endpoint)
        ref = f"{event.model}/{event.version}"
        champion = route.champion if route is not None and route.champion.ref != ref else None
        policy_hash, results = self._results(event, champion, problem)
        verdict = Verdict(
            id=verdict_id,
            endpoint=event.endpoint,
            model=event.model,
            version=event.version,
            champion=champion.ref if champion else "",
            decided_at=self.clock.now(),
            policy_hash=policy_hash,
            results=results,
        )
        action = "verdict.passed" if verdict.passed else "verdict.refused"
        keep(self.state, verdict, ACTOR, action, "; ".join(verdict.reasons) or "all gates passed")
        return verdict_id

    def _results(
        self, event: CandidateRegistered, champion: Target | None, problem: str
    ) -> tuple[str, tuple[GateResult, ...]]:
        """The policy's hash and what the gates say; without a policy there is nothing to judge by."""
        try:
            rules, policy_hash = self.policy(event.endpoint)
        except NoriaError as error:
            return "", (GateResult(gate="policy", passed=False, summary=f"Could not be judged: {error.problem}"),)
        candidate = self.registry.version(event.model, event.version)
        case = self._case(event, candidate, champion, rules, problem)
        return policy_hash, judge(self.task(event.endpoint), case)

    def _case(
        self, event: CandidateRegistered, candidate: ModelVersion, champion: Target | None, rules: Policy, problem: str
    ) -> Case:
        """Try both versions on the same rows."""
        task, rows = self.task(event.endpoint), None
        answers = theirs = None
        try:
            if task is Task.CLASSIFICATION:
                rows = self.holdout(event.endpoint, event.run_id)
            if not problem:
                answers = self._try(task, self.host.start(candidate), rows)
            if champion is not None and task is Task.CLASSIFICATION:
                theirs = self._try_champion(champion, rows)
        except NoriaError as error:
            problem = problem or error.problem
        return Case(
            candidate=candidate,
            policy=rules,
            today=self.clock.now().date(),
            has_card=self._has_card(candidate),
            rows=rows,
            answers=answers,
            problem=problem,
            champion=champion.ref if champion else "",
            champion_answers=theirs,
        )

    def _try_champion(self, champion: Target, rows: Rows | None) -> Answers:
        """Its server may just be coming back after a crash: a verdict isn't worth less for that, so wait for it."""
        try:
            return self._try(Task.CLASSIFICATION, champion.url, rows)
        except UpstreamFailed:
            url = self.host.start(self.registry.version(champion.model, champion.version))
            return self._try(Task.CLASSIFICATION, url, rows)

    def _try(self, task: Task, url: str, rows: Rows | None) -> Answers:
        return self.trial.chat(url) if task is Task.CHAT else self.trial.classify(url, rows.texts if rows else ())

    def _has_card(self, version: ModelVersion) -> bool:
        try:
            return any(self.registry.download(version, "card").glob("**/README.md"))
        except (NoriaError, OSError):
            return False

    def _let_go(self, verdict_id: str) -> None:
        """Stop the model server of a refused candidate, unless it serves already."""
        verdict = self.state.get(Verdict, verdict_id)
        if verdict is None or verdict.passed:
            return
        route, ref = self.state.get(Route, verdict.endpoint), f"{verdict.model}/{verdict.version}"
        serving = () if route is None else (*route.targets, *([route.previous] if route.previous else []))
        if ref in self.host.running() and all(target.ref != ref for target in serving):
            self.host.stop(ref)
