"""Kill -9 of an API process or of the shipper at named points, under load."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.dataplane import DataPlane, until
from fakes.scene import AT_ONCE, Models, answering, load
from fakes.upstream import Asked, Script, Step, chat, events

pytestmark = [pytest.mark.chaos]


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[DataPlane]:
    plane = DataPlane(tmp_path / "shop")
    yield plane
    plane.close()


@pytest.mark.serving("API process killed")
@pytest.mark.parametrize(
    "point",
    ["before intent", "after intent", "before commit", "after commit", "after call", "before outcome", "after outcome"],
)
async def test_a_killed_api_process_loses_nothing(plane: DataPlane, account, point: str) -> None:
    models, callers = Models(), plane.callers("load")
    async with answering(plane, models):
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
    def kill() -> None:
        os.kill(plane.processes["api-0"].pid, signal.SIGKILL)
        models.deadly = False

    models, callers = Deadly(point, kill), plane.callers("load")
    async with answering(plane, models):
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


class Deadly(Models):
    """Models that have somebody killed while they answer, once they have been asked often enough."""

    def __init__(self, point: str, kill: Callable[[], None]) -> None:
        super().__init__()
        self.point, self.kill, self.deadly = point, kill, True

    def due(self, point: str) -> bool:
        """Whether this is the moment."""
        return self.deadly and self.point == point and len(self.asked) >= 40

    def classify(self, asked: Asked) -> Script:
        script = super().classify(asked)
        if self.due("during the call"):
            self.kill()
        return script

    def talk(self, asked: Asked) -> Script:
        script = super().talk(asked)
        return events(*chat("one "), done=False, then=(Now(self.kill), Step.HANG)) if self.due("mid-stream") else script


class Now(asyncio.Event):
    """A piece of a script at which something happens."""

    def __init__(self, happens: Callable[[], None]) -> None:
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
    models, callers = Models(), plane.callers("load")
    async with answering(plane, models):
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
