"""Who may come in, and where requests may go: keys that open nothing any more, and addresses that nobody may call."""

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fakes.callers import Callers, Told
from fakes.dataplane import DataPlane, until
from fakes.scene import Models, answering
from noria import bootstrap
from noria.adapters.clock import SystemClock
from noria.adapters.hosts.external import ExternalHost
from noria.domain.deployment import ExternalModel
from noria.domain.endpoint import Wire
from noria.domain.errors import NoriaError
from noria.domain.key import KeyRole
from noria.domain.model import Flavor, ModelVersion
from noria.governance import keys

pytestmark = [pytest.mark.chaos]


# --- keys ---


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DataPlane, dict[str, str]]]:
    """A project with API keys, and the keys' tokens."""
    plane = DataPlane(tmp_path_factory.mktemp("guarded") / "shop")
    state = bootstrap.state(plane.settings)

    def make(name: str, **more) -> str:
        return keys.create(state, SystemClock(), name, "test", **more)[1]

    tokens = {
        "good": make("good"),
        "of another endpoint": make("elsewhere", endpoints=["assistant"]),
        "of a viewer": make("viewer", roles=[KeyRole.VIEWER]),
        "wrong": "sk-noria-" + "x" * 43,
        "half": make("half")[:-1],
        "of nonsense": "\xff\xfe",
        "none": "",
    }
    state.close()
    plane.api()
    yield plane, tokens
    plane.close()


async def ask(callers: Callers, token: str, times: int = 1) -> Told:
    """Ask with a key, again and again; what the caller was told last."""
    for _ in range(times):
        told = await callers.predict("hello", headers={"authorization": f"Bearer {token}"} if token else None)
    return told


REFUSED = {
    "none": 401,
    "wrong": 401,
    "half": 401,
    "of nonsense": 401,
    "of a viewer": 403,
    "of another endpoint": 403,
}


@pytest.mark.serving("key")
@pytest.mark.parametrize("case", REFUSED)
async def test_a_key_that_opens_nothing_costs_the_others_nothing(guarded, account, case: str) -> None:
    plane, tokens = guarded
    callers, others = plane.callers(f"k {case}"), plane.callers(f"g {case}")
    async with answering(plane, Models()) as models, asyncio.TaskGroup() as group:
        group.create_task(ask(others, tokens["good"], 20))
        group.create_task(ask(callers, tokens[case], 20))
    await plane.settle()
    assert {told.status for told in callers.told} == {REFUSED[case]}
    assert {told.status for told in others.told} == {200}
    assert models.asked.keys() == {told.request_id for told in others.told}
    assert {row["requester"] for row in plane.rows(others.prefix)} == {"good"}
    plane.check(others, models.asked)
    account(plane.check(callers, perhaps=[told.name for told in callers.told]))


@pytest.mark.serving("key under load")
@pytest.mark.parametrize("case", ["revoked", "expires"])
async def test_a_key_that_ends_under_load_ends_for_all_requests_that_come_later(guarded, account, case: str) -> None:
    plane, _ = guarded
    callers, early = plane.callers(f"e {case}"), plane.callers(f"i {case}")
    clock, state = SystemClock(), bootstrap.state(plane.settings)
    ends = timedelta(seconds=3) if case == "expires" else None
    token = keys.create(state, clock, case, "test", expires_in=ends)[1]

    async def until_refused() -> None:
        while (await ask(callers, token)).status == 200:
            pass

    async with answering(plane, Models()) as models:
        while (await ask(early, token)).status != 200:
            pass
        asking = [asyncio.create_task(until_refused()) for _ in range(8)]
        if case == "revoked":
            await until(lambda: len(callers.told) > 50)
            await asyncio.to_thread(keys.revoke, state, clock, case, "test", "lost")
        await asyncio.gather(*asking)
        await ask(callers, token, 20)
    state.close()
    await plane.settle()
    statuses = Counter(told.status for told in callers.told)
    assert statuses.keys() == {200, 401}
    assert statuses[401] == 8 + 20
    assert all(told.status == 401 for told in callers.told[-20:])
    account(
        plane.check(
            callers,
            models.asked.keys() & {t.request_id for t in callers.told},
            unrecorded=[told.name for told in callers.told if told.status == 401],
        )
    )


# --- addresses ---

