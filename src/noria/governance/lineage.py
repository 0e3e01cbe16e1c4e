"""From an answer to everything that made it, and from a version or a run to everything that it made.

answer → version → run → dataset → records, run → trigger → alert, version → verdict → gates and people, → rollout. What
isn't known is said in its place: a link is never invented.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from noria.domain.alert import Alert
from noria.domain.approval import Approval, ApprovalState, standing
from noria.domain.errors import UnknownTrace
from noria.domain.events import AlertRaised
from noria.domain.gate import GateResult, Verdict
from noria.domain.lineage import Kind, Link, lost
from noria.domain.rollout import Rollout
from noria.domain.run import Run, TriggerKind
from noria.governance.audit import history
from noria.ports import StateStore

_REF = re.compile(r"(?P<model>[\w.-]+)/(?P<version>[\w.-]+)")
_ALERT = "alert:"
_MANY = 10_000
"""Runs and verdicts that are looked through."""
_SERVED = ("version.promoted", "version.rolled_back", "rollout.withdrawn")
"""Changes of who answers."""
_ADDED = "version.registered"
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Answers that a version gave: how many, when, and the newest ones' ids."""

    count: int = 0
    first: datetime | None = None
    last: datetime | None = None
    newest: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """What a run's dataset holds.

    Attributes:
        id: Identity of the dataset.
        says: What it is, in words.
        facts: Rows, table versions, checksums.
        count: Production records in it.
        records: Some of them: `request_id`, `split` (`train` or `holdout`), `label`.
    """

    id: str
    says: str
    facts: Mapping[str, object] = field(default_factory=dict)
    count: int = 0
    records: tuple[Mapping[str, str], ...] = ()


class Log(Protocol):
    """What lineage reads of the log and of datasets."""

    def answer(self, name: str) -> Row | None:
        """The record of a request, by Noria's id or the caller's own; columns of the table `inference`."""
        ...

    def feedback(self, request_id: str) -> Sequence[Row]:
        """What was said of an answer, oldest first; columns of the table `feedback`."""
        ...

    def given(self, model: str, version: str, most: int) -> Given:
        """The answers of a version, shadow copies left out."""
        ...

    def learnt(self, run: Run, most: int) -> Learnt | None:
        """What a run learnt from; None if its dataset is gone."""
        ...

    def lessons(self, runs: Sequence[Run], request_id: str) -> Mapping[str, str]:
        """Those of the runs whose dataset holds a record: run id → `train` or `holdout`."""
        ...


