"""Customers: they write at a steady rate, and people label a part of what they wrote some seconds later."""

import asyncio
import heapq
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from demo.data import Message, World

TRIES = 4
"""A connection breaks if somebody kills the API process; its successor answers the next try."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one message; `unseen` says that no version can have learnt from it."""

    at: float
    message: Message
    version: str
    correct: bool
    share_new: float
    unseen: bool


@dataclass
class Traffic:
    """A steady stream of messages to `/predict`, and of late labels to `/feedback`.

    Attributes:
        rate: Messages a second.
        share_new: Share of messages from the new world; the story turns it.
        unseen: Whether messages come from those kept for the end; the story turns it, too.
        label_share: Share of the answers that somebody labels.
        label_delay: Shortest and longest time until the label arrives, in seconds.
    """

    url: str
    world: World
    seed: int
    rate: float = 100.0
    share_new: float = 0.0
    unseen: bool = False
    label_share: float = 0.6
    label_delay: tuple[float, float] = (1.0, 4.0)
    answers: list[Answer] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    answered: set[str] = field(default_factory=set)
    """Ids of the requests that were answered."""
    retried: int = 0
    sent: int = 0
    labels: int = 0
    running: bool = True
    _due: list[tuple[float, str, dict[str, str]]] = field(default_factory=list)
    _in_flight: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Send until `running` turns false, then wait for the answers and labels under way."""
        chance = random.Random(self.seed + 1)
        connector = aiohttp.TCPConnector(limit=64)
        async with aiohttp.ClientSession(self.url, connector=connector) as session:
            next_at = time.monotonic()
            while self.running:
                now = time.monotonic()
                while next_at <= now and len(self._in_flight) < 64:
                    next_at += 1 / self.rate
                    self._spawn(self._ask(session, self.world.draw(self.share_new, self.unseen, chance), chance))
                next_at = max(next_at, now - 0.25)  # a stall isn't made up for with a burst
                self._send_due_labels(session, now)
                await asyncio.sleep(0.005)
            self._send_due_labels(session, float("inf"))
            while self._in_flight:
                await asyncio.gather(*self._in_flight)

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.create_task(work)
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)

    async def _ask(self, session: aiohttp.ClientSession, message: Message, chance: random.Random) -> None:
        self.sent += 1
        body = {
            "input": message.text,
            "metadata": {"brand": message.group, "user": f"customer-{chance.randrange(10**9)}"},
        }
        share, unseen = self.share_new, self.unseen
        reply = await self._post(session, "/predict", body)
        if reply is None:
            return
        prediction, headers = reply
        self.answered.add(headers["x-request-id"])
        correct = prediction == message.label
        version = headers["x-noria-version"]
        self.answers.append(Answer(time.monotonic(), message, version, correct, share, unseen))
        if chance.random() < self.label_share:
            feedback = {"request_id": headers["x-request-id"], "endpoint": "triage", "label": message.label}
            due = time.monotonic() + chance.uniform(*self.label_delay)
            heapq.heappush(self._due, (due, feedback["request_id"], feedback))

    def _send_due_labels(self, session: aiohttp.ClientSession, now: float) -> None:
        batch = []
        while self._due and self._due[0][0] <= now:
            batch.append(heapq.heappop(self._due)[2])
        if batch:
            self.labels += len(batch)
            self._spawn(self._label(session, batch))

    async def _label(self, session: aiohttp.ClientSession, batch: list[dict[str, str]]) -> None:
        await self._post(session, "/feedback", batch)

    async def _post(
        self, session: aiohttp.ClientSession, path: str, body: object
    ) -> tuple[Any, Mapping[str, str]] | None:
        """Post JSON, and again if the connection breaks, as any careful client does; None if it failed for good."""
        for attempt in range(TRIES):
            try:
                async with session.post(path, json=body) as reply:
                    said = await reply.json()
                    if reply.status < 300:
                        return said, reply.headers
                    self.failures[f"{path} {reply.status} {said}"] += 1
                    return None
            except aiohttp.ClientError as error:
                if attempt == TRIES - 1:
                    self.failures[f"{path} {error!r}"] += 1
                self.retried += 1
                await asyncio.sleep(0.2 * (attempt + 1))
        return None


def accuracy(answers: list[Answer]) -> float | None:
    """Share of right answers; None where nobody answered."""
    return round(sum(a.correct for a in answers) / len(answers), 4) if answers else None
