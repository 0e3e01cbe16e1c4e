"""Kill -9 of the processes that write and ship the log: nothing acknowledged is missing, nothing is there twice."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from fakes.dataplane import Account
from fakes.entries import intent, outcome
from noria.adapters.clock import SystemClock
from noria.adapters.spool.writer import SpoolFolder, SqliteSpool, close_orphans, discover
from noria.adapters.tables.delta import DeltaStore
from noria.serving.log.shipping import Shipper

pytestmark = pytest.mark.chaos

CLIENTS = 16
PAUSE_S = 0.01
DEADLINE_S = 60

WRITER = """
import asyncio, os, signal, sys
from pathlib import Path
from fakes.entries import feedback, intent, outcome
from noria.adapters.spool.writer import SqliteSpool

folder, slot, life, acknowledged, die_after, die_at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), *sys.argv[4:]
acks = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
count = {"intent": 0, "outcome": 0, "feedback": 0}

def acknowledge(what, id):
    os.write(acks, f"{what} {id}\\n".encode())
    count[what] += 1
    if what == die_after and count[what] == int(die_at):
        os.kill(os.getpid(), signal.SIGKILL)

async def client(spool, number):
    n = life * 10_000_000 + number * 100_000
    while True:
        n += 1
        await spool.append(intent(n, request=b"x" * (n % 3000)))
        acknowledge("intent", intent(n).request_id)
        await spool.append(outcome(n))
        acknowledge("outcome", intent(n).request_id)
        await spool.append(feedback(n))
        acknowledge("feedback", feedback(n).feedback_id)
        await asyncio.sleep(float(os.environ["PAUSE_S"]))

async def main():
    spool = SqliteSpool(folder, slot)
    await asyncio.gather(*(client(spool, number) for number in range(int(os.environ["CLIENTS"]))))

asyncio.run(main())
"""

SHIPPER = """
import os, signal, sys, time
from pathlib import Path
from noria.adapters.clock import SystemClock
from noria.adapters.tables.delta import DeltaStore
from noria.adapters.spool.writer import SpoolFolder
from noria.adapters.spool.reader import SpoolReader
from noria.serving.log.shipping import Shipper

spools, tables, where, call = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
calls = 0

def dies(real, before):
    def wrapped(*arguments):
        global calls
        mine = where.split()[1] in ("trim", arguments[1])
        calls += mine
        if mine and before and calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments)
        if mine and not before and calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return wrapped

if where == "after trim":
    SpoolReader._trim_some = dies(SpoolReader._trim_some, before=False)
elif where:
    DeltaStore.append = dies(DeltaStore.append, before=where.startswith("before"))
shipper = Shipper(SpoolFolder(spools).readers, DeltaStore(tables), SystemClock())
while True:
    shipper.turn(limit=500)
