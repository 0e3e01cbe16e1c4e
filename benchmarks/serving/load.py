"""The load: a process of its own that asks one server as hard as it can over so many connections.

Each connection has one request under way. Orders come as lines of JSON and each is answered with one. Requests and
answers are handled in the protocol's callbacks, so that the load costs a fraction of what it measures.
"""

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import httptools
import uvloop

RETRY_S = 0.02
"""Pause before a connection that was refused is tried again, in seconds."""


@dataclass(frozen=True)
class Target:
    """Whom to ask what.

    Attributes:
        port: On 127.0.0.1.
        path: Where it is posted to.
        body: JSON.
    """

    port: int
    path: str
    body: str


@dataclass
class Result:
    """What came back within the window.

    Attributes:
        requests: Answers with status 200 whose last byte came.
        seconds: Length of the window.
        p50_ms: Median from the request's first byte out to the answer's last byte in, milliseconds.
        p99_ms: What 99% of them stayed under.
        first_ms: Median to the first byte of a body.
        chunks: Events that came, of whatever stream.
        failures: Status, or what else went wrong → how often.
    """

    requests: int = 0
    seconds: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    first_ms: float = 0.0
    chunks: int = 0
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


def quantile(values: list[float], q: float) -> float:
    """The value that a share `q` of them stays under; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


class Load:
    """The load's process, as those who measure see it."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "benchmarks.serving.load"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate("")

    def run(self, target: Target, concurrency: int, seconds: float, warm_s: float = 0.3) -> Result:
        """Ask a server for that long, after a while that doesn't count.

        Raises:
            RuntimeError: Nothing was answered, or something else than 200 came back.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = asdict(target) | {"concurrency": concurrency, "seconds": seconds, "warm_s": warm_s}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        result = Result(**json.loads(self._process.stdout.readline()))
        bad = sum(result.failures.values())
        if not (result.requests or result.chunks) or bad > result.requests // 100:
            raise RuntimeError(f"{result.requests} answers, failures: {result.failures}")
        return result


class _Connection(asyncio.Protocol):
    """One connection: asks, reads the answer, asks again."""

    def __init__(self, run: "_Run") -> None:
        self._run = run
        self._transport: Any = None
        self._parser: Any = None
        self._asked = self._first = 0.0
        self._busy = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._run.transports.add(transport)
        self._ask()

    def _ask(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._busy, self._first, self._asked = True, 0.0, time.perf_counter()
        self._transport.write(self._run.request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Part of an answer."""
        if not self._first:
            self._first = time.perf_counter()
        if self._run.counting:
            self._run.result.chunks += body.count(b"data: ")

    def on_message_complete(self) -> None:
        """The end of an answer."""
        self._busy = False
        run, status = self._run, self._parser.get_status_code()
        if run.counting and status == 200:
            now = time.perf_counter()
            run.result.requests += 1
            run.latencies_ms.append((now - self._asked) * 1e3)
            run.first_ms.append((self._first - self._asked) * 1e3)
        elif run.counting:
            run.failed(str(status))
        if not self._parser.should_keep_alive():
            self._transport.close()
        elif not run.over:
            run.loop.call_soon(self._ask)

    def connection_lost(self, error: Exception | None) -> None:
        self._run.transports.discard(self._transport)
        if self._busy and self._run.counting:
            self._run.failed(type(error).__name__ if error else "closed")
        if not self._run.over:
            self._run.connect()


class _Run:
    """One order."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.loop = asyncio.get_running_loop()
        self.result = Result()
        self.latencies_ms: list[float] = []
        self.first_ms: list[float] = []
        self.transports: set[Any] = set()
        self.counting = self.over = False
        self._order = order
        self._tasks: set[asyncio.Task[None]] = set()
        body = order["body"].encode()
        head = f"POST {order['path']} HTTP/1.1\r\nhost: 127.0.0.1:{order['port']}\r\ncontent-type: application/json\r\n"
        self.request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    def failed(self, why: str) -> None:
        """Count a failure."""
        self.result.failures[why] = self.result.failures.get(why, 0) + 1

    def connect(self) -> None:
        """Begin a connection."""
        task = self.loop.create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        while not self.over:
            try:
                await self.loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._order["port"])
                return
            except OSError as error:
                self.failed(type(error).__name__)
                await asyncio.sleep(RETRY_S)

    async def run(self) -> Result:
        """Carry it out."""
        for _ in range(self._order["concurrency"]):
            self.connect()
        await asyncio.sleep(self._order["warm_s"])
        self.counting, begun = True, time.perf_counter()
        await asyncio.sleep(self._order["seconds"])
        self.counting, self.result.seconds = False, time.perf_counter() - begun
        self.over = True
        for transport in list(self.transports):
            transport.abort()
        await asyncio.sleep(0.05)
        self.result.p50_ms = quantile(self.latencies_ms, 0.5)
        self.result.p99_ms = quantile(self.latencies_ms, 0.99)
        self.result.first_ms = quantile(self.first_ms, 0.5)
        return self.result


async def _one(order: dict[str, Any]) -> Result:
    return await _Run(order).run()


def main() -> None:
    """Carry out orders until there are no more."""
    for line in sys.stdin:
        if line.strip():
            print(json.dumps(asdict(uvloop.run(_one(json.loads(line))))), flush=True)


if __name__ == "__main__":
    main()
