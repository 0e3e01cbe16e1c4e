"""A stage for the release room: versions with made-up answers, tables in memory, a clock that is moved by hand."""

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from fakes.registry import FakeRegistry
from fakes.state import FakeState
from noria.domain.endpoint import Wire
from noria.domain.errors import UpstreamFailed
from noria.domain.gate import GateResult, Verdict
from noria.ports import UpstreamReply
from noria.release.rollouts import Rollouts
from noria.settings import Endpoint
from noria.tables import SCHEMAS, TIME_COLUMN

BEGIN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class HandClock:
    def __init__(self):
        self.at = BEGIN

    def now(self):
        return self.at

    def now_us(self):
        return int(self.at.timestamp() * 1_000_000)

    def pass_s(self, seconds):
        self.at += timedelta(seconds=seconds)


class StageHost:
    """A host whose versions come up at once; `broken` ones don't."""

    def __init__(self, wire=Wire.MLFLOW):
        self.up = {}
        self.broken = {}
        self.wires = {}
        self.default_wire = wire
        self.stopped = []

    def start(self, version):
        if version.ref in self.broken:
            raise UpstreamFailed(self.broken[version.ref], "See its log.")
        return self.up.setdefault(version.ref, f"unix:/{version.ref}")

    def running(self):
        return dict(self.up)

    def stop(self, ref):
        self.stopped.append(ref)
        self.up.pop(ref, None)

    def stop_all(self):
        self.up.clear()

    def wire(self, version):
        return self.wires.get(version.ref, self.default_wire)


class Tables:
    """The inference and feedback tables as lists; every append is a new snapshot."""

    def __init__(self):
        self.rows = {"inference": [], "feedback": []}
        self.versions = {"inference": 0, "feedback": 0}
        self.scans = []

    def append_rows(self, table, rows):
        self.rows[table].extend(rows)
        self.versions[table] += 1

    def snapshot(self, table):
        return self.versions[table]

    def scan(self, table, *, columns=None, endpoint=None, since=None, until=None, snapshot=None):
        self.scans.append((table, since))
        time = TIME_COLUMN[table]
        kept = [r for r in self.rows[table] if r["endpoint"] == endpoint and (since is None or r[time] >= since)]
        whole = [{name: row.get(name) for name in SCHEMAS[table].names} for row in kept]
        found = pa.Table.from_pylist(whole, schema=SCHEMAS[table])
        return found.select(columns) if columns else found


class Body:
    def __init__(self, content):
        self._content = [content]

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self._content:
            raise StopAsyncIteration
        return self._content.pop()

    def rest(self) -> bytes | None:
        return None

    async def aclose(self):
        self._content = []


class Servers:
    """Model servers as functions from a text to a label (or to what a chat says), by URL; a client factory."""

    def __init__(self):
        self.answer: dict[str, Callable[[str], str]] = {}
        self.calls = []

    def __call__(self):
        return self

    async def post(self, url, path, body, headers, timeout_s):
        self.calls.append((url, path, json.loads(body)))
        if url not in self.answer:
            raise UpstreamFailed(f"Nothing listens at {url}.", "Start it.", sent=False)
        asked = json.loads(body)
        if path == "/invocations":
            given = {"predictions": [self.answer[url](text) for text in asked["inputs"]]}
        else:
            said = self.answer[url](asked["messages"][-1]["content"])
            given = {"choices": [{"message": {"role": "assistant", "content": said}}]}
        return UpstreamReply(200, {}, Body(json.dumps(given).encode()))

    async def aclose(self):
        """Nothing to close."""


def passed_verdict(version, endpoint="triage", champion="", passed=True):
    result = GateResult(gate="quality", passed=passed, summary="As good." if passed else "Worse.")
    return Verdict(
        id=f"verdict-{version}",
        endpoint=endpoint,
        model="triage",
        version=version,
        champion=champion,
        decided_at=BEGIN,
        policy_hash=f"policy-{version}",
        results=(result,),
    )


def immediately(name, function, *arguments):
    """Steps that are done at once, their results as JSON."""
    return json.loads(json.dumps(function(*arguments)))


class Stage:
    """Everything that Rollouts needs, three registered versions, and traffic."""

    def __init__(self, folder, **rollout):
        plan = {"shadow_requests": 40, "steps": [10, 50], "step_requests": 40} | rollout
        self.settings = Endpoint.model_validate(
            {"task": "classification", "policy": "p.yaml", "training": {"data": "d.csv"}, "rollout": plan}
        )
        self.clock = HandClock()
        self.state = FakeState(self.clock)
        self.registry = FakeRegistry(folder, self.clock)
        for run in ("one", "two", "three"):
            uri = self.registry.log_model(run, {"model": run.encode()})
            self.registry.register(uri, "triage", {"noria.licence": "MIT"})
        self.host = StageHost()
        self.tables = Tables()
        self.rollouts = self.new_rollouts()
        self.ids = itertools.count(1)
        self.sequence = itertools.count(1)

    def new_rollouts(self):
        """As a worker finds things after a restart."""
        return Rollouts(
            state=self.state,
            registry=self.registry,
            host=self.host,
            store=self.tables,
            clock=self.clock,
            endpoint=lambda _: self.settings,
        )

    def request(
        self, version, role, *, said="negative", outcome="answered", status=200, shadow_of="", spool="s1", **more
    ):
        """One row of the inference table; returns the request's id."""
        request_id = f"{next(self.ids):032x}"
        row = {
            "databricks_request_id": request_id,
            "request_time": self.clock.now(),
            "finished_time": self.clock.now(),
            "status_code": status,
            "response": json.dumps({"predictions": [said]}),
            "endpoint": "triage",
            "model_name": "triage",
            "model_version": version,
            "route": role,
            "outcome": outcome,
            "shadow_of": shadow_of,
            "spool": spool,
            "sequence": next(self.sequence),
            **more,
        }
        self.tables.append_rows("inference", [row])
        return request_id

    def feedback(self, request_id, label=None, score=None, spool="s1"):
        row = {
            "feedback_id": f"f{next(self.ids)}",
            "request_id": request_id,
            "endpoint": "triage",
            "feedback_time": self.clock.now(),
            "label": label,
            "score": score,
            "spool": spool,
            "sequence": next(self.sequence),
        }
        self.tables.append_rows("feedback", [row])