"""


class Log:
    """A log under load: its spools, its tables, and what callers were told is safe."""

    def __init__(self, root: Path) -> None:
        self.spools, self.tables, self.acks = root / "spool", root / "tables", root / "acknowledged"
        self.spools.mkdir()
        self.lives = 0

    def write(self, die_after: str = "", die_at: int = 0, slot: str = "api-0") -> subprocess.Popen[bytes]:
        """Start an API process that appends as fast as it can, until it is killed."""
        self.lives += 1
        arguments = [self.spools, slot, self.lives, self.acks, die_after, die_at]
        return self._start(WRITER, arguments)

    def ship(self, where: str = "", call: int = 0) -> subprocess.Popen[bytes]:
        """Start a worker that ships, until it is killed or kills itself there."""
        return self._start(SHIPPER, [self.spools, self.tables, where, call])

    def _start(self, script: str, arguments: list[object]) -> subprocess.Popen[bytes]:
        tests = str(Path(__file__).parents[1])
        environment = os.environ | {"PYTHONPATH": tests, "CLIENTS": str(CLIENTS), "PAUSE_S": str(PAUSE_S)}
        return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], env=environment)

    def acknowledged(self) -> dict[str, list[str]]:
        """What callers were told is on disk, by kind."""
        found: dict[str, list[str]] = {"intent": [], "outcome": [], "feedback": []}
        for line in self.acks.read_text().splitlines() if self.acks.exists() else ():
            what, name = line.split()
            found[what].append(name)
        return found

    def wait_for(self, more: int) -> None:
        """Wait until so many more entries were acknowledged."""
        size = lambda: self.acks.stat().st_size if self.acks.exists() else 0  # noqa: E731
        enough, deadline = size() + more * 40, time.monotonic() + DEADLINE_S
        while size() < enough:
            assert time.monotonic() < deadline, "the log is not being written"
            time.sleep(0.005)

    def settle(self) -> None:
        """What a worker does once everybody is dead: end what is open, ship what is left."""
        for path in discover(self.spools):
            close_orphans(path, SystemClock())
        folder = SpoolFolder(self.spools)
        shipper = Shipper(folder.readers, DeltaStore(self.tables), SystemClock())
        while any(status.unshipped for status in shipper.turn().values()):
            pass
        assert all(status.open_intents == 0 for status in shipper.turn().values())
        assert shipper.problems == folder.problems == ()
        folder.close()

    def check(self) -> Account:
        """Zero missing, zero double, nothing made up, no gap."""
        store, told = DeltaStore(self.tables), self.acknowledged()
        rows = store.scan("inference", columns=["databricks_request_id", "outcome", "spool", "sequence"]).to_pylist()
        outcomes = {row["databricks_request_id"]: row["outcome"] for row in rows}
        said = store.scan("feedback", columns=["feedback_id", "spool", "sequence"]).to_pylist()
        assert len(outcomes) == len(rows), "a request is there twice"
        assert Counter(row["feedback_id"] for row in said).most_common(1)[0][1] == 1, "feedback is there twice"
        assert set(told["intent"]) <= outcomes.keys()
        assert {outcomes[name] for name in told["outcome"]} == {"answered"}
        assert set(told["feedback"]) <= {row["feedback_id"] for row in said}
        assert sum(outcome == "interrupted" for outcome in outcomes.values()) <= CLIENTS * self.lives
        assert store.scan("dead_letter").num_rows == 0
        places = [(row["spool"], row["sequence"]) for row in rows + said]
        assert len(set(places)) == len(places)
        last = Counter(spool for spool, _ in places)
        for spool in last:  # an intent has a number of its own, but no row
            numbers = sum(place[0] == spool for place in places) + sum(row["spool"] == spool for row in rows)
            assert numbers == max(number for where, number in places if where == spool)
        told_of = set(told["intent"])
        return Account(len(told_of), len(rows), len(told_of - outcomes.keys()), len(rows) - len(outcomes))


@pytest.fixture
def log(tmp_path):
    log, started = Log(tmp_path), []
    start = log._start

    def starting(*arguments):
        started.append(start(*arguments))
        return started[-1]

    log._start = starting
    yield log
    for process in started:
        process.kill()
        process.wait()


GARBAGE = [b"\x5a" * 16, bytes(64), b"\xff" * 512, bytes(range(256)) * 16]


@pytest.mark.serving("spool files damaged, seed")
@pytest.mark.parametrize("seed", range(8))
async def test_garbage_anywhere_in_the_files_doubles_nothing_and_every_loss_is_accounted_for(
    log, tmp_path, account, seed
):
    chance, store = random.Random(seed), DeltaStore(log.tables)
    folder, spool, told = SpoolFolder(log.spools), SqliteSpool(log.spools, "api-0"), set()
    shipper, under_way = Shipper(folder.readers, store, SystemClock()), []
    for n in range(1, 151):
        if chance.random() < 0.4 and under_way:
            await spool.append(outcome(under_way.pop(chance.randrange(len(under_way)))))
        else:
            under_way.append(n)
            await spool.append(intent(n, request=b"x" * chance.randrange(6000)))
            told.add(intent(n).request_id)
        if chance.random() < 0.03:
            shipper.turn(limit=chance.randrange(1, 60))
    crashed = shutil.copytree(log.spools, tmp_path / "crashed")
    spool.close()
    folder.close()
    for _ in range(3):
        victim = chance.choice([file for file in crashed.glob("api-0.db*") if file.suffix != ".db-shm"])
        with victim.open("r+b") as file:
            file.seek(chance.randrange(victim.stat().st_size + 1))
            file.write(chance.choice(GARBAGE))
    SqliteSpool(crashed, "api-0").close()
    log.spools = crashed
    log.settle()
    rows = store.scan("inference", columns=["databricks_request_id"])["databricks_request_id"].to_pylist()
    assert len(set(rows)) == len(rows)
    letters = store.scan("dead_letter", columns=["reason"])["reason"].to_pylist()
    ranges = [re.match(r"entries (\d+) to (\d+)", letter) for letter in letters]
    accounted = sum(int(found[2]) - int(found[1]) + 1 if found else 1 for found in ranges)
    unaccounted = max(0, len(told - set(rows)) - accounted)
    account(Account(len(told), len(rows), unaccounted, len(rows) - len(set(rows))))


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def died(process: subprocess.Popen[bytes]) -> bool:
    """Wait until a process has killed itself."""
    return process.wait(DEADLINE_S) == -signal.SIGKILL


@pytest.mark.serving("spool's process killed right after it said")
@pytest.mark.parametrize("what", ["intent", "outcome", "feedback"])
def test_an_api_process_that_dies_right_after_it_said_so_has_everything_on_disk(log, account, what):
    for die_at in (1, 137):
        assert died(log.write(die_after=what, die_at=die_at))
    log.settle()
    account(log.check())


@pytest.mark.serving("two spools' processes killed at any moment, seed")
@pytest.mark.parametrize("seed", [1, 2])
def test_api_processes_that_die_at_any_moment_lose_nothing(log, account, seed):
    chance = random.Random(seed)
    for _ in range(3):
        one, two = log.write(slot="api-0"), log.write(slot="api-1")
        log.wait_for(chance.randrange(300))
        kill(chance.choice([one, two]))
        log.wait_for(chance.randrange(100))
        kill(one)
        kill(two)
    log.settle()
    account(log.check())


@pytest.mark.serving("shipping killed")
@pytest.mark.parametrize(
    ("where", "call"),
    [("before inference", 1), ("after inference", 2), ("before feedback", 2), ("after feedback", 1), ("after trim", 2)],
)
def test_a_worker_that_dies_while_it_ships_doubles_nothing(log, account, where, call):
    writer = log.write()
    log.wait_for(500)
    assert died(log.ship(where, call))
    kill(writer)
    log.settle()
    account(log.check())


@pytest.mark.serving("spool's process and shipper killed again and again")
def test_api_and_worker_that_die_again_and_again_under_load_lose_and_double_nothing(log, account):
    chance = random.Random(3)
    for _ in range(3):
        writer, shipper = log.write(), log.ship()
        log.wait_for(200 + chance.randrange(2000))
        first, second = chance.sample([writer, shipper], 2)
        kill(first)
        time.sleep(chance.random() / 5)
        kill(second)
    log.settle()
    account(log.check())
