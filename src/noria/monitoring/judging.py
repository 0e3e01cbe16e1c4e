"""Judges at work: a sample of each closed window's answers, judged out of the callers' way, within a day's budget.

Durable and exact: the sample is drawn once, verdicts are kept step by step, and the rows of a window's verdicts are
written in one transaction that is done once for each version of a judge. A reply that is no verdict is counted, and so
is a request without a reply; nobody's score is guessed.
"""

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import blake2b
from typing import Any

import msgspec
import pyarrow as pa

from noria.domain.endpoint import Route, Wire
from noria.domain.errors import BudgetExhausted, NotReady, UpstreamFailed
from noria.domain.events import WindowClosed, WindowJudged
from noria.domain.judge import JudgeState
from noria.domain.monitor import Window
from noria.domain.price import Price
from noria.evaluation.judge import PROMPT, Case, Scored, Verdict, question, verdict
from noria.monitoring.asking import AT_ONCE, Asker, Reply
from noria.monitoring.cases import cases, chunks, sample
from noria.ports import Clock, RecordStore, StateStore, Steps
from noria.settings import Judge, Project
from noria.settings.monitors import JUDGE
from noria.tables import FEEDBACK

CHUNK = 8
"""Answers that are judged in one durable step: a crash costs at most so many requests twice."""

Scoring = Callable[[Judge, Sequence[Case], Callable[[bytes], bytes]], Sequence[Scored]]
"""Judges cases by a scorer of MLflow; the last argument answers its requests to the judging model."""