@dataclass(frozen=True, slots=True)
class Lineage:
    """Joins what the state and the log know.

    Attributes:
        state: Runs, verdicts, rollouts, alerts, and the audit trail.
        log: Records and datasets.
        most: How many records or answers of each kind are named.
    """

    state: StateStore
    log: Log
    most: int = 5

    def trace(self, name: str) -> Link:
        """The lineage of a request, a run, a verdict, an alert, or a version written as MODEL/VERSION.

        Raises:
            UnknownTrace: There is nothing of that name.
        """
        if (run := self.state.get(Run, name)) is not None:
            return self._run(run, back=True)
        if (verdict := self.state.get(Verdict, name)) is not None:
            return self._verdict(verdict, back=True)
        if (alert := self.state.get(Alert, name)) is not None:
            return self._alert(alert, back=True)
        if (found := _REF.fullmatch(name)) is not None and (link := self._known(found["model"], found["version"])):
            return link
        if (row := self.log.answer(name)) is not None:
            return self._answer(row)
        raise UnknownTrace(
            f"No request, version, run, verdict or alert is called {name[:100]!r}.",
            "Give an answer's x-request-id, MODEL/VERSION, or an id that `noria status` shows. "
            "A record past its endpoint's retention is gone.",
        )

    # --- an answer ----------------------------------------------------------------------------------------------------

    def _answer(self, row: Row) -> Link:
        request_id, endpoint = str(row["databricks_request_id"]), str(row["endpoint"])
        fields = (
            "endpoint", "model_name", "model_version", "route", "outcome", "status_code", "execution_duration_ms",
            "requester", "client_request_id", "shadow_of", "policy_hash", "cost_usd", "trace_id",
        )  # fmt: skip
        facts = {name: row.get(name) for name in fields if row.get(name) not in (None, "")}
        version = self._version(str(row["model_name"] or ""), str(row["model_version"] or ""), answered=endpoint)
        heard = tuple(_feedback(said) for said in self.log.feedback(request_id))
        cached = ", from memory" if row.get("cache_hit") else ""
        copy = f", a copy of {row['shadow_of']}" if row.get("shadow_of") else ""
        return Link(
            kind=Kind.ANSWER,
            id=request_id,
            says=f"{endpoint}: {row['outcome']} ({row['status_code']}) as {row['route']}{cached}{copy}",
            at=row["request_time"],
            facts=facts,
            links=(version, *heard, *self._lessons(endpoint, request_id)),
        )

    def _lessons(self, endpoint: str, request_id: str) -> list[Link]:
        """Runs that learnt from the answer."""
        runs = self.state.find(Run, endpoint=endpoint, limit=_MANY)
        found = self.log.lessons(runs, request_id)
        return [
            Link(
                kind=Kind.LESSON,
                id=run.id,
                says=f"{'learnt from it' if found[run.id] == 'train' else 'kept it to judge on'}"
                + (f" and made {run.model}/{run.version}" if run.version else ""),
                at=run.started_at,
                facts={"split": found[run.id], "version": f"{run.model}/{run.version}" if run.version else ""},
            )
            for run in runs
            if run.id in found
        ]

    # --- a version ----------------------------------------------------------------------------------------------------

    def _known(self, model: str, version: str) -> Link | None:
        """The version, if anything at all is known of it."""
        link, given = self._version(model, version), self.log.given(model, version, self.most)
        if not given.count and all(each.missing for each in link.links):
            return None
        return replace(link, links=(*link.links, _given(given)))

    def _version(self, model: str, version: str, answered: str = "") -> Link:
        if not model or not version:
            return lost(Kind.VERSION, "No version was asked: the request was refused before one was picked.")
        ref = f"{model}/{version}"
        run = next((r for r in self._runs() if (r.model, r.version) == (model, version)), None)
        origin = self._run(run) if run is not None else self._addition(ref)
        return Link(
            kind=Kind.VERSION,
            id=ref,
            says=f"answered for {answered}" if answered else "",
            facts={"model": model, "version": version},
            links=(origin, *self._release(model, version)),
        )

    def _addition(self, ref: str) -> Link:
        """Who brought a version that no run made."""
        found = [event for event in history(self.state, subject=ref, newest=_MANY) if event.action == _ADDED]
        if not found:
            return lost(Kind.RUN, "No run made it, and nobody is on record as having added it.")
        event = found[-1]
        why = f": {event.reason}" if event.reason else ""
        return Link(
            kind=Kind.ADDITION,
            id=ref,
            says=f"added by {event.actor}{why}",
            at=event.at,
            facts={"audit": event.sequence, "by": event.actor, **event.evidence},
        )

    def _release(self, model: str, version: str) -> list[Link]:
        """Verdicts, rollouts and changes of who answers, oldest first."""
        verdicts = [v for v in self.state.find(Verdict, limit=_MANY) if (v.model, v.version) == (model, version)]
        if not verdicts:
            return [lost(Kind.VERDICT, "No verdict about it is on record.")]
        links = [self._verdict(v) for v in sorted(verdicts, key=lambda v: v.decided_at)]
        links += [_rollout(r) for v in verdicts if (r := self.state.get(Rollout, v.id)) is not None]
        told = history(self.state, subject=f"{model}/{version}", newest=_MANY)[::-1]
        return links + [
            Link(
                kind=Kind.CHANGE,
                says=f"{event.action} by {event.actor}" + (f": {event.reason}" if event.reason else ""),
                at=event.at,
                facts={"audit": event.sequence, "action": event.action, "actor": event.actor},
            )
            for event in told
            if event.action in _SERVED
        ]

    # --- a run --------------------------------------------------------------------------------------------------------

    def _runs(self) -> list[Run]:
        return self.state.find(Run, limit=_MANY)

    def _run(self, run: Run, *, back: bool = False) -> Link:
        took = f" in {(run.finished_at - run.started_at).total_seconds():.0f} s" if run.finished_at else ""
        why = f": {run.error}" if run.error else ""
        links = [self._dataset(run), self._trigger(run)]
        if back and run.version:
            made = Link(
                kind=Kind.VERSION,
                id=f"{run.model}/{run.version}",
                says="made by this run",
                links=(
                    *self._release(run.model, run.version),
                    _given(self.log.given(run.model, run.version, self.most)),
                ),
            )
            links.append(made)
        elif back:
            links.append(lost(Kind.VERSION, "It registered no version."))
        return Link(
            kind=Kind.RUN,
            id=run.id,
            says=f"{run.state.value}{took}{why}",
            at=run.started_at,
            facts={
                "endpoint": run.endpoint,
                "state": run.state.value,
                "mlflow_run": run.mlflow_run_id,
                "version": f"{run.model}/{run.version}" if run.version else "",
                "steps": [step.name for step in run.steps],
            },
            links=tuple(links),
        )

    def _dataset(self, run: Run) -> Link:
        learnt = self.log.learnt(run, self.most)
        if learnt is None:
            begun = any(step.name == "snapshot" for step in run.steps)
            why = "Its rows are no longer kept." if begun else "It took no snapshot of any rows."
            return lost(Kind.DATASET, why)
        names = tuple(record["request_id"] for record in learnt.records)
        if learnt.count:
            more = f", of which {len(names)} are named here" if learnt.count > len(names) else ""
            records = Link(
                kind=Kind.RECORDS,
                says=f"{learnt.count} labelled production records{more}: {', '.join(names)}",
                facts={"count": learnt.count, "records": [dict(record) for record in learnt.records]},
            )
        else:
            records = Link(kind=Kind.RECORDS, says="no production records: only the project's own rows")
        return Link(kind=Kind.DATASET, id=learnt.id, says=learnt.says, facts=learnt.facts, links=(records,))

    def _trigger(self, run: Run) -> Link:
        trigger = run.trigger
        return Link(
            kind=Kind.TRIGGER,
            id=trigger.cause,
            says=f"{trigger.kind.value}, {trigger.actor}: {trigger.reason}",
            facts={"kind": trigger.kind.value, "actor": trigger.actor, "reason": trigger.reason},
            links=(self._alert_behind(run),) if trigger.kind is TriggerKind.ALERT else (),
        )

    def _alert_behind(self, run: Run) -> Link:
        """The alert that set a run off; one that fired again since is told as it is now, and that it is."""
        for alert in self.state.find(Alert, endpoint=run.endpoint, limit=_MANY):
            if caused(alert, run):
                return self._alert(alert)
            if run.trigger.cause.startswith(f"{_ALERT}{alert.id}:"):
                again = self._alert(alert)
                return replace(again, missing="It has fired again since; what it said then is in the audit trail.")
        return lost(Kind.ALERT, "The alert is no longer on record.", run.trigger.cause)

    # --- an alert and a verdict ---------------------------------------------------------------------------------------

    def _alert(self, alert: Alert, *, back: bool = False) -> Link:
        shown = tuple(example.request_id for example in alert.records if example.request_id)
        links = []
        if shown:
            says = f"records that show it: {', '.join(shown)}"
            links.append(Link(kind=Kind.RECORDS, says=says, facts={"records": list(shown)}))
        if back:
            links += [self._run(run, back=True) for run in self._runs() if caused(alert, run)]
        return Link(
            kind=Kind.ALERT,
            id=alert.id,
            says=f"{alert.summary} ({alert.how_sure})" if alert.how_sure else alert.summary,
            at=alert.raised_at,
            facts={
                "monitor": alert.monitor,
                "state": alert.state.value,
                "since": alert.since.isoformat(),
                "log_e": alert.log_e,
                "rows": alert.rows,
            },
            links=tuple(links),
        )

    def _verdict(self, verdict: Verdict, *, back: bool = False) -> Link:
        gates = [_gate(result) for result in verdict.results]
        people, approval = list[Link](), self.state.get(Approval, verdict.id)
        if approval is not None and approval.state is ApprovalState.APPROVED:
            says = f"{approval.by} approved it: {approval.reason}"
            asked = {"state": approval.state.value, "requested_by": list(approval.requested_by)}
            people.append(Link(kind=Kind.APPROVER, id=approval.by, says=says, at=approval.at, facts=asked))
        elif approval is not None:
            people.append(lost(Kind.APPROVER, f"{approval.ending[0].upper()}{approval.ending[1:]}."))
        if verdict.override_by:
            what = "the gates refused" if verdict.reasons or not verdict.results else "nobody had approved"
            says = f"{verdict.override_by} allowed what {what}: {verdict.override_reason}"
            people.append(Link(kind=Kind.APPROVER, id=verdict.override_by, says=says, at=verdict.decided_at))
        against = f", compared with {verdict.champion}" if verdict.champion else ", the first version"
        return Link(
            kind=Kind.VERDICT,
            id=verdict.id,
            says=f"{standing(verdict, approval)}{against}",
            at=verdict.decided_at,
            facts={
                "passed": verdict.passed,
                "standing": standing(verdict, approval),
                "champion": verdict.champion,
                "policy_hash": verdict.policy_hash,
            },
            links=(*people, *gates, *([self._version(verdict.model, verdict.version)] if back else ())),
        )


