"""Versions that change, and stand in for one another, under load: nobody is dropped, and records say who answered."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from fakes.dataplane import DataPlane, until
from fakes.scene import AT_ONCE, Models, answering
from fakes.upstream import Asked, Script, Step, chat, events, listening, reply

pytestmark = [pytest.mark.chaos]

ENDPOINTS = """
  backed:
    <<: *assistant
    routing: {fallbacks: [assistant], try_timeout: 1s, patience: 300ms, breaker: {failures: 1000}}
"""
VERSIONS = range(2, 12)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    plane = DataPlane(tmp_path_factory.mktemp("routes") / "shop", endpoints=ENDPOINTS)
    plane.route("backed", f"unix:{plane.settings.run_dir / 'backed.sock'}")
    plane.route("triage", f"unix:{plane.settings.run_dir / 'v1.sock'}")
    plane.api()
    yield plane
    plane.close()


def says(version: int) -> Models:
    """A classifier that says which version it is, and takes its time."""

    class Named(Models):
        def classify(self, asked: Asked) -> Script:
            self.asked[asked.headers["x-request-id"]] += 1
            return Script(200, (Step.REST, *reply({"predictions": [str(version)]}).pieces))

    return Named()


@pytest.mark.serving("version swapped ten times under load")
async def test_a_hot_swap_drops_no_request_and_each_is_answered_by_the_version_that_it_is_told(plane, account) -> None:
    callers, enough, seen = plane.callers("swap"), asyncio.Event(), set()

    async def ask() -> None:
        while not enough.is_set():
            told = await callers.predict("who?")
            assert (told.status, told.headers["x-noria-version"]) == (200, f"triage/{told.json}")
            seen.add(told.json)

    async with AsyncExitStack() as stack:
        for version in (1, *VERSIONS):
            where = plane.settings.run_dir / f"v{version}.sock"
            await stack.enter_async_context(listening(says(version).classify, where))
        asking = [asyncio.create_task(ask()) for _ in range(AT_ONCE)]
        for version in VERSIONS:
            url = f"unix:{plane.settings.run_dir / f'v{version}.sock'}"
            await asyncio.to_thread(plane.route, "triage", url, str(version))
            await until(lambda: str(version) in seen)  # noqa: B023
        enough.set()
        await asyncio.gather(*asking)
    await plane.settle()
    told = {one.request_id: one for one in callers.told}
    for row in plane.rows("swap."):
        assert row["model_version"] == told[row["databricks_request_id"]].json
    account(plane.check(callers))


FAULTS = {
    "is away": None,
    "hangs": lambda: Script(before=Step.HANG),
    "resets": lambda: Script(before=Step.CUT),
    "says 500": lambda: reply({"error": {"message": "oh no"}}, 500),
    "answers garbage": lambda: Script(200, (b"<html>",)),
    "begins no stream": lambda: Script(200, (Step.HANG,), "text/event-stream"),
    "breaks off in the middle of a stream": lambda: events(*chat("one ")[:2], done=False, then=(Step.CUT,)),
}


@pytest.mark.serving("fallback, since the version")
@pytest.mark.parametrize("case", FAULTS)
async def test_another_endpoint_stands_in_until_the_first_byte_and_never_after_it(plane, account, case: str) -> None:
    fault, callers = FAULTS[case], plane.callers(f"f {case}")
    began = "middle" in case
    async with AsyncExitStack() as stack:
        models = await stack.enter_async_context(answering(plane, Models()))
        if fault is not None:
            where = plane.settings.run_dir / "backed.sock"
            await stack.enter_async_context(listening(lambda _: fault(), where))
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(callers.chat("hello", endpoint="backed"))
    await plane.settle()
    assert {(told.status, told.whole) for told in callers.told} == {(200, True)}
    answered = {told.request_id for told in callers.told if b"[DONE]" in told.body}
    assert len(answered) == (0 if began else AT_ONCE)
    assert answered == models.asked.keys()
    outcomes = {(row["outcome"], row["model_name"]) for row in plane.rows(callers.prefix)}
    assert outcomes == {("failed", "backed") if began else ("answered", "assistant")}
    account(plane.check(callers))
