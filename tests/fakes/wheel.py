"""A project whose worker is killed: what turns its wheel without callers, and what it comes to in the end."""

import json
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from fakes.mortal import LEDGER
from noria.adapters.clock import SystemClock
from noria.adapters.processes import birth
from noria.adapters.state.sqlite import SqliteState
from noria.adapters.tables.delta import DeltaStore
from noria.domain.alert import Alert, AlertState
from noria.domain.endpoint import Role, Route
from noria.domain.errors import NoriaError
from noria.domain.events import AlertRaised
from noria.domain.gate import Verdict
from noria.domain.rollout import Rollout, Stage
from noria.domain.run import Run, RunState
from noria.governance.audit import verify
from noria.tables import SCHEMAS

YAML = """
project: shop
endpoints:
  triage:
    task: classification
    policy: policies/triage.yaml
    group: channel
    training: {data: data/messages.csv, cooldown: 1s, min_labels: 3, parameters: {max_features: 500}}
    monitors: {window: 1d}
    rollout: {shadow_requests: 10, steps: [50], step_requests: 10}
"""
LOOK_S = 0.03
ENOUGH = 12
"""Requests of each version in each stage of a rollout."""


class Nursery:
    """Brings workers to life one after the other, each forked from a process that has imported everything."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "fakes.mortal"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
        )
        self._pid = 0
        self._said: queue.SimpleQueue[dict[str, int]] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def born(self, root: Path, point: str = "") -> int:
        """A worker of that project, which dies at a point if one is named; returns its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"root": str(root), "point": point}) + "\n")
        self._process.stdin.flush()
        self._pid = self._said.get(timeout=60)["pid"]
        return self._pid

    def ended(self, timeout_s: float | None = None) -> int | None:
        """How the worker ended, as `subprocess.Popen.returncode` says it; None if it hasn't within that time."""
        try:
            status = self._said.get(block=timeout_s is not None, timeout=timeout_s)["status"]
            self._pid = 0
            return status
        except queue.Empty:
            return None

    def close(self) -> None:
        """No more workers; one that a failed test left is killed."""
        with suppress(ProcessLookupError):
            if self._pid and self.ended() is None:
                os.kill(self._pid, signal.SIGKILL)
        self._process.communicate(timeout=60)
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(json.loads(line))


