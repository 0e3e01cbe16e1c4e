"""A project that is really up, and callers whose world changes: they write of other things, and say what is right."""

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from noria import bootstrap
from noria.ports import StateStore
from noria.templates.starter import Message, messages

YAML = """
project: shop
endpoints:
  triage:
    task: classification
    policy: policies/triage.yaml
    group: channel
    training: {data: data/messages.csv, cooldown: 15s, min_labels: 60}
    monitors: {window: 1s}
    rollout: {shadow_requests: 30, steps: [50], step_requests: 30}
"""
RATE = 60.0
"""Messages a second."""
WAIT_S = 180.0


class Shop:
    """`noria up` on a new project, and its callers.

    Args:
        root: Folder for it.
    """

    def __init__(self, root: Path) -> None:
        _noria(root.parent, "init", str(root), "--without-llm")
        (root / "noria.yaml").write_text(YAML)
        self.root = root
        self._log = (root / "up.log").open("wb")
        command = [*NORIA, "--project", str(root), "up", "--port", "0"]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)
        self._note = root / ".noria" / "run" / "up.json"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(120)
        self._log.close()

    async def ready(self) -> str:
        """Wait until the first version serves; returns the address."""
        await self.until(self._note.exists)
        url: str = json.loads(self._note.read_text())["url"]
        async with aiohttp.ClientSession() as http:
            deadline = time.monotonic() + WAIT_S
            while (await http.get(f"{url}/readyz")).status != 200:
                self._demand(deadline)
                await asyncio.sleep(0.2)
        return url

    def state(self) -> StateStore:
        """The project's memory."""
        return bootstrap.state(bootstrap.settings(self.root))

    async def until(self, happened: Callable[[], object], timeout_s: float = WAIT_S) -> None:
        """Wait for something.

        Raises:
            RuntimeError: It didn't happen, or the project is down; the message ends with what it printed.
        """
        deadline = time.monotonic() + timeout_s
        while not happened():
            self._demand(deadline)
            await asyncio.sleep(0.05)

    def noria(self, *words: str) -> float:
        """Run the command line; returns how many seconds it took."""
        begun = time.perf_counter()
        _noria(self.root, *words)
        return time.perf_counter() - begun

    def _demand(self, deadline: float) -> None:
        if self._process.poll() is not None or time.monotonic() > deadline:
            said = (self.root / "up.log").read_text(errors="replace")[-1500:]
            raise RuntimeError(f"the loop did not turn: {said}")


@dataclass
class Callers:
    """Messages at a steady rate, each with the label that is right, as feedback, right after the answer.

    Attributes:
        url: Where they ask.
        world: Which words they use; 0 is the world of the first version's data.
        versions: Version → answers it gave.
        last: Version → when it last answered a caller, monotonic seconds.
        failed: Answers other than 200.
    """

    url: str
    world: int = 0
    versions: Counter[str] = field(default_factory=Counter)
    last: dict[str, float] = field(default_factory=dict)
    failed: Counter[int] = field(default_factory=Counter)
    _asking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._asking = asyncio.create_task(self._ask_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask_all(self) -> None:
        chance, known = random.Random(3), messages(2_000, seed=3)
        async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group:
            due = time.monotonic()
            while True:
                due += 1 / RATE
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                group.create_task(self._ask(http, chance.choice(known)))

    async def _ask(self, http: aiohttp.ClientSession, message: Message) -> None:
        body = {"input": reworded(message.text, self.world), "metadata": {"channel": message.group}}
        try:
            async with http.post(f"{self.url}/predict", json=body) as reply:
                await reply.read()
            if reply.status != 200:
                self.failed[reply.status] += 1
                return
            version = reply.headers["x-noria-version"]
            self.versions[version] += 1
            self.last[version] = time.monotonic()
            label = {"request_id": reply.headers["x-request-id"], "label": message.label}
            async with http.post(f"{self.url}/feedback", json=label) as noted:
                await noted.read()
        except (aiohttp.ClientError, TimeoutError):
            self.failed[0] += 1


def reworded(text: str, world: int) -> str:
    """A message whose longer words are another world's: the same is meant, but nobody has learnt the words."""
    if not world:
        return text
    ending = "".join(chr(ord("a") + int(digit)) for digit in str(world)) + "x"
    return " ".join(word if len(word) < 4 else word[::-1] + ending for word in text.split())


NORIA = (sys.executable, "-m", "noria.cli")


def _noria(folder: Path, *words: str) -> None:
    """Run the command line in a folder.

    Raises:
        RuntimeError: It failed.
    """
    done = subprocess.run([*NORIA, *words], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"noria {' '.join(words)}: {done.stderr.strip()[-600:]}")
