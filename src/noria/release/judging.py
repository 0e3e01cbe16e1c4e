"""Has a candidate tried on its real model server, lets the gates decide, and keeps the verdict: fail closed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from noria.domain.audit import LOOP
from noria.domain.endpoint import Route, Target
from noria.domain.errors import NoriaError, UpstreamFailed
from noria.domain.events import CandidateRegistered
from noria.domain.gate import GateResult, Verdict
from noria.domain.model import Flavor, ModelVersion
from noria.domain.price import Price
from noria.evaluation.probes import Probe
from noria.ports import Clock, ModelHost, ModelRegistry, StateStore, Steps
from noria.release.account import keep
from noria.release.approvals import asked, requesters
from noria.release.case import FROZEN, Case, Rows
from noria.release.gates import Find, built_in, judge
from noria.release.trial import ANSWER_TOKENS, Answers, Trial
from noria.settings import ApprovalRule, Policy, Task

MOST_CHATS = 200
"""Rows with wanted answers that a chat is asked; of more a fixed sample is."""


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
        frozen: A policy's frozen set and its checksum; None if it names none.
        learnt: Texts that a training run learnt from (endpoint, run id); None if no run of ours made the version.
        price: Address of a model, and its endpoint → what its tokens cost; None if nobody knows.
        probes: What a policy's versions are asked to see whether they are safe.
        find: Name → gate.
    """

    state: StateStore
    registry: ModelRegistry
    host: ModelHost
    trial: Trial
    clock: Clock
    policy: Callable[[str], tuple[Policy, str]]
    task: Callable[[str], Task]
    holdout: Callable[[str, str], Rows | None]
    frozen: Callable[[str, Policy], tuple[Rows, str] | None] = lambda _, __: None
    learnt: Callable[[str, str], Sequence[str] | None] = lambda _, __: None
    price: Callable[[str, str], Price | None] = lambda _, __: None
    probes: Callable[[Policy], Sequence[Probe]] = lambda _: ()
    find: Find = built_in

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
        ref = event.ref
        champion = route.champion if route is not None and route.champion.ref != ref else None
        policy_hash, results, rule = self._results(event, champion, problem)
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
        if not verdict.passed or rule is None:
            action = "verdict.passed" if verdict.passed else "verdict.refused"
            keep(self.state, verdict, LOOP, action, "; ".join(verdict.reasons) or "all gates passed")
            return verdict_id
        approval = asked(verdict, rule, requesters(self.state, event))
        reason = f"all gates passed; it waits for approval by {approval.whom}"
        keep(self.state, replace(verdict, needs_approval=True), LOOP, "verdict.passed", reason, approval)
        return verdict_id

    def _results(
        self, event: CandidateRegistered, champion: Target | None, problem: str
    ) -> tuple[str, tuple[GateResult, ...], ApprovalRule | None]:
        """The policy's hash, what the gates say, and what it asks of people; without a policy nothing can be judged."""
        try:
            rules, policy_hash = self.policy(event.endpoint)
        except NoriaError as error:
            return "", (GateResult(gate="policy", passed=False, summary=f"Could not be judged: {error.problem}"),), None
        candidate = self.registry.version(event.model, event.version)
        case = self._case(event, candidate, champion, rules, problem)
        return policy_hash, judge(self.task(event.endpoint), case, self.find), rules.approval

    def _case(
        self, event: CandidateRegistered, candidate: ModelVersion, champion: Target | None, rules: Policy, problem: str
    ) -> Case:
        """Try both versions on the same rows."""
        task = self.task(event.endpoint)
        case = Case(
            candidate=candidate,
            policy=rules,
            today=self.clock.now().date(),
            has_card=self._has_card(candidate),
            champion=champion.ref if champion else "",
            problem=problem,
            task=task,
            size_bytes=self._size(candidate),
        )
        try:
            rows, facts = self._rows(event, rules, task)
            probes = tuple(self.probes(rules)) if task is Task.CHAT and rules.safety is not None else ()
            case = replace(
                case, rows=rows, facts=facts, probes=probes, learnt=self.learnt(event.endpoint, event.run_id)
            )
            if not problem:
                case = self._tried(case, event.endpoint, self.host.start(candidate))
            limits = rules.rules.max_latency_ratio, rules.rules.max_cost_ratio
            if champion is not None and (task is Task.CLASSIFICATION or rows is not None or probes or any(limits)):
                case = self._champion_tried(case, event.endpoint, champion)
        except NoriaError as error:
            case = replace(case, problem=case.problem or error.problem)
        return case

    def _rows(self, event: CandidateRegistered, rules: Policy, task: Task) -> tuple[Rows | None, dict[str, str]]:
        """The rows to judge on, those of the frozen set last, and its checksum."""
        rows, frozen = self.holdout(event.endpoint, event.run_id), self.frozen(event.endpoint, rules)
        if rows is not None and task is Task.CHAT:
            rows = rows.sample(MOST_CHATS)
        if frozen is None:
            return rows, {}
        held, digest = frozen
        held = replace(held, origins=(FROZEN,) * len(held.labels))
        return (held if rows is None else rows + held), {"frozen_sha256": digest}

    def _tried(self, case: Case, endpoint: str, url: str) -> Case:
        answers = self._try(case, url)
        return replace(case, answers=self._priced(answers, url, endpoint), safety_answers=self._probed(case, url))

    def _champion_tried(self, case: Case, endpoint: str, champion: Target) -> Case:
        """Its server may just be coming back after a crash: a verdict isn't worth less for that, so wait for it."""
        url = champion.url
        try:
            answers = self._try(case, url)
        except UpstreamFailed:
            url = self.host.start(self.registry.version(champion.model, champion.version))
            answers = self._try(case, url)
        priced = self._priced(answers, url, endpoint)
        return replace(case, champion_answers=priced, champion_safety=self._probed(case, url))

    def _try(self, case: Case, url: str) -> Answers:
        if case.task is Task.CLASSIFICATION:
            return self.trial.classify(url, case.rows.texts if case.rows else ())
        return self.trial.chat(url, case.rows.texts, ANSWER_TOKENS) if case.rows else self.trial.chat(url)

    def _probed(self, case: Case, url: str) -> tuple[str, ...] | None:
        """What a version answered to the policy's probes; None if it asks for none."""
        return self.trial.chat(url, [p.text for p in case.probes], ANSWER_TOKENS).predictions if case.probes else None

    def _priced(self, answers: Answers, url: str, endpoint: str) -> Answers:
        price = self.price(url, endpoint)
        if price is None or not (price.free or answers.input_tokens or answers.output_tokens):
            return answers  # nobody counted its tokens
        return replace(answers, usd=price.cost(answers.input_tokens, answers.output_tokens))

    def _size(self, version: ModelVersion) -> int | None:
        """Bytes of a version's own files; one that is a name for something elsewhere has next to none."""
        if version.flavor in (Flavor.EXTERNAL, Flavor.COMMAND):
            return 0
        try:
            path = self.registry.download(version)
            files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
            return sum(each.stat().st_size for each in files)
        except (NoriaError, OSError):
            return None

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
        route, ref = self.state.get(Route, verdict.endpoint), verdict.ref
        serving = () if route is None else (*route.targets, *([route.previous] if route.previous else []))
        if ref in self.host.running() and all(target.ref != ref for target in serving):
            self.host.stop(ref)
