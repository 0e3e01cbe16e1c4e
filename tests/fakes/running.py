"""A real project, really up: what end-to-end tests drive as a user would, over HTTP and the command line."""

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from noria.adapters.processes import birth
from noria.templates.starter import messages

YAML = """
project: shop
endpoints:
  triage:
    task: classification
    policy: policies/triage.yaml
    group: channel
    training: {{data: data/messages.csv, on_alert: false, cooldown: 1s}}
    monitors: {{window: 1s, alpha: 0.0001}}
    rollout: {{shadow_requests: 20, steps: [50], step_requests: 20}}
{more}
"""
CHAT_POLICY = """
name: assistant
intended_use: Answer what customers ask about their parcels.
forbidden_use: [Legal advice]
owner: support
review_by: "2100-01-01"
rules: {max_latency_p95_ms: 20000}
"""
TEXTS = tuple(message.text for message in messages(300, seed=1))
"""What callers write: of the kind that the first version has learnt from."""


def noria(root: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line on a project."""
    full = [sys.executable, "-m", "noria.cli", "--project", str(root), *command]
    done = subprocess.run(full, capture_output=True, text=True, timeout=120, check=False)
    assert not check or done.returncode == 0, f"noria {' '.join(command)}:\n{done.stdout}\n{done.stderr}"
    return done


def noria_json(root: Path, *command: str) -> Any:
    """Run the command line and read its JSON."""
    return json.loads(noria(root, *command, "--json").stdout)


def new_project(root: Path, more: str = "") -> Path:
    """`noria init` with windows and rollouts that are short enough for a test."""
    subprocess.run(
        [sys.executable, "-m", "noria.cli", "init", str(root), "--without-llm"], check=True, capture_output=True
    )
    (root / "noria.yaml").write_text(YAML.format(more=more))
    policy = root / "policies" / "triage.yaml"  # a busy machine is slow, and that isn't what these tests are about
    policy.write_text(policy.read_text().replace("max_latency_p95_ms: 250", "max_latency_p95_ms: 20000"))
    return root


@dataclass
class Running:
    """`noria up` in a process of its own."""

    root: Path
    process: subprocess.Popen[bytes] | None = None
    url: str = ""
    begins_with: tuple[str, ...] = ()
    """Words before the command, for example a shell that changes what it inherits."""
    key: str = ""
    """The API key that requests are sent with; empty for none."""

    def start(self, timeout_s: float = 120) -> "Running":
        """Bring the project up and wait until it is ready."""
        command = [
            *self.begins_with,
            *(sys.executable, "-m", "noria.cli", "--project", str(self.root), "up", "--port", "0"),
        ]
        with (self.root / "up.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self.wait_until(lambda: (self.root / ".noria/run/up.json").exists(), timeout_s)
        self.url = json.loads((self.root / ".noria/run/up.json").read_text())["url"]
        self.wait_until(lambda: self.get("/readyz")[0] == 200, timeout_s)
        return self

    def stop(self) -> None:
        """Ctrl-C, and wait for the clean end."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            assert self.process.wait(timeout=90) == 0, self.log()

    def log(self) -> str:
        """What it printed so far."""
        return (self.root / "up.log").read_text(errors="replace")[-6000:]

    def wait_until(self, happened: Callable[[], object], timeout_s: float = 60) -> None:
        """Wait for something to become true; the failure shows what Noria printed."""
        deadline = time.monotonic() + timeout_s
        while not happened():
            assert self.process is None or self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, f"it did not happen in {timeout_s} s\n{self.log()}"
            time.sleep(0.1)

    def request(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Send one request on a connection of its own; status 0 if the connection broke."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=30)
        mine = {"authorization": f"Bearer {self.key}"} if self.key else {}
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        try:
            connection.request(method, path, raw, {"content-type": "application/json", **mine, **(headers or {})})
            reply = connection.getresponse()
            text = reply.read()
        except (OSError, http.client.HTTPException):
            return 0, None, {}
        finally:
            connection.close()
        said = {name.lower(): value for name, value in reply.getheaders()}
        try:
            return reply.status, json.loads(text), said
        except ValueError:
            return reply.status, text, said

    def get(self, path: str) -> tuple[int, Any, Mapping[str, str]]:
        """GET."""
        return self.request("GET", path)

    def post(self, path: str, body: object) -> tuple[int, Any, Mapping[str, str]]:
        """POST JSON."""
        return self.request("POST", path, body)

    def status(self) -> dict[str, Any]:
        """`GET /api/status`."""
        code, said, _ = self.get("/api/status")
        assert code == 200, said
        return dict(said)

    def endpoint(self) -> dict[str, Any]:
        """What the status says of the endpoint."""
        return dict(self.status()["endpoints"][0])

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """`noria records query`."""
        return list(noria_json(self.root, "records", "query", sql))

    def shipped(self) -> bool:
        """Whether the worker is alive and everything that was written until now is in the tables."""
        before, worker = time.time(), {}

        def caught_up() -> bool:
            nonlocal worker
            worker = self.status()["worker"]
            seen = time.time() - worker["age_seconds"] if worker["at"] else 0
            return seen > before and worker["unshipped"] == worker["open_intents"] == 0

        self.wait_until(caught_up, 30)
        return True

    def processes(self) -> dict[str, int]:
        """Name → id of everything that belongs to the project: the children of `noria up`, and model servers by ref."""
        run = self.root / ".noria" / "run"
        children: dict[str, int] = json.loads((run / "up.json").read_text())["children"]
        notes = [json.loads(note.read_text()) for note in run.glob("*.json") if note.name != "up.json"]
        return children | {note["ref"]: note["pid"] for note in notes if "ref" in note and birth(note["pid"])}

    def kill(self, who: str) -> int:
        """SIGKILL one of `processes`; returns the pid that died."""
        self.wait_until(lambda: self.processes().get(who))
        pid = self.processes()[who]
        os.kill(pid, signal.SIGKILL)
        return pid


def chat_project(root: Path, text: str) -> Running:
    """A project with that text whose one endpoint, `assistant`, chats; not up yet."""
    (root / "policies").mkdir(parents=True)
    (root / "policies" / "assistant.yaml").write_text(CHAT_POLICY)
    (root / "noria.yaml").write_text(text)
    return Running(root)


@dataclass
class Load:
    """Callers that ask at the same time, and keep what they were told."""

    running: Running
    texts: Sequence[str] = TEXTS
    threads: int = 4
    pause_s: float = 0.005
    answered: list[str] = field(default_factory=list)
    """Ids of requests that got 200."""
    versions: list[str] = field(default_factory=list)
    """Who gave those answers."""
    refused: list[tuple[int, Any]] = field(default_factory=list)
    """Status and body of all others; status 0 is a broken connection."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _workers: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Load":
        for number in range(self.threads):
            worker = threading.Thread(target=self._ask, args=(random.Random(number),))
            worker.start()
            self._workers.append(worker)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for worker in self._workers:
            worker.join()

    def wait_for(self, more: int, timeout_s: float = 60) -> None:
        """Wait until so many more requests were answered."""
        enough = len(self.answered) + more
        self.running.wait_until(lambda: len(self.answered) >= enough, timeout_s)

    def _ask(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            status, said, headers = self.running.post("/predict", {"input": chance.choice(self.texts)})
            if status == 200:
                self.answered.append(headers["x-request-id"])
                self.versions.append(headers["x-noria-version"])
            else:
                self.refused.append((status, said))
                time.sleep(0.05)
            time.sleep(self.pause_s)