@dataclass
class Wheel:
    """A project, its worker's lives, and traffic that is written straight into the tables."""

    root: Path
    nursery: Nursery
    pid: int = 0
    """The worker's process id; 0 while there is none."""
    asked: int = 0
    """Runs that were asked for."""
    point: str = ""
    """Where it is to die."""
    quietly: bool = False
    """Whether there is no traffic, so that no rollout moves on."""
    _fed: set[tuple[str, str, int]] = field(default_factory=set)
    _rows: int = 0

    def __post_init__(self) -> None:
        self.state = SqliteState(self.root / ".noria/state.db", SystemClock())
        self.tables = DeltaStore(self.root / ".noria/tables")

    # --- lives --------------------------------------------------------------------------------------------------------

    def live(self, point: str = "") -> None:
        """Begin a life that ends at a point, or that is ended from outside."""
        self.point, self.pid = point, self.nursery.born(self.root, point)

    def kill(self) -> None:
        """SIGKILL, now."""
        os.kill(self.pid, signal.SIGKILL)
        assert self.nursery.ended(30) == -signal.SIGKILL, self.log()
        self.pid = 0

    def stop(self) -> None:
        """The clean end, model servers included."""
        os.kill(self.pid, signal.SIGTERM)
        assert self.nursery.ended(60) == 0, self.log()
        self.pid = 0

    def until(self, happened: Callable[[], object], timeout_s: float = 90) -> None:
        """Turn the wheel until something has happened."""
        deadline = time.monotonic() + timeout_s
        while not happened():
            status = self.nursery.ended() if self.pid else None
            if status is not None:
                assert status == -signal.SIGKILL, f"the worker ended with {status}\n{self.log()}"
                self.pid = 0
                continue
            assert self.pid, f"the worker is dead\n{self.log()}"
            assert time.monotonic() < deadline, f"it did not happen in {timeout_s} s {self.point}\n{self.log()}"
            self.feed()
            time.sleep(LOOK_S)

    def log(self) -> str:
        """The last words of the workers."""
        return (self.root / "worker.log").read_text(errors="replace")[-6000:]

    # --- what happens in the world ------------------------------------------------------------------------------------

    def ask(self) -> str:
        """An alarm, and labels that come after it: a run. Returns the alert's id."""
        self.asked += 1
        now = datetime.now(UTC)
        alert = Alert(
            id=f"triage:text:{self.asked}-",
            endpoint="triage",
            monitor="text",
            state=AlertState.FIRING,
            raised_at=now,
            since=now,
            summary="What callers write has changed.",
            log_e=9.0,
        )
        with self.state.change("noria", "alert.raised", alert.id) as change:
            change.put(alert)
            change.emit(AlertRaised(endpoint="triage", alert_id=alert.id, at=now))
        route = self.state.get(Route, "triage")
        assert route is not None
        ids = [self._request(route.champion.model, route.champion.version, Role.CHAMPION, text=t) for t in ANSWERED]
        self._append("inference", [row for row, _ in ids])
        said = {"endpoint": "triage", "label": "negative", "spool": "world", "source": "human"}
        feedback = [
            {**said, **_at("feedback"), "feedback_id": name, "request_id": name, "sequence": self._next()}
            for _, name in ids
        ]
        self._append("feedback", feedback)
        return alert.id

    def feed(self) -> None:
        """Traffic for the rollout that is on its way, once for each of its stages."""
        if self.quietly:
            return
        try:
            route = self.state.get(Route, "triage")
            rollout = next((r for r in self.state.find(Rollout, limit=20) if not r.stage.finished), None)
        except NoriaError:
            return
        if route is None or rollout is None or rollout.stage is Stage.STARTING:
            return
        place = (rollout.id, rollout.stage.value, rollout.step)
        if place in self._fed:
            return
        role = Role.SHADOW if rollout.stage is Stage.SHADOW else Role.CANARY
        rows = []
        for _ in range(ENOUGH):
            rows.append(self._request(route.champion.model, route.champion.version, Role.CHAMPION)[0])
            rows.append(self._request(rollout.model, rollout.version, role)[0])
        self._append("inference", rows)
        self._fed.add(place)

    def _request(
        self, model: str, version: str, role: Role, text: str = "Where is my parcel?"
    ) -> tuple[dict[str, Any], str]:
        name = f"{time.time_ns():032x}"
        now = datetime.now(UTC)
        row = {
            "databricks_request_id": name,
            "request_date": now.date(),
            "request_time": now,
            "finished_time": now,
            "status_code": 200,
            "request": json.dumps({"input": text}),
            "response": json.dumps({"predictions": ["neutral"]}),
            "endpoint": "triage",
            "model_name": model,
            "model_version": version,
            "route": role.value,
            "outcome": "answered",
            "spool": "world",
            "sequence": self._next(),
            "shadow_of": f"{'0' * 32}" if role is Role.SHADOW else None,
        }
        return row, name

    def _next(self) -> int:
        self._rows += 1
        return self._rows

    def _append(self, table: str, rows: list[dict[str, Any]]) -> None:
        whole = [{name: row.get(name) for name in SCHEMAS[table].names} for row in rows]
        self.tables.append(table, pa.Table.from_pylist(whole, schema=SCHEMAS[table]), "world", self._next())

    # --- what it came to ----------------------------------------------------------------------------------------------

    def run_of(self, alert_id: str) -> Run | None:
        """The run that an alert set off."""
        return next((r for r in self.state.find(Run) if alert_id in r.trigger.cause), None)

    def ended(self, alert_id: str) -> bool:
        """Whether everything that an alert set off is over."""
        run = self.run_of(alert_id)
        if run is None or run.state is RunState.RUNNING:
            return False
        if run.state is not RunState.SUCCEEDED:
            return self.quiet()
        verdicts = [v for v in self.state.find(Verdict) if v.version == run.version]
        if not verdicts:
            return False
        rollout = self.state.get(Rollout, verdicts[0].id)
        over = rollout.stage.finished if rollout is not None else not verdicts[0].passed
        return over and self.quiet()

    def quiet(self) -> bool:
        """Whether no event waits and no workflow is under way."""
        return not self.state.pending_events() and not _rows_of(
            self.root / ".noria/workflows.db",
            "SELECT 1 FROM workflow_status WHERE status NOT IN ('SUCCESS', 'ERROR')",
        )

    def beginnings(self) -> list[tuple[str, str]]:
        """(Event, step) of every beginning of a durable step, in order."""
        return [(line["event"], line["step"]) for line in self._ledger() if line["what"] == "begin"]

    def steps_begun(self) -> Counter[tuple[str, str]]:
        """(Event, step) → how often a worker began it."""
        return Counter(self.beginnings())

    def fits(self) -> int:
        """How often a model was fitted."""
        return sum(line["what"] == "fit" for line in self._ledger())

    def _ledger(self) -> Iterator[dict[str, str]]:
        file = self.root / LEDGER
        for line in file.read_text().splitlines() if file.exists() else ():
            yield json.loads(line)

    def account(self, alert_id: str) -> dict[str, Any]:
        """What a run came to, in terms that are the same for each run that ended alike."""
        run = self.run_of(alert_id)
        assert run is not None
        alert, route = self.state.get(Alert, alert_id), self.state.get(Route, "triage")
        assert alert is not None
        assert route is not None
        ref, before = f"{run.model}/{run.version}", f"{run.model}/{int(run.version) - 1}"
        names = {ref: "candidate", before: "champion before", run.version: "candidate's number"}
        trail = list(self.state.audit_trail())
        about = [e for e in trail if e.subject in (ref, run.id, alert_id)]
        mlflow = self.root / ".noria/mlflow.db"
        return {
            "run": (run.state.value, [step.name for step in run.steps], run.error, names.get(run.version)),
            "numbers": {step.name: sorted(step.numbers) for step in run.steps},
            "accuracy": next(dict(s.numbers)["accuracy"] for s in run.steps if s.name == "evaluate"),
            "runs of the alert": sum(alert_id in r.trigger.cause for r in self.state.find(Run)),
            "verdicts": [
                (v.passed, names.get(v.champion), [(r.gate, r.passed) for r in v.results])
                for v in self.state.find(Verdict)
                if v.version == run.version
            ],
            "rollouts": [
                [(change.stage.value, change.weight) for change in r.history]
                for r in self.state.find(Rollout)
                if r.version == run.version
            ],
            "route": [(names.get(t.ref), t.role.value, t.weight) for t in route.targets],
            "previous": names.get(route.previous.ref) if route.previous else None,
            "alert": alert.state.value,
            "account": sorted(Counter((e.action, e.actor) for e in about).items()),
            "chain": verify(self.state).verified,
            "versions": _rows_of(
                mlflow, "SELECT count(*) FROM model_version_tags WHERE key = 'noria.run_id' AND value = ?", run.id
            ),
            "aliases": sorted(
                (alias, names.get(f"{run.model}/{version}"))
                for alias, version in _rows_of(mlflow, "SELECT alias, version FROM registered_model_aliases")
            ),
            "MLflow runs": _rows_of(
                mlflow,
                "SELECT count(*) FROM runs JOIN tags USING (run_uuid) WHERE tags.key = 'noria.run_id' "
                "AND tags.value = ? AND status = 'FINISHED'",
                run.id,
            ),
            "MLflow runs left open": _rows_of(mlflow, "SELECT count(*) FROM runs WHERE status = 'RUNNING'"),
            "problems": _rows_of(
                self.root / ".noria/workflows.db",
                "SELECT workflow_uuid, status, error FROM workflow_status WHERE status != 'SUCCESS'",
            ),
            "card": bool(
                list((self.root / ".noria/mlartifacts").glob(f"{run.mlflow_run_id}/artifacts/card/README.md"))
            ),
        }

    def servers(self) -> Counter[str]:
        """Model servers that live, by the version that they serve: a second one of a version would be left behind."""
        mine, lock = Counter[str](), str(self.root / ".noria/run/worker.lock")
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if "noria.modelserver" in words and lock in words and birth(int(folder.name)) is not None:
                mine[words[words.index("--version") + 1]] += 1
        return mine


ANSWERED = ("Where is the parcel 12?", "I have waited for a week.", "Nobody answers my letters.")


def _at(table: str) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {f"{table}_time": now, f"{table}_date": now.date()}


def _rows_of(file: Path, sql: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)) as connection:
        return connection.execute(sql, values).fetchall()


def new_wheel(root: Path, nursery: Nursery) -> Wheel:
    """A project with a first version in service; no worker lives."""
    subprocess.run(
        [sys.executable, "-m", "noria.cli", "init", str(root), "--without-llm"], check=True, capture_output=True
    )
    (root / "noria.yaml").write_text(YAML)
    policy = root / "policies/triage.yaml"  # a busy machine is slow, and that isn't what these tests are about
    policy.write_text(policy.read_text().replace("max_latency_p95_ms: 250", "max_latency_p95_ms: 20000"))
    (root / ".noria").mkdir(exist_ok=True)
    wheel = Wheel(root, nursery)
    wheel.live()
    wheel.until(lambda: (root / ".noria/state.db").exists() and _served(wheel))
    return wheel


def _served(wheel: Wheel) -> bool:
    try:
        return wheel.state.get(Route, "triage") is not None and wheel.quiet()
    except (NoriaError, sqlite3.Error):
        return False
