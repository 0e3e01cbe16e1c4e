"""The gateway with two durable rows a request, beside the upstream itself, the bare proxy, and other gateways."""

import operator
import sqlite3
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.serving import peers, project
from benchmarks.serving.load import Load, Target
from benchmarks.serving.processes import Server
from benchmarks.serving.rounds import Plan, Table, alternate
from noria.adapters.spool.file import discover
from noria.adapters.spool.reader import SpoolReader

CHAT = "/v1/chat/completions"
QUESTION = (
    "My order arrived with a broken lid and the shop has not answered for three days. What can I do about it now?"
)
BODY = msgspec.json.encode(
    {
        "model": project.ENDPOINT,
        "messages": [{"role": "system", "content": "You are brief."}, {"role": "user", "content": QUESTION}],
        "temperature": 0,
    }
).decode()
OURS = ("direct", "floor", "bare", "durable")


@contextmanager
def running(work: Path, *names: str, own_socket: bool = True) -> Iterator[tuple[dict[str, Server], dict[str, Target]]]:
    """The mock upstream (`direct`), and before it as asked for a proxy that does nothing (`floor`), and Noria: `bare`,
    `durable`."""
    servers, targets = {}, {}
    with ExitStack() as stack:
        listens = work / "mock.sock"
        listens.unlink(missing_ok=True)
        command = [sys.executable, "-m", "benchmarks.serving.mock", "--port", "{port}", "--socket", str(listens)]
        mock = stack.enter_context(Server("direct", command, work))
        servers["direct"], targets["direct"] = mock, Target(mock.port, CHAT, BODY)
        mock.wait(targets["direct"])
        for name in names:
            url = f"unix:{listens}" if own_socket else f"http://127.0.0.1:{mock.port}"
            server = stack.enter_context(Server(name, [sys.executable, "-m", *_module(name, work, url)], work))
            servers[name], targets[name] = server, Target(server.port, CHAT, BODY)
            server.wait(targets[name])
        yield servers, targets


def _module(name: str, work: Path, url: str) -> list[str]:
    """The module that is run for one of ours, before the upstream at that address."""
    if name == "floor":
        return ["benchmarks.serving.floor", "--port", "{port}", "--socket", url.removeprefix("unix:")]
    root = work / f"{name}-project"
    if not root.exists():
        project.make(root, url)
    module = "benchmarks.serving.bare" if name == "bare" else "noria.api"
    return [module, "--project", str(root), "--port", "{port}"]


def full_commit_ms(folder: Path, times: int = 100) -> float:
    """Median time of a commit of one small row with synchronous=FULL on this disk, in milliseconds."""
    (folder / "commit.db").unlink(missing_ok=True)
    connection = sqlite3.connect(folder / "commit.db", isolation_level=None)
    for statement in (
        "PRAGMA journal_mode=WAL",
        "PRAGMA synchronous=FULL",
        "CREATE TABLE t (n INTEGER PRIMARY KEY, b)",
    ):
        connection.execute(statement)
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        connection.execute("INSERT INTO t (b) VALUES (?)", (b"x" * 600,))
        taken.append(time.perf_counter() - begun)
    connection.close()
    return statistics.median(taken) * 1e3


def ship(root: Path) -> None:
    """Drop what the gateway has logged so far and fold its write-ahead log in, as the worker does every second after it
    has shipped: a log that is written over costs half of what one that grows does."""
    for path in discover(root / ".noria" / "spool"):
        reader = SpoolReader(path)
        try:
            reader.trim(reader.written())
        finally:
            reader.close()


def measure(load: Load, work: Path, plan: Plan, *, with_peers: bool = True) -> tuple[dict[str, Any], dict[str, str]]:
    """Figures, and the reasons for those that are missing."""
    reasons: dict[str, str] = {}
    with ExitStack() as stack:
        servers, targets = stack.enter_context(running(work, "floor", "bare", "durable"))
        for make in (peers.litellm, peers.mlflow_gateway) if with_peers else ():
            peer = make(servers["direct"].port, BODY)
            try:
                server, target = peer.start(work)
                stack.enter_context(server)
                server.wait(target)
                targets[peer.name] = target
            except RuntimeError as error:
                reasons[peer.name] = str(error)
        every = (*OURS, "litellm", "mlflow_gateway")
        commits: list[float] = []

        def between() -> None:
            ship(work / "durable-project")
            commits.append(full_commit_ms(work))

        load.run(targets["durable"], 64, plan.seconds)
        ship(work / "durable-project")
        table = alternate(load, targets, {1: every}, plan, after_round=between)
        alternate(load, targets, {16: every, 64: (*OURS, "mlflow_gateway")}, plan, table, after_round=between)
        figures = _figures(table, commits)
        figures |= _cpu(load, servers, targets, plan)
        figures["api_rss_mb"] = servers["durable"].rss_mb()
    return figures, reasons | table.failed


def _figures(table: Table, commits: list[float]) -> dict[str, Any]:
    p50 = operator.attrgetter("p50_ms")
    lone = zip(table.results["durable", 1], table.results["bare", 1], commits, strict=False)
    return {
        "added_p50_ms_c1": table.difference_ms("bare", "direct", 1, p50),
        "throughput_vs_direct_c64": table.ratio("bare", "direct", 64),
        "floor_vs_direct_c64": table.ratio("floor", "direct", 64),
        "durable_added_p50_ms_c1": table.difference_ms("durable", "bare", 1, p50),
        "full_commit_ms": statistics.median(commits),
        "durable_commits_c1": statistics.median((ours.p50_ms - bare.p50_ms) / commit for ours, bare, commit in lone),
        "durable_vs_proxy_c16": table.ratio("durable", "bare", 16),
        "durable_vs_proxy_c64": table.ratio("durable", "bare", 64),
        "durable_p99_ms_c64": table.median("durable", 64, operator.attrgetter("p99_ms")),
        "vs_litellm_c1": table.ratio("durable", "litellm", 1),
        "vs_litellm_c16": table.ratio("durable", "litellm", 16),
        "vs_mlflow_gateway_c1": table.ratio("durable", "mlflow_gateway", 1),
        "vs_mlflow_gateway_c16": table.ratio("durable", "mlflow_gateway", 16),
        "vs_mlflow_gateway_c64": table.ratio("durable", "mlflow_gateway", 64),
        "requests_per_s": {f"{name}_c{c}": table.per_s(name, c) for name, c in table.results},
        "p50_ms": {f"{name}_c{c}": table.median(name, c, p50) for name, c in table.results},
    }


def _cpu(load: Load, servers: dict[str, Server], targets: dict[str, Target], plan: Plan) -> dict[str, Any]:
    """CPU time of a request in our own processes at 16 under way, which other people's work on the machine hardly
    touches."""
    spent = {}
    for name in OURS:
        before = servers[name].cpu_s()
        result = load.run(targets[name], 16, plan.seconds * 2, warm_s=0)
        spent[name] = (servers[name].cpu_s() - before) / result.requests * 1e6
    return {"cpu_us_per_request": spent}
