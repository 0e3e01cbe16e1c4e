"""Traffic of an endpoint as it lies in the tables, for tests of what reads them."""

import itertools
import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from noria.domain.endpoint import Role, Route, Target, Wire
from noria.settings import Project
from noria.tables import FEEDBACK, INFERENCE

BEGIN = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Clock:
    """A clock that a test moves."""

    def __init__(self, at=BEGIN):
        self.at = at

    def now(self):
        return self.at

    def now_us(self):
        return int(self.at.timestamp() * 1_000_000)


def at_once(name, function, *arguments):
    """Steps that run here and now; what they return has to be JSON, as the durable engine demands."""
    return json.loads(json.dumps(function(*arguments)))


def project(task="classification", judges=None, **monitors):
    """A project with one endpoint, `triage`, and an upstream of its judges."""
    model = {"gguf": {"gguf": "m.gguf", "licence": "MIT", "source": "here"}}
    source = {"training": {"data": "seed.csv"}} if task == "classification" else model
    endpoint = {"task": task, "policy": "p.yaml", "monitors": monitors, **source}
    upstreams = {"judges": {"url": "https://judges.example", "key": "JUDGE_KEY"}}
    endpoint |= {"judges": judges or {}}
    return Project.model_validate({"project": "care", "upstreams": upstreams, "endpoints": {"triage": endpoint}})


def route(version="1", revision=1):
    """Triage's route with that champion alone."""
    champion = Target(
        model="triage", version=version, role=Role.CHAMPION, weight=100, url="unix:/t.sock", verdict_id=f"v{version}"
    )
    return Route(endpoint="triage", wire=Wire.MLFLOW, revision=revision, targets=(champion,))


class Traffic:
    """Writes requests and feedback into the tables."""

    def __init__(self, records):
        self.records = records
        self._number = itertools.count(1)

    def ask(
        self,
        texts,
        answers,
        at=BEGIN,
        *,
        version="1",
        route="champion",
        outcome="answered",
        within=HOUR,
        chances=None,
        requester=None,
        metadata=None,
    ):
        """One request for each text, spread over a span of time; returns their ids.

        An answer that is a dict is the response itself; `chances` are the probabilities beside the predictions.
        """
        rows, step = [], within / max(len(texts), 1)
        for i, (text, answer) in enumerate(zip(texts, answers, strict=True)):
            moment = at + i * step
            number = next(self._number)
            rows.append(
                {
                    "databricks_request_id": f"{int(moment.timestamp() * 1000):012x}{number:020x}",
                    "request_time": moment,
                    "request_date": moment.date(),
                    "request": text
                    if isinstance(text, bytes | str) and str(text).startswith("{")
                    else as_request(text),
                    "response": json.dumps(_response(answer, chances[i] if chances else None)),
                    "requester": requester,
                    "metadata": list((metadata or {}).items()),
                    "status_code": 200,
                    "execution_duration_ms": 5 + i % 7,
                    "endpoint": "triage",
                    "model_name": "triage",
                    "model_version": version,
                    "route": route,
                    "outcome": outcome,
                }
            )
        self._append("inference", rows, INFERENCE)
        return [row["databricks_request_id"] for row in rows]

    def say(self, ids, labels, at=BEGIN, scores=None, feedback_ids=None, source="human"):
        """Feedback on these requests, all at one moment."""
        feedback_ids = feedback_ids or [f"f{next(self._number)}" for _ in ids]
        rows = [
            {
                "feedback_id": feedback_id,
                "request_id": name,
                "endpoint": "triage",
                "feedback_time": at,
                "feedback_date": at.date(),
                "label": label,
                "score": score,
                "source": source,
            }
            for name, label, score, feedback_id in zip(
                ids, labels, scores or [None] * len(ids), feedback_ids, strict=True
            )
        ]
        self._append("feedback", rows, FEEDBACK)

    def _append(self, table, rows, schema):
        if rows:
            self.records.append(table, pa.Table.from_pylist(rows, schema=schema), "test", next(self._number))


def _response(answer, chances):
    if isinstance(answer, dict):
        return answer
    return {"predictions": [answer]} | ({"probabilities": [chances]} if chances else {})


def completion(text):
    """A chat's answer."""
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def as_request(text):
    """The lab's body."""
    return json.dumps({"input": text})
