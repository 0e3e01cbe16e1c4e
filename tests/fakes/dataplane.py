"""The data plane with everything real: API processes on one listening socket, their spools, a shipper, Delta tables.

Only the routes are put there by hand, so that a test's own server can answer instead of a model. Two endpoints have
time, two are hasty. `settle` ends a test: what is open is closed, what is left is shipped, and `check` compares the
tables with what callers were told.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from fakes.callers import Callers, Told
from noria import bootstrap
from noria.adapters.clock import SystemClock
from noria.adapters.spool.writer import SpoolFolder, close_orphans, discover
from noria.adapters.tables.delta import DeltaStore
from noria.cli.start import write_project
from noria.domain.endpoint import Role, Route, Target, Wire
from noria.serving.log.shipping import Shipper

YAML = """
project: shop
server: {{max_body_bytes: 10_000_000{server}}}
upstreams: {{{upstreams}}}
endpoints:
  triage: &triage
    task: classification
    policy: policies/triage.yaml
    timeout: 30s
    training: {{data: data/messages.csv, on_alert: false}}
  assistant: &assistant
    task: chat
    policy: policies/assistant.yaml
    timeout: 30s
    gguf: {{gguf: none.gguf, licence: MIT, source: here}}
  hasty-triage: {{<<: *triage, timeout: 500ms, routing: {{breaker: {{failures: 1000}}}}}}
  hasty-assistant: &hasty {{<<: *assistant, timeout: 500ms, routing: {{breaker: {{failures: 1000}}}}}}
{endpoints}
"""
COLUMNS = [
    "databricks_request_id",
    "client_request_id",
    "status_code",
    "outcome",
    "spool",
    "sequence",
    "requester",
    "model_name",
    "model_version",
]
PATIENCE_S = 30.0


@dataclass
class Account:
    """What a fault came to."""

    requests: int = 0
    records: int = 0
    missing: int = 0
    duplicated: int = 0


@dataclass
class DataPlane:
    """A project whose API processes and shipper a test starts, kills and looks behind.

    Attributes:
        root: The project's folder.
        server: More of the project file's `server`, beginning with a comma.
        upstreams: Its upstreams, as a flow mapping's inside.
        endpoints: More endpoints, as lines of YAML.
    """

    root: Path
    server: str = ""
    upstreams: str = ""
    endpoints: str = ""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    """Name → process, also of dead ones."""

    def __post_init__(self) -> None:
        write_project(self.root, with_llm=False)
        (self.root / "noria.yaml").write_text(
            YAML.format(server=self.server, upstreams=self.upstreams, endpoints=self.endpoints)
        )
        self.settings = bootstrap.settings(self.root)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port = self.listener.getsockname()[1]
        self.spools, self.tables = self.settings.spool_dir, self.settings.tables_dir
        self.settings.run_dir.mkdir(parents=True)
        self.spools.mkdir()
        self.sockets = {wire: self.settings.run_dir / f"{wire}.sock" for wire in Wire}
        for endpoint in self.settings.project.endpoints:
            self.route(endpoint)

    def route(self, endpoint: str, url: str = "", version: str = "1") -> None:
        """Put a route to a model server into service, by default to the one that a test runs for that wire."""
        wire = Wire.MLFLOW if "triage" in endpoint else Wire.OPENAI
        url = url or f"unix:{self.sockets[wire]}"
        target = Target(model=endpoint, version=version, role=Role.CHAMPION, weight=100, url=url, verdict_id="v1")
        state = bootstrap.state(self.settings)
        with state.change("test", "route.changed", endpoint) as change:
            before = change.get(Route, endpoint)
            revision = before.revision + 1 if before else 1
            change.put(Route(endpoint=endpoint, wire=wire, revision=revision, targets=(target,), policy_hash="p"))
        state.close()

    # --- processes ----------------------------------------------------------------------------------------------------

    def api(self, slot: str = "api-0", dies: str = "", nth: int = 1, **how: Any) -> subprocess.Popen[bytes]:
        """Start an API process that kills itself at a point (see `fakes.dying`), or at none."""
        arguments = ["--project", str(self.root), "--slot", slot, "--fd", str(self.listener.fileno())]
        return self._start(slot, ["-m", "fakes.dying", dies, str(nth), "noria.api", *arguments], **how)

    def shipper(self, dies: str = "", nth: int = 1) -> subprocess.Popen[bytes]:
        """Start the worker's log lane, which kills itself at a point, or at none."""
        arguments = [str(self.spools), str(self.tables)]
        return self._start("shipper", ["-m", "fakes.dying", dies, str(nth), "fakes.shipping", *arguments])

    def worker(self, dies: str = "", nth: int = 1) -> subprocess.Popen[bytes]:
        """Start the project's real worker, which kills itself at a point, or at none."""
        return self._start("worker", ["-m", "fakes.dying", dies, str(nth), "noria.worker", "--project", str(self.root)])

    def _start(self, name: str, arguments: Sequence[str], **how: Any) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *arguments],
                env=environment,
                stdout=log,
                stderr=log,
                pass_fds=(self.listener.fileno(),),
                **how,
            )
        return self.processes[name]

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal, and wait for the process's end if it is one that ends it."""
        self.processes[name].send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.processes[name].wait(PATIENCE_S)

    def connections(self, name: str) -> int:
        """Callers' connections that a process holds."""
        open_ = psutil.Process(self.processes[name].pid).net_connections("tcp")
        return sum(c.laddr.port == self.port and c.status == psutil.CONN_ESTABLISHED for c in open_)

    async def ended(self, name: str) -> int:
        """Wait for a process's end; its exit code."""
        await until(lambda: self.processes[name].poll() is not None)
        return self.processes[name].returncode

    def close(self) -> None:
        """Leave nothing behind."""
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()
        self.listener.close()

    # --- the account --------------------------------------------------------------------------------------------------

    def callers(self, prefix: str) -> Callers:
        """Somebody who asks."""
        return Callers(self.port, prefix)

    async def settle(self) -> None:
        """Ship everything, as the worker does, until every spool is empty and nothing is open."""
        folder = SpoolFolder(self.spools)
        shipper = Shipper(folder.readers, DeltaStore(self.tables), SystemClock())

        def all_shipped() -> bool:
            for path in discover(self.spools):
                close_orphans(path, SystemClock())
            statuses = shipper.turn().values()
            assert shipper.problems == folder.problems == (), (shipper.problems, folder.problems)
            return not any(status.unshipped or status.open_intents for status in statuses)

        try:
            await until(all_shipped)
        finally:
            folder.close()

    def rows(self, prefix: str = "") -> list[dict[str, Any]]:
        """The records of requests whose callers' names begin so."""
        found = DeltaStore(self.tables).scan("inference", columns=COLUMNS).to_pylist()
        return [row for row in found if (row["client_request_id"] or "").startswith(prefix)]

    def check(
        self,
        callers: Callers,
        reached: Collection[str] = (),
        unrecorded: Collection[str] = (),
        perhaps: Collection[str] = (),
        doubtful: Collection[str] = (),
    ) -> Account:
        """Compare the settled log with what callers were told.

        Args:
            callers: Who asked.
            reached: Noria's ids of the requests that model servers saw.
            unrecorded: Names of requests whose right answer leaves no record, such as one for no endpoint at all.
            perhaps: Names of requests that were told that the log can't be written: before their intent, or after it.
            doubtful: Names of requests that may be on record as interrupted whatever they were told: their process was
                killed before the log, which had refused their outcome, could be written again.

        Raises:
            AssertionError: A record is missing, there twice, made up, or says another status than the caller heard.
        """
        rows = self.rows(f"{callers.prefix}.")
        ids = Counter(row["databricks_request_id"] for row in rows)
        names = Counter(row["client_request_id"] for row in rows)
        told = {one.name: one for one in callers.told}
        answered = {one.request_id for one in callers.told if one.status and one.name not in {*unrecorded, *perhaps}}
        missing = (answered | set(reached)) - ids.keys()
        double = [name for name, count in (ids + names).items() if count > 1]
        assert not missing, f"{len(missing)} records are missing"
        assert not double, f"there twice: {double}"
        assert names.keys() <= told.keys() - set(unrecorded), "a record is there that nobody asked for"
        for row in rows:
            name = row["client_request_id"]
            if row["outcome"] != "interrupted" or name not in doubtful:
                _agree(row, told[name])
        self._check_sequences()
        return Account(len(told), len(rows), len(missing), len(double))

    def _check_sequences(self) -> None:
        """Every number that a spool gave is a row's: two for a request, one for a word of feedback; and no letter is
        dead."""
        store = DeltaStore(self.tables)
        assert store.scan("dead_letter").to_pylist() == []
        records = store.scan("inference", columns=["spool", "sequence"]).to_pylist()
        said = store.scan("feedback", columns=["spool", "sequence"]).to_pylist()
        places = [(row["spool"], row["sequence"]) for row in records + said]
        assert len(set(places)) == len(places)
        for spool in {spool for spool, _ in places}:
            numbers = 2 * sum(r["spool"] == spool for r in records) + sum(s["spool"] == spool for s in said)
            assert numbers == max(number for where, number in places if where == spool), f"{spool} has a gap"


def _agree(row: dict[str, Any], told: Told) -> None:
    """A record says what its caller was told."""
    kind, status = row["outcome"], row["status_code"]
    what = f"{told.name}: recorded {kind} {status}, told {told.status}, whole: {told.whole}, left: {told.left}"
    if told.request_id:
        assert row["databricks_request_id"] == told.request_id, what
    if told.whole:
        assert status == told.status, what
        assert kind != "answered" or status == 200, what
        assert kind not in ("interrupted", "disconnected"), what
    elif not told.left:  # cut off: the process died, before or after the outcome was on disk
        assert kind in ("interrupted", "answered", "failed", "rejected", "timed_out"), what


async def until(happened: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + patience_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.02)
