"""Everything at once: random faults under load, and at the end the account is exact to the request."""

import asyncio
import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from fakes.callers import Callers, Told
from fakes.dataplane import DataPlane
from fakes.disks import no_longer_files
from fakes.scene import Models, answering
from fakes.upstream import Asked, Script, Step, chat, events, labels, reply, talker
from noria.adapters.tables.delta import DeltaStore

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

SEED = int(os.environ.get("NORIA_TEST_SEED", "7"))
LASTS_S = 20.0
CALLERS = 12
APIS = ("api-0", "api-1")
ENDPOINTS = """
  backed-assistant: {<<: *hasty, routing: {fallbacks: [hasty-assistant]}}
  cached-triage: {<<: *triage, routing: {cache: {ttl: 1m}}}
"""


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[DataPlane]:
    plane = DataPlane(tmp_path / "shop", server=", slow_client: 2s", endpoints=ENDPOINTS)
    yield plane
    plane.close()


class Moody(Models):
    """Models that misbehave now and then."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance

    def classify(self, asked: Asked) -> Script:
        self.asked[asked.headers["x-request-id"]] += 1
        moods = [
            Script(before=Step.CUT),
            Script(before=b"nonsense\r\n\r\n"),
            Script(200, (b'{"predictions": ["W', Step.CUT)),
            Script(200, (Step.REST,) * 20 + tuple(labels(asked).pieces)),
            reply({"message": "out of order"}, 500),
            reply({"predictions": []}),
        ]
        return self.chance.choice(moods) if self.chance.random() < 0.15 else labels(asked)

    def talk(self, asked: Asked) -> Script:
        self.asked[asked.headers["x-request-id"]] += 1
        whole = talker("one ", "two ", "three")(asked)
        if not asked.json.get("stream"):
            return whole
        said = tuple(events(*chat("one ", "two "), done=False).pieces)
        moods = [
            Script(200, (*said[:2], Step.CUT), whole.content_type),
            Script(200, (*said[:2], Step.HANG), whole.content_type),
            Script(200, (said[0], b"data: {]\n\n"), whole.content_type),
            Script(200, tuple(x for piece in whole.pieces for x in (piece, Step.REST, Step.REST)), whole.content_type),
        ]
        return self.chance.choice(moods) if self.chance.random() < 0.25 else whole


async def one_caller(callers: Callers, chance: random.Random, until_s: float) -> None:
    """Ask for this and that, in good and bad ways."""
    bad = [b'{"input": ', b'{"input": NaN}', b"\xff", b"[]", b'{"inputs": []}']
    ways: list[tuple[int, Callable[[], Awaitable[Told]]]] = [
        (6, lambda: callers.predict(f"text {chance.random()}")),
        (2, lambda: callers.predict("hurry", endpoint="hasty-triage")),
        (2, lambda: callers.chat("hello", endpoint="hasty-assistant")),
        (2, lambda: callers.chat("hello", endpoint="hasty-assistant", stream=False)),
        (2, lambda: callers.chat("hello", endpoint="backed-assistant")),
        (2, lambda: callers.predict("again and again", endpoint="cached-triage")),
        (1, lambda: callers.ask("/predict/triage", chance.choice(bad))),
        (1, lambda: callers.ask("/predict/nobody", b"{}")),
        (1, lambda: callers.predict("never said", sent=4, leave_after=0)),
        (1, lambda: callers.predict("bye", leave_after=0)),
        (1, lambda: callers.chat("bye", endpoint="hasty-assistant", leave_after=50)),
    ]
    weights = [weight for weight, _ in ways]
    while time.monotonic() < until_s:
        told = await chance.choices([way for _, way in ways], weights)[0]()
        await asyncio.sleep(0.1 if told.status == 0 else 0.01)


async def one_judge(callers: Callers, answers: Callers, chance: random.Random, until_s: float) -> None:
    """Say what was right, of answers that were given."""
    while time.monotonic() < until_s:
        await asyncio.sleep(0.05)
        known = [told.request_id for told in answers.told[-50:] if told.status == 200]
        if known:
            said = {"request_id": chance.choice(known), "endpoint": "triage", "label": "right"}
            said["feedback_id"] = f"feedback-{len(callers.told)}"
            await callers.ask("/feedback", json.dumps(said).encode())


async def supervise(plane: DataPlane) -> None:
    """Start again what has ended."""
    while True:
        for name, start in (*((slot, plane.api) for slot in APIS), ("shipper", lambda _: plane.shipper())):
            if plane.processes[name].poll() is not None:
                start(name)
        await asyncio.sleep(0.05)


class Disturber:
    """Does one bad thing after the other."""

    def __init__(self, plane: DataPlane, chance: random.Random) -> None:
        self.plane, self.chance, self.did, self.version = plane, chance, Counter(), 1
        self.deeds = (
            self.kill_api, self.kill_api, self.kill_shipper, self.stop_api, self.lock_the_state, self.fill_up,
            self.take_the_spools_away, self.move_a_route,
        )  # fmt: skip

    async def disturb(self, until_s: float) -> None:
        """Until it is enough."""
        while time.monotonic() < until_s:
            deed = self.chance.choice(self.deeds)
            self.did[deed.__name__] += 1
            await deed()
            await asyncio.sleep(self.chance.uniform(0.1, 0.7))

    async def kill_api(self) -> None:
        self.plane.processes[self.chance.choice(APIS)].send_signal(signal.SIGKILL)

    async def kill_shipper(self) -> None:
        self.plane.processes["shipper"].send_signal(signal.SIGKILL)

    async def stop_api(self) -> None:
        self.plane.processes[self.chance.choice(APIS)].send_signal(signal.SIGTERM)

    async def lock_the_state(self) -> None:
        with closing(sqlite3.connect(self.plane.settings.home / "state.db")) as connection:
            with suppress(sqlite3.OperationalError):
                connection.execute("BEGIN EXCLUSIVE")
            await asyncio.sleep(0.3)

    async def fill_up(self) -> None:
        with ExitStack() as stack, suppress(ProcessLookupError):
            stack.enter_context(no_longer_files(self.plane.processes[self.chance.choice(APIS)].pid, 1))
            await asyncio.sleep(0.3)

    async def take_the_spools_away(self) -> None:
        aside = self.plane.spools.rename(self.plane.spools.with_name("aside"))
        self.plane.spools.touch()
        await asyncio.sleep(0.2)
        self.plane.spools.unlink()
        try:
            aside.rename(self.plane.spools)
        except OSError:  # an API process that was just starting has made the folder anew
            for file in aside.iterdir():
                file.rename(self.plane.spools / file.name)
            aside.rmdir()

    async def move_a_route(self) -> None:
        self.version += 1
        await asyncio.to_thread(self.plane.route, "triage", "", str(self.version))


@pytest.mark.serving(f"everything at random, seed {SEED}")
async def test_after_random_faults_under_load_the_account_is_exact(plane: DataPlane, account) -> None:
    print(f"seed {SEED}; another one: NORIA_TEST_SEED=…")
    chance, callers, judge = random.Random(SEED), plane.callers("mix"), plane.callers("judge")
    disturber, models = Disturber(plane, chance), Moody(random.Random(SEED))
    for slot in APIS:
        plane.api(slot)
    plane.shipper()
    async with answering(plane, models):
        supervising = asyncio.create_task(supervise(plane))
        end = time.monotonic() + LASTS_S
        async with asyncio.TaskGroup() as group:
            group.create_task(disturber.disturb(end))
            group.create_task(one_judge(judge, callers, random.Random(SEED), end))
            for number in range(CALLERS):
                group.create_task(one_caller(callers, random.Random(SEED + number), end))
        supervising.cancel()
        await asyncio.wait([supervising])
        for slot in APIS:
            plane.kill(slot, signal.SIGTERM)
    plane.kill("shipper")
    await plane.settle()
    print(dict(disturber.did), Counter(told.status for told in callers.told))
    print(Counter((row["outcome"], row["status_code"]) for row in plane.rows()))
    taken = [name for told in judge.told if told.status == 200 for name in told.json["feedback_ids"]]
    said = DeltaStore(plane.tables).scan("feedback", columns=["feedback_id"])["feedback_id"].to_pylist()
    assert set(taken) <= set(said)
    assert len(set(said)) == len(said)
    nobody = [told.name for told in callers.told if b"nobody" in told.body]
    unlogged = [told.name for told in callers.told if b"log_unavailable" in told.body]
    failed = [told.name for told in callers.told if told.status >= 500 or b'"error"' in told.body]
    account(plane.check(callers, models.asked, unrecorded=nobody, perhaps=unlogged, doubtful=failed))