HOSTS = {
    "loopback": "127.0.0.1",
    "loopback by name": "localhost",
    "loopback in short": "127.1",
    "loopback as a number": "2130706433",
    "loopback in hexadecimal": "0x7f000001",
    "loopback inside IPv6": "[::ffff:127.0.0.1]",
    "any address": "0.0.0.0",
    "cloud metadata": "169.254.169.254",
    "cloud metadata as a number": "2852039166",
    "cloud metadata of Azure": "168.63.129.16",
    "private network": "10.0.0.1",
    "link-local IPv6": "[fe80::1]",
}


@pytest.fixture(scope="module")
def victim() -> Iterator[socket.socket]:
    """Something inside that nobody should reach."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture(scope="module")
def outward(tmp_path_factory: pytest.TempPathFactory, victim: socket.socket) -> Iterator[DataPlane]:
    """A project with an endpoint for each of these hosts; the last one may have private addresses, and yet not all."""
    port = victim.getsockname()[1]
    hosts = [*HOSTS.values(), "169.254.169.254"]
    private = ["false"] * len(HOSTS) + ["true"]
    plane = DataPlane(
        tmp_path_factory.mktemp("outward") / "shop",
        upstreams=", ".join(
            f'u{n}: {{url: "http://{host}:{port}", auth: none, private: {may}}}'
            for n, (host, may) in enumerate(zip(hosts, private, strict=True))
        ),
        endpoints="\n".join(f"  e{n}: {{<<: *hasty}}" for n in range(len(hosts))),
    )
    for n in range(len(hosts)):
        plane.route(f"e{n}", f"upstream:u{n}/model")
    plane.api()
    yield plane
    plane.close()


@pytest.mark.serving("upstream at")
@pytest.mark.parametrize("case", [*HOSTS, "cloud metadata, and private is allowed"])
async def test_no_request_goes_where_none_may_go(outward: DataPlane, victim, account, case: str) -> None:
    n = [*HOSTS, "cloud metadata, and private is allowed"].index(case)
    callers = outward.callers(f"u {n}")
    async with asyncio.TaskGroup() as group:
        for stream in (True, False):
            group.create_task(callers.chat("hello", endpoint=f"e{n}", stream=stream))
    await outward.settle()
    assert {(told.status, told.json["error"]["code"]) for told in callers.told} == {(503, "forbidden_address")}
    with pytest.raises(BlockingIOError):
        victim.accept()
    account(outward.check(callers))


TRICKS = {
    "a URL as the upstream": ("http://169.254.169.254", "latest"),
    "an upstream that the project has not": ("metadata", "latest"),
    "a path upwards": ("u0", "../../admin"),
    "a line break": ("u0", "m\r\nHost: evil"),
    "an address in the model's name": ("u0", "@169.254.169.254/"),
    "no upstream": ("", "m"),
    "a slash in the upstream": ("u0/..", "m"),
}


@pytest.mark.serving("registration with")
@pytest.mark.parametrize("case", TRICKS)
async def test_a_registration_never_says_where_requests_go(outward, victim, tmp_path: Path, account, case: str) -> None:
    upstream, model = TRICKS[case]
    deployed = ExternalModel(upstream=upstream, model=model, wire=Wire.OPENAI)
    version = ModelVersion(
        name="hasty-assistant", version="2", flavor=Flavor.EXTERNAL, uri="", run_id="", checksum="", source="",
        licence="", created_at=datetime.now(UTC), tags=deployed.tags,
    )  # fmt: skip
    host, callers = ExternalHost(tmp_path, lambda: outward.settings.project.upstreams), outward.callers(f"r {case}")
    try:
        url = host.start(version)
    except NoriaError:
        url = f"upstream:{upstream}/{model}"  # as if it had come into the state all the same
    outward.route("hasty-assistant", url, version=f"2-{len(outward.rows())}")
    while True:
        told = await callers.chat("hello", endpoint="hasty-assistant", stream=False)
        if told.headers.get("x-noria-version") == f"hasty-assistant/2-{len(outward.rows())}":
            break
        await asyncio.sleep(0.05)
    await outward.settle()
    assert (told.status, told.json["error"]["code"] in ("unknown_upstream", "forbidden_address")) == (503, True)
    with pytest.raises(BlockingIOError):
        victim.accept()
    account(outward.check(callers))
