"""What most faults of the data plane happen in: two models that answer, and callers who ask at the same time."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fakes.callers import Callers, Told
from fakes.dataplane import DataPlane
from fakes.upstream import Asked, Script, labels, listening, talker
from noria.domain.endpoint import Wire

AT_ONCE = 8
"""Callers who ask at the same time."""


class Models:
    """A classifier and a chat model that remember how often they were asked for whom.

    Attributes:
        asked: Noria's id of a request → times it came.
        busy: While it is clear, the classifier waits before it answers.
        waiting: Requests that wait for that.
    """

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.free = asyncio.Event()
        self.free.set()
        self.waiting = 0

    def classify(self, asked: Asked) -> Script:
        """Say each input in upper case."""
        self.asked[asked.headers["x-request-id"]] += 1
        script = labels(asked)
        if self.free.is_set():
            return script
        self.waiting += 1
        return Script(script.status, (self.free, *script.pieces))

    def talk(self, asked: Asked) -> Script:
        """Always the same three words."""
        self.asked[asked.headers["x-request-id"]] += 1
        return talker("one ", "two ", "three")(asked)


@asynccontextmanager
async def answering(plane: DataPlane, models: Models) -> AsyncIterator[Models]:
    """Have the plane's requests answered by these models."""
    classify, talk = plane.sockets[Wire.MLFLOW], plane.sockets[Wire.OPENAI]
    async with listening(models.classify, classify), listening(models.talk, talk):
        yield models


async def load(callers: Callers, requests: int, rest_s: float = 0.0) -> None:
    """So many requests from callers who ask at the same time, over both wires; a wrong answer fails."""

    async def one(number: int) -> None:
        for turn in range(requests // AT_ONCE):
            if (number + turn) % 4:
                told = await callers.predict(f"text {number} {turn}")
                assert not told.whole or told.status != 200 or told.json == f"TEXT {number} {turn}"
            else:
                await callers.chat("hello")
            await asyncio.sleep(rest_s)

    async with asyncio.TaskGroup() as group:
        for number in range(AT_ONCE):
            group.create_task(one(number))


async def asking(callers: Callers) -> AsyncIterator[Told]:
    """The same question again and again."""
    while True:
        yield await callers.predict("who are you?")
        await asyncio.sleep(0.05)