@dataclass(frozen=True, slots=True)
class Judges:
    """The judges of every endpoint of a project.

    Attributes:
        asker: Asks judging models.
        price: Address of a judging model and the endpoint that it champions (or none) → what its tokens cost.
        redact: Endpoint → what takes out of a reason what the log doesn't hold either.
        scoring: How MLflow's scorers are run.
        arriving: Is told of rows that are written into a table, so that no closed window misses them.
    """

    state: StateStore
    records: RecordStore
    clock: Clock
    project: Project
    asker: Asker
    price: Callable[[str, str | None], Price | None]
    redact: Callable[[str], Callable[[str], str]]
    scoring: Scoring
    arriving: Callable[[str, pa.Table], None] = lambda *_: None
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def judge(self, event: WindowClosed, step: Steps) -> None:
        """Judge a sample of a window's answers, when it closes for the first time."""
        endpoint = self.project.endpoints.get(event.endpoint)
        if endpoint is None or not endpoint.judges or event.longer or event.revision:
            return
        drawn: Mapping[str, Mapping[str, Any]] = step("draw samples for judges", self._draw, event)
        for name, plan in drawn.items():
            found: list[Mapping[str, Any]] = []
            for number, ids in enumerate(chunks(plan["ids"], CHUNK)):
                found += step(f"judge {name} {number}", self._judge, event, name, plan, ids)
            if found:
                step(f"write down {name}", self._write, event, name, plan["version"], found)

    def _draw(self, event: WindowClosed) -> dict[str, dict[str, Any]]:
        """What each judge is to judge, and with which model; a judge that can't is put down with its problem."""
        drawn, view = {}, self.records.view()
        for name, judge in self.project.endpoints[event.endpoint].judges.items():
            try:
                url, model = self._model(judge)
            except NotReady as error:
                now, key = self.clock.now(), f"{event.endpoint}:{JUDGE}{name}"
                account = self.state.get(JudgeState, key) or _fresh(key, event.endpoint, name, now)
                self._keep(replace(account, problem=str(error)))
                continue
            ids = sample(view, event.endpoint, Window(event.start, event.end), name, judge)
            drawn[name] = {"ids": ids, "url": url, "model": model, "version": version_of(judge, model)}
        return drawn

    def _model(self, judge: Judge) -> tuple[str, str]:
        """Address and name of the judging model.

        Raises:
            NotReady: There is none yet.
        """
        if judge.upstream is not None:
            return f"upstream:{judge.upstream}/{judge.model}", f"{judge.upstream}/{judge.model}"
        route = self.state.get(Route, judge.endpoint or "")
        if route is None or route.wire is not Wire.OPENAI:
            raise NotReady(f"{judge.endpoint} has no version that could judge.", "It judges once it has one.")
        return route.champion.url, route.champion.ref

    def _judge(
        self, event: WindowClosed, name: str, plan: Mapping[str, Any], ids: Sequence[str]
    ) -> list[dict[str, Any]]:
        """The verdicts on some answers; those without one are counted."""
        judge = self.project.endpoints[event.endpoint].judges.get(name)
        if judge is None:  # the project file changed meanwhile
            return []
        known = cases(self.records.view(), event.endpoint, Window(event.start, event.end), ids)
        with self._turn:
            account = self._account(event.endpoint, name, plan)
            price = self.price(plan["url"], judge.endpoint)
            if judge.usd_per_day is not None and price is None:
                problem = f"There is a budget for {name}, but nobody knows what {plan['model']} costs."
                self._keep(replace(account, problem=problem, skipped=account.skipped + len(ids)))
                return []
            work = _Work(self.asker, judge, plan["url"], price, account)
            found = work.scored(known, self.scoring) if judge.scorer else work.asked(known)
            self._keep(replace(work.account, at=self.clock.now()))
        clean = self.redact(event.endpoint)
        return [{"request_id": key, "score": v.score, "reason": clean(v.reason)} for key, v in found.items()]

    def _write(
        self, event: WindowClosed, name: str, version: str, found: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        """Put the verdicts into the feedback table, once, and have the window's quality measured again."""
        now = self.clock.now()
        writer = f"{JUDGE}{event.endpoint}:{name}:{version}:{event.start.isoformat()}"
        first = self.clock.now_us()
        rows = [
            {
                "feedback_id": f"{JUDGE}{name}:{version}:{each['request_id']}",
                "request_id": each["request_id"],
                "endpoint": event.endpoint,
                "feedback_date": now.date(),
                "feedback_time": now,
                "score": each["score"],
                "comment": each["reason"],
                "source": f"{JUDGE}{name}",
                "spool": f"{JUDGE}{event.endpoint}:{name}",
                "sequence": first + number,
            }
            for number, each in enumerate(found)
        ]
        table = pa.Table.from_pylist(rows, schema=FEEDBACK)
        self.arriving("feedback", table)
        self.records.append("feedback", table, writer, 1)
        self.arriving("feedback", table)  # the window that they came in may have closed meanwhile
        with self.state.note() as note:
            note.emit(WindowJudged(endpoint=event.endpoint, start=event.start, end=event.end, at=now))
        return {"rows": len(rows)}

    def _account(self, endpoint: str, name: str, plan: Mapping[str, Any]) -> JudgeState:
        """A judge's account as it is today."""
        now, key = self.clock.now(), f"{endpoint}:{JUDGE}{name}"
        kept = self.state.get(JudgeState, key)
        if kept is None:
            kept = _fresh(key, endpoint, name, now)
        if kept.day != now.date():
            kept = replace(kept, day=now.date(), requests=0, usd=0.0)
        if kept.version != plan["version"]:  # a day's budget is the judge's, whichever its version
            kept = replace(kept, judged=0, garbage=0, failed=0, skipped=0)
        return replace(kept, version=plan["version"], model=plan["model"], problem="")

    def _keep(self, account: JudgeState) -> None:
        with self.state.note() as note:
            note.put(account)


class _Work:
    """One turn of a judge: asks within the day's budget and keeps its account.

    Requests go out a few at a time, so that a budget of money is overdrawn by these at most.
    """

    def __init__(self, asker: Asker, judge: Judge, url: str, price: Price | None, account: JudgeState) -> None:
        self._asker, self._judge, self._url, self._price = asker, judge, url, price
        self._lock = threading.Lock()
        self.account = account

    def asked(self, known: Mapping[str, Case]) -> dict[str, Verdict]:
        """Verdicts by a guideline or a rubric."""
        judge, found = self._judge, dict[str, Verdict]()
        kind, text = ("guideline", judge.guideline) if judge.guideline else ("rubric", judge.rubric)
        waiting = list(known.items())
        while waiting and (most := min(self._left(), AT_ONCE)):
            now, waiting = waiting[:most], waiting[most:]
            marks = [os.urandom(6).hex() for _ in now]
            bodies = [
                question(case, kind, text, mark, max_tokens=judge.max_tokens, structured=judge.structured)
                for (_, case), mark in zip(now, marks, strict=True)
            ]
            for (key, _), mark, said in zip(now, marks, self._send(bodies), strict=True):
                given = verdict(said.text or "", mark)
                if said.problem:
                    self._count(failed=1, problem=said.problem)
                elif given is None:
                    self._count(garbage=1)
                else:
                    found[key] = given
                    self._count(judged=1)
        self._count(skipped=len(waiting))
        return found

    def scored(self, known: Mapping[str, Case], scoring: Scoring) -> dict[str, Verdict]:
        """Verdicts by a scorer of MLflow."""
        if not known or not self._left():
            self._count(skipped=len(known))
            return {}
        found = {}
        for key, said in zip(known, scoring(self._judge, list(known.values()), self._answer), strict=True):
            if said.problem:
                self._count(failed=1, problem=said.problem)
            elif said.verdict is None:
                self._count(garbage=1)
            else:
                found[key] = said.verdict
                self._count(judged=1)
        return found

    def _answer(self, raw: bytes) -> bytes:
        """Answer a scorer's request to the judging model.

        Raises:
            BudgetExhausted: The day's budget is used up.
            UpstreamFailed: There is no reply.
        """
        if not self._left():
            raise BudgetExhausted("The judge's budget of today is used up.", "It goes on tomorrow (UTC).")
        (said,) = self._send([msgspec.json.decode(raw)])
        if said.problem:
            raise UpstreamFailed(said.problem)
        return said.body

    def _left(self) -> int:
        """Requests that the day's budget has room for."""
        most = self._judge.usd_per_day
        if most is not None and self.account.usd >= most:
            return 0
        return max(self._judge.requests_per_day - self.account.requests, 0)

    def _send(self, bodies: Sequence[Mapping[str, Any]]) -> list[Reply]:
        replies = self._asker.ask(self._url, bodies, self._price, self._judge.timeout.total_seconds())
        with self._lock:
            spent = self.account.usd + sum(reply.usd for reply in replies)
            self.account = replace(self.account, requests=self.account.requests + len(bodies), usd=spent)
        return replies

    def _count(self, *, problem: str = "", **more: int) -> None:
        with self._lock:
            counts = {name: getattr(self.account, name) + number for name, number in more.items()}
            self.account = replace(self.account, problem=problem or self.account.problem, **counts)


def version_of(judge: Judge, model: str) -> str:
    """What tells one version of a judge from the next: what it judges by, what with, and how it is asked."""
    said = [judge.guideline, judge.rubric, judge.scorer, model, PROMPT]
    return blake2b(json.dumps(said).encode(), digest_size=6).hexdigest()


def _fresh(key: str, endpoint: str, name: str, now: datetime) -> JudgeState:
    return JudgeState(id=key, endpoint=endpoint, judge=name, version="", model="", day=now.date(), at=now)
