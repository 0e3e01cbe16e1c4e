"""Kill -9 of an API process or of the shipper at named points, under load."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.callers import Callers
from fakes.dataplane import DataPlane, until
from fakes.upstream import Asked, Script, Step, chat, events, labels, listening, talker
from noria.domain.endpoint import Wire

pytestmark = [pytest.mark.chaos]

AT_ONCE = 8
"""Callers who ask at the same time."""


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[DataPlane]:
    plane = DataPlane(tmp_path / "shop")
    yield plane
    plane.close()


class Models:
    """A classifier and a chat model that remember whom they were asked for."""

    def __init__(self, plane: DataPlane) -> None:
        self.plane, self.asked = plane, []

    def classify(self, asked: Asked) -> Script:
        self.asked.append(asked.headers["x-request-id"])
        return labels(asked)

    def talk(self, asked: Asked) -> Script:
        self.asked.append(asked.headers["x-request-id"])
        return talker("one ", "two ", "three")(asked)


async def load(callers: Callers, requests: int, rest_s: float = 0.0) -> None:
    """So many requests from callers who ask at the same time, over both wires."""

    async def one(number: int) -> None:
        for turn in range(requests // AT_ONCE):
            if (number + turn) % 4:
                told = await callers.predict(f"text {number} {turn}")
                assert not told.whole or told.status != 200 or told.json == f"TEXT {number} {turn}"
            else:
                await callers.chat("hello")
            await asyncio.sleep(rest_s)

    await asyncio.gather(*(one(number) for number in range(AT_ONCE)))


@pytest.mark.serving("API process killed")
@pytest.mark.parametrize(
    "point",
    ["before intent", "after intent", "before commit", "after commit", "after call", "before outcome", "after outcome"],
)
async def test_a_killed_api_process_loses_nothing(plane: DataPlane, account, point: str) -> None:
    models, callers = Models(plane), plane.callers("load")
    async with (
        listening(models.classify, plane.sockets[Wire.MLFLOW]),
        listening(models.talk, plane.sockets[Wire.OPENAI]),
    ):
        plane.api(dies=point, nth=17)
        asking = asyncio.create_task(load(callers, 160))
        assert await plane.ended("api-0") == -signal.SIGKILL
        plane.api()
        await asking
    cut = [told for told in callers.told if not told.whole]
    assert 1 <= len(cut) <= AT_ONCE
    assert {told.status for told in callers.told if told.whole} == {200}
    plane.kill("api-0", signal.SIGTERM)
    await plane.settle()
    account(plane.check(callers, models.asked))


@pytest.mark.serving("API process killed")
@pytest.mark.parametrize("point", ["during the call", "mid-stream"])
async def test_an_api_process_that_is_killed_while_a_model_answers_loses_nothing(plane, account, point: str) -> None:
    models, callers, dead = Models(plane), plane.callers("load"), asyncio.Event()

    def kill() -> None:
        os.kill(plane.processes["api-0"].pid, signal.SIGKILL)
        dead.set()

    def classify(asked: Asked) -> Script:
        script = models.classify(asked)
        if len(models.asked) == 40 and point == "during the call":
            kill()
        return script

    def talk(asked: Asked) -> Script:
        script = models.talk(asked)
        if point == "mid-stream" and not dead.is_set() and len(models.asked) > 40:
            return events(*chat("one "), done=False, then=(_Now(kill), Step.HANG))
        return script

    async with listening(classify, plane.sockets[Wire.MLFLOW]), listening(talk, plane.sockets[Wire.OPENAI]):
        plane.api()
        asking = asyncio.create_task(load(callers, 160))
        assert await plane.ended("api-0") == -signal.SIGKILL
        plane.api()
        await asking
    assert any(not told.whole for told in callers.told)
    assert {told.status for told in callers.told if told.whole} == {200}
    plane.kill("api-0", signal.SIGTERM)
    await plane.settle()
    account(plane.check(callers, models.asked))
    assert any(row["outcome"] == "interrupted" for row in plane.rows())


class _Now(asyncio.Event):
    """A piece of a script at which something happens."""

    def __init__(self, happens) -> None:
        super().__init__()
        self.happens = happens

    async def wait(self) -> bool:
        self.happens()
        return True


@pytest.mark.serving("shipper killed")
@pytest.mark.parametrize(
    ("point", "nth"),
    [("before delta commit", 2), ("after delta commit", 2), ("before trim", 2), ("after trim", 2)],
    ids=["mid-ship", "after the Delta commit, before the spool's delete", "before the delete", "after the delete"],
)
async def test_a_killed_shipper_loses_and_doubles_nothing(plane: DataPlane, account, point: str, nth: int) -> None:
    models, callers = Models(plane), plane.callers("load")
    async with (
        listening(models.classify, plane.sockets[Wire.MLFLOW]),
        listening(models.talk, plane.sockets[Wire.OPENAI]),
    ):
        plane.api()
        plane.shipper(point, nth)
        asking = asyncio.create_task(load(callers, 320, rest_s=0.02))
        assert await plane.ended("shipper") == -signal.SIGKILL
        plane.shipper()
        await asking
        await until(lambda: len(plane.rows()) > len(callers.told) // 2)
    plane.kill("shipper")
    plane.kill("api-0", signal.SIGTERM)
    await plane.settle()
    assert {told.status for told in callers.told} == {200}
    account(plane.check(callers, models.asked))