def caused(alert: Alert, run: Run) -> bool:
    """Whether this firing of the alert set the run off."""
    return AlertRaised(endpoint=run.endpoint, alert_id=alert.id, at=alert.raised_at).id == run.trigger.cause


def _gate(result: GateResult) -> Link:
    facts = {"passed": result.passed, "numbers": dict(result.numbers), "thresholds": dict(result.thresholds)}
    says = f"{'passed' if result.passed else 'refused'}: {result.summary}"
    return Link(kind=Kind.GATE, id=result.gate, says=says, facts=facts)


def _rollout(rollout: Rollout) -> Link:
    way = " → ".join(
        f"{change.stage.value}{f' {change.weight} %' if change.weight else ''}" for change in rollout.history
    )
    facts = {"stage": rollout.stage.value, "verdict": rollout.verdict_id}
    return Link(kind=Kind.ROLLOUT, id=rollout.id, says=way or rollout.stage.value, at=rollout.started_at, facts=facts)


def _feedback(row: Row) -> Link:
    said = [f"{name} {row[name]}" for name in ("label", "score", "comment") if row.get(name) not in (None, "")]
    return Link(
        kind=Kind.FEEDBACK,
        id=str(row["feedback_id"]),
        says=f"{row.get('source') or 'somebody'}: {', '.join(said) or 'nothing'}",
        at=row["feedback_time"],
        facts={name: row.get(name) for name in ("label", "score", "source")},
    )


def _given(given: Given) -> Link:
    if not given.count:
        return Link(kind=Kind.ANSWERS, says="none in the log", facts={"count": 0})
    span = f", {given.first:%Y-%m-%d %H:%M} to {given.last:%Y-%m-%d %H:%M} UTC" if given.first and given.last else ""
    return Link(
        kind=Kind.ANSWERS,
        says=f"{given.count}{span}; the newest: {', '.join(given.newest)}",
        at=given.last,
        facts={"count": given.count, "newest": list(given.newest)},
    )
