"""The story: a quiet world, a change, an alarm, a new model, and a world that is quiet again."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from openai import AsyncOpenAI
from rich.console import Console
from rich.live import Live

from demo.data import world
from demo.traffic import Traffic
from demo.view import View

QUIET_MESSAGES = 1_800
"""Messages before the world changes."""
RAMP_MESSAGES = 600
"""Messages over which the new world comes in."""
NEW_SHARE = 0.7
"""Share of the traffic that the new world ends up with."""
AFTER_MESSAGES = 1_500
"""Messages after the promotion, to see whether it helped."""
EMAIL = "dana.fields@example.com"
"""In the chat; it must not be on any disk afterwards."""


@dataclass
class Moments:
    """When things happened, in seconds of the monotonic clock, and at which message."""

    changed_at: float = 0.0
    changed_message: int = 0
    full_at: float = 0.0
    alarm_at: float = 0.0
    promoted_at: float = 0.0
    ended_at: float = 0.0
    stationary_alarms: int = 0


@dataclass
class Chat:
    """What the chat with the language model was like."""

    model: str = ""
    tokens: int = 0
    ttft_ms: float = 0.0
    answer: str = ""
    request_id: str = ""


@dataclass
class Story:
    """Starts Noria, makes the world change, and watches what Noria does about it by itself."""

    root: Path
    seed: int
    port: int
    rate: float
    console: Console
    moments: Moments = field(default_factory=Moments)
    chat: Chat = field(default_factory=Chat)
    alarms: list[dict[str, Any]] = field(default_factory=list)
    refused: str = ""
    """Why the gates refused a version, if they did."""
    up: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """`noria up`, with its output in a file; returns its URL once it is ready."""
        log = (self.root / ".noria" / "demo" / "noria.log").open("wb")
        command = [sys.executable, "-m", "noria.cli", "--project", str(self.root), "up", "--port", str(self.port)]
        self.up = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        note = self.root / ".noria" / "run" / "up.json"
        with self.console.status("training, gating and starting version 1, and a language model") as status:
            while not note.exists():
                self._still_alive()
                time.sleep(0.1)
            url = str(json.loads(note.read_text())["url"])
            status.update(f"{url}: training, gating and starting version 1, and a language model")
            asyncio.run(self._ready(url))
        return url

    async def _ready(self, url: str) -> None:
        async with aiohttp.ClientSession(url) as session:
            while True:
                self._still_alive()
                try:
                    async with session.get("/readyz") as reply:
                        if reply.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.2)

    def _still_alive(self) -> None:
        if self.up is not None and self.up.poll() is not None:
            log = (self.root / ".noria" / "demo" / "noria.log").read_text(errors="replace")
            raise SystemExit(f"noria up ended with {self.up.returncode}:\n{log[-4000:]}")

    def stop(self) -> None:
        """Ctrl-C, as a person would; Noria drains and ships what is left."""
        if self.up is not None and self.up.poll() is None:
            self.up.send_signal(signal.SIGINT)
            self.up.wait(timeout=60)

    def write_down(self, path: Path) -> None:
        """Keep the story's lines."""
        if hasattr(self, "view"):
            path.write_text("\n".join(self.view.told) + "\n", encoding="utf-8")

    async def tell(self) -> None:
        """The whole story."""
        url = await asyncio.to_thread(self.start)
        self.traffic = Traffic(url, world(self.seed), self.seed, self.rate)
        self.view = View(self.traffic, self.console)
        watch = asyncio.create_task(self._watch(url))
        talk = asyncio.create_task(self.traffic.run())
        live = Live(self.view, console=self.console, refresh_per_second=4)
        with live if self.console.is_terminal else nullcontext():
            await self._quiet(url)
            await self._change()
            await self._recover()
            self.traffic.running = False
            await talk
            watch.cancel()
            self.moments.ended_at = time.monotonic()

    async def _quiet(self, url: str) -> None:
        self.view.phase = "a quiet world: three airlines"
        self.view.tell("version 1 answers; nothing has changed")
        await self._chat(url)
        await self._until(lambda: self.traffic.sent >= QUIET_MESSAGES, 120)
        await asyncio.sleep(3)  # let the last quiet window be judged
        self.moments.stationary_alarms = len(self.alarms)
        self.view.tell(f"{self.traffic.sent:,} messages, {len(self.alarms)} alarms", "green")

    async def _change(self) -> None:
        self.view.phase = "the world changes: phones, cars, a festival, a scandal, a medicine"
        self.moments.changed_at, self.moments.changed_message = time.monotonic(), self.traffic.sent
        first = self.traffic.sent
        while self.traffic.sent < first + RAMP_MESSAGES:
            self.traffic.share_new = NEW_SHARE * (self.traffic.sent - first) / RAMP_MESSAGES
            await asyncio.sleep(0.1)
        self.traffic.share_new = NEW_SHARE
        self.moments.full_at = time.monotonic()
        await self._until(lambda: self.moments.alarm_at > 0, 60)

    async def _recover(self) -> None:
        self.view.phase = "Noria retrains, gates and rolls out, while the traffic goes on"
        await self._until(lambda: self.moments.promoted_at > 0, 240)
        self.view.phase = "the new version answers what no version has seen"
        self.traffic.unseen = True
        goal = self.traffic.sent + AFTER_MESSAGES
        await self._until(lambda: self.traffic.sent >= goal, 120)

    async def _until(self, happened: Callable[[], bool], limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while not happened():
            self._still_alive()
            if self.refused:
                raise SystemExit(f"The gates refused a version, and the story ends here: {self.refused}")
            if time.monotonic() > deadline:
                raise SystemExit(f"Waited {limit_s:.0f} s for the story to go on ({self.view.phase}); it did not.")
            await asyncio.sleep(0.1)

    async def _chat(self, url: str) -> None:
        """Ask the language model something, with the official client, streamed."""
        client = AsyncOpenAI(base_url=f"{url}/v1", api_key="not-needed-on-loopback", max_retries=0)
        question = f"Write one friendly sentence to a customer whose bag is late. Their address is {EMAIL}."
        began = time.monotonic()
        stream = await client.chat.completions.create(
            model="assistant",
            messages=[{"role": "user", "content": question}],
            max_tokens=48,
            seed=self.seed,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        async for chunk in stream:
            text = chunk.choices[0].delta.content if chunk.choices else None
            if text and not self.chat.ttft_ms:
                self.chat.ttft_ms = round((time.monotonic() - began) * 1000, 1)
            self.chat.answer += text or ""
            self.chat.tokens = chunk.usage.completion_tokens if chunk.usage else self.chat.tokens
        self.chat.request_id = stream.response.headers["x-request-id"]
        self.chat.model = stream.response.headers["x-noria-version"]
        await client.close()
        said = " ".join(self.chat.answer.split())
        self.view.tell(f"assistant ({self.chat.tokens} tokens): {said[:90]}", "italic")

    async def _watch(self, url: str) -> None:
        """Follow Noria's own status, and put what is new into words."""
        seen: set[str] = set()
        async with aiohttp.ClientSession(url) as session:
            while True:
                try:
                    async with session.get("/api/status") as reply:
                        self.view.status = await reply.json()
                except aiohttp.ClientError:
                    await asyncio.sleep(0.2)
                    continue
                for key, what, style in self._news(self.view.status):
                    if key not in seen:
                        seen.add(key)
                        self.view.tell(what, style)
                await asyncio.sleep(0.25)

    def _news(self, status: dict[str, Any]) -> list[tuple[str, str, str]]:
        news = []
        for alert in of_triage(status["alerts"]):
            if alert["id"] not in [a["id"] for a in self.alarms]:
                self.alarms.append(alert)
                if self.moments.changed_at and not self.moments.alarm_at:
                    self.moments.alarm_at = time.monotonic()
            news.append((f"alert {alert['id']}", f"ALARM {alert['summary']}", "bold red"))
            for moved in alert["moved"][:2]:
                shares = f"{moved['share_before']:.0%} → {moved['share_now']:.0%}"
                example = next(iter(moved["examples"]), "")[:70]
                key = f"moved {alert['id']} {moved['name']}"
                news.append((key, f"  {moved['name']}: {shares}  {example!r}", "red"))
        for run in reversed(of_triage(status["runs"])):
            for step in run["steps"]:
                news.append((f"step {run['id']} {step['name']}", f"run: {step['name']}: {step['summary']}", "cyan"))
            if run["error"]:
                news.append((f"run {run['id']}", f"run failed: {run['error']}", "bold red"))
        for verdict in reversed(of_triage(status["verdicts"])):
            for result in verdict["results"]:
                mark = "passed" if result["passed"] else "REFUSED"
                key = f"gate {verdict['id']} {result['gate']}"
                news.append((key, f"gate {result['gate']}: {mark}: {result['summary']}", "yellow"))
            self.refused = self.refused or ("" if verdict["passed"] else "; ".join(verdict["reasons"]))
        for rollout in reversed(of_triage(status["rollouts"])):
            for change in rollout["history"]:
                key = f"rollout {rollout['id']} {change['stage']} {change['weight']}"
                news.append((key, f"rollout: {change['stage']} {change['weight']} %: {change['reason']}", "magenta"))
            if rollout["stage"] == "promoted" and not self.moments.promoted_at:
                self.moments.promoted_at = time.monotonic()
        return news


def of_triage(nouns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that are about the endpoint `triage`."""
    return [n for n in nouns if n["endpoint"] == "triage"]
