"""Versions are swapped under load on real model servers: no request fails, and each is answered by whom it names."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sklearn.dummy import DummyClassifier

from fakes.models import TEXT, save, version
from fakes.plane import route, target
from fakes.site import Site, running, until
from noria.adapters.hosts.local import LocalHost
from noria.domain.endpoint import Role, Target

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

CALLERS = 8


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LocalHost]:
    """Real model servers of versions that answer every text with their own number."""

    def files(one) -> Path:
        folder = tmp_path / "models" / one.version
        if not folder.exists():
            constant = DummyClassifier(strategy="constant", constant=f"version {one.version}")
            save(folder, constant.fit([["a"]], [f"version {one.version}"]), inputs=TEXT, example=["good"])
        return folder

    made = LocalHost(tmp_path / "run", files, tmp_path / "run" / "worker.lock", orphan_after_s=600)
    yield made
    made.stop_all()


class Load:
    """Callers that go on asking, and what they were told."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.told: list[tuple[int, object, str]] = []
        self.over = asyncio.Event()

    async def ask(self) -> None:
        while not self.over.is_set():
            status, said, headers = await self.site.post("/predict", {"input": "a"})
            self.told.append((status, said, headers.get("x-noria-version", "")))

    async def more(self, count: int = 40, by: str = "") -> None:
        """Wait for that many more answers, of that version if it matters."""
        begin = len(self.told)
        await until(lambda: sum(by in name for _, _, name in self.told[begin:]) >= count, 60)


async def test_versions_are_swapped_killed_and_brought_back_and_no_caller_notices(host: LocalHost, tmp_path: Path):
    async def up(number: str) -> Target:
        return replace(target(number), url=await asyncio.to_thread(host.start, version(number)))

    first = await up("1")
    async with running(tmp_path, patience_s=30) as site:
        load = Load(site)

        nothing_yet = route(first, revision=0)

        async def in_service(*targets: Target, revision: int, previous: Target | None = None) -> None:
            site.put(replace(route(*targets, revision=revision), previous=previous))
            await until(lambda: site.router.snapshot.routes.get("triage", nothing_yet).revision == revision)

        await in_service(first, revision=1)
        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(load.ask())
            await load.more(by="triage/1")
            second = await up("2")  # under load, while version 1 answers
            canary = replace(second, role=Role.CANARY, weight=50)
            await in_service(replace(first, weight=50), canary, revision=2)
            await load.more(by="triage/2")
            await in_service(second, revision=3, previous=first)
            await load.more(by="triage/2")
            await asyncio.to_thread(host.stop, "triage/1")
            await load.more()
            os.kill(_pid(tmp_path, "triage/2"), signal.SIGKILL)
            again = await up("2")  # requests wait for it meanwhile, at the old address and at the new one
            await in_service(again, revision=4)
            await load.more()
            third = await up("3")
            await in_service(third, revision=5, previous=again)
            await asyncio.to_thread(host.stop, "triage/2")  # with requests under way
            await load.more(by="triage/3")
            load.over.set()
        told, endings = load.told, site.endings
        ids = {intent.request_id for intent in site.intents}
    print(f"\n{len(told)} requests, by {dict(Counter(name for _, _, name in told))}")
    assert Counter(status for status, _, _ in told) == {200: len(told)}
    assert [said for _, said, name in told] == [f"version {name.removeprefix('triage/')}" for _, _, name in told]
    assert len(told) == len(ids) == len(endings) == endings.count(("answered", 200))


def _pid(folder: Path, ref: str) -> int:
    """The process of a version's model server."""
    notes = (json.loads(note.read_text()) for note in (folder / "run").glob("*.json"))
    return next(int(note["pid"]) for note in notes if note["ref"] == ref)
