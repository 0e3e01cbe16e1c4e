"""What every Upstream keeps to."""

import asyncio
from contextlib import asynccontextmanager

import pytest
import uvloop

from fakes.credentials import FixedCredentials
from fakes.upstream import FakeUpstream, Script, Step, labels, listening, reply
from noria.adapters.upstreams.both import ProjectUpstream
from noria.adapters.upstreams.own import HttpUpstream
from noria.domain.errors import UpstreamFailed, UpstreamTimeout
from noria.settings import Upstream


class Fake:
    """The port without sockets."""

    def __init__(self, _folder):
        self.upstream = FakeUpstream()

    @asynccontextmanager
    async def server(self, handler):
        self.upstream.servers["unix:/fake.sock"] = handler
        yield "unix:/fake.sock"
        del self.upstream.servers["unix:/fake.sock"]


class Http:
    """The adapter, against a real server on a unix socket."""

    def __init__(self, folder):
        self.upstream, self.folder = HttpUpstream(), folder

    @asynccontextmanager
    async def server(self, handler):
        async with listening(handler, self.folder) as url:
            yield url


class Elsewhere:
    """The adapter for upstreams of the project, against a real server on a TCP port."""

    def __init__(self, folder):
        self.upstreams = {}
        self.upstream = ProjectUpstream(HttpUpstream(), lambda: self.upstreams, FixedCredentials())

    @asynccontextmanager
    async def server(self, handler):
        async with listening(handler) as url:
            double = Upstream(kind="mlflow", url=url, auth="none", private=True)
            self.upstreams = {"double": double}
            yield "upstream:double/m"


@pytest.fixture(params=[Fake, Http, Elsewhere])
async def world(request, tmp_path):
    made = request.param(tmp_path)
    yield made
    await made.upstream.aclose()


async def ask(world, url, body=b"{}", timeout_s=5.0):
    return await world.upstream.post(url, "/invocations", body, {"content-type": "application/json"}, timeout_s)


async def whole(reply) -> bytes:
    return b"".join([piece async for piece in reply.chunks])


async def test_a_server_gets_path_body_and_headers_untouched_and_its_answer_comes_back(world):
    seen = []

    def handle(asked):
        seen.append(asked)
        return Script(201, (b"one", b"two"), headers={"retry-after": "3"})

    async with world.server(handle) as url:
        got = await ask(world, url, b'{"inputs": [1]}')
        assert await whole(got) == b"onetwo"
    assert (got.status, got.headers["content-type"], got.headers["retry-after"]) == (201, "application/json", "3")
    assert (seen[0].path, seen[0].body) == ("/invocations", b'{"inputs": [1]}')
    assert seen[0].headers["content-type"] == "application/json"


async def test_many_requests_at_a_time_get_each_its_own_answer(world):
    async with world.server(labels) as url:
        replies = await asyncio.gather(*(ask(world, url, b'{"inputs": ["a%d"]}' % n) for n in range(50)))
        bodies = [await whole(r) for r in replies]
    assert bodies == [b'{"predictions":["A%d"]}' % n for n in range(50)]


async def test_where_nobody_listens_the_request_was_surely_not_sent(world, tmp_path):
    with pytest.raises(UpstreamFailed) as caught:
        await ask(world, f"unix:{tmp_path}/nobody.sock")
    assert caught.value.sent is False
    assert not isinstance(caught.value, UpstreamTimeout)


async def test_a_server_that_breaks_off_before_it_answers_may_have_got_the_request(world):
    async with world.server(lambda _: Script(before=Step.CUT)) as url:
        with pytest.raises(UpstreamFailed) as caught:
            await ask(world, url)
    assert caught.value.sent is True


async def test_a_body_that_breaks_off_is_an_error_and_not_an_end(world):
    async with world.server(lambda _: Script(pieces=(b"half", Step.CUT))) as url:
        got = await ask(world, url)
        assert await anext(got.chunks) == b"half"
        with pytest.raises(UpstreamFailed):
            await anext(got.chunks)
        await got.chunks.aclose()


async def test_what_is_not_http_is_an_error(world):
    async with world.server(lambda _: Script(before=b"SSH-2.0-OpenSSH_9.2\r\n")) as url:
        with pytest.raises(UpstreamFailed) as caught:
            await ask(world, url)
    assert caught.value.sent is True


async def test_a_server_that_says_nothing_takes_too_long(world):
    async with world.server(lambda _: Script(before=Step.HANG)) as url:
        with pytest.raises(UpstreamTimeout) as caught:
            await ask(world, url, timeout_s=0.05)
    assert caught.value.sent is True


async def test_the_timeout_holds_until_the_last_byte(world):
    async with world.server(lambda _: Script(pieces=(b"half", Step.HANG))) as url:
        got = await ask(world, url, timeout_s=0.2)
        with pytest.raises(UpstreamTimeout):
            await whole(got)
        await got.chunks.aclose()


async def test_closing_a_body_lets_the_server_know_that_nobody_listens(world):
    script = Script(pieces=(b"first", Step.HANG))
    async with world.server(lambda _: script) as url:
        got = await ask(world, url)
        assert await anext(got.chunks) == b"first"
        await got.chunks.aclose()
        await asyncio.wait_for(script.gone.wait(), 5)


async def test_a_task_that_is_cancelled_while_it_waits_lets_the_server_know(world):
    arrived, script = asyncio.Event(), Script(before=Step.HANG)

    def handle(_):
        arrived.set()
        return script

    async with world.server(handle) as url:
        waiting = asyncio.create_task(ask(world, url))
        await asyncio.wait_for(arrived.wait(), 5)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.wait_for(script.gone.wait(), 5)


async def test_a_redirect_is_an_answer_and_is_not_followed(world):
    async with world.server(lambda _: Script(302, headers={"location": "http://127.0.0.1:1/"})) as url:
        got = await ask(world, url)
        await got.chunks.aclose()
    assert got.status == 302


async def test_it_can_be_asked_whether_anything_listens(world, tmp_path):
    async with world.server(lambda _: reply({})) as url:
        assert await world.upstream.reachable(url) is True
    assert await world.upstream.reachable(f"unix:{tmp_path}/nobody.sock") is False


async def test_the_adapter_reaches_servers_over_tcp_too():
    upstream = HttpUpstream()
    async with listening(lambda _: reply("ok")) as url:
        got = await upstream.post(url, "/x", b"", {}, 5.0)
        assert await whole(got) == b'"ok"'
        assert await upstream.reachable(url)
    with pytest.raises(UpstreamFailed) as caught:
        await upstream.post(url, "/x", b"", {}, 5.0)
    assert caught.value.sent is False
    assert not await upstream.reachable(url)
    await upstream.aclose()


def test_connections_that_never_came_about_are_not_waited_for_at_the_end(tmp_path):
    async def ask_nobody():
        upstream = HttpUpstream()
        for url in (f"unix:{tmp_path}/nobody.sock", "http://127.0.0.1:1"):
            with pytest.raises(UpstreamFailed):
                await upstream.post(url, "/invocations", b"{}", {}, 1.0)
        async with asyncio.timeout(5):
            await upstream.aclose()

    with asyncio.Runner(
        loop_factory=uvloop.new_event_loop
    ) as runner:  # the API's loop makes a protocol before it connects
        runner.run(ask_nobody())


def test_callers_who_leave_while_a_connection_is_made_leave_none_behind(tmp_path):
    async def leave_early():
        upstream = HttpUpstream()
        async with listening(lambda _: reply("ok"), tmp_path) as url:
            for spins in range(12):
                asking = asyncio.create_task(upstream.post(url, "/x", b"", {}, 5.0))
                for _ in range(spins):
                    await asyncio.sleep(0)
                asking.cancel()
                await asyncio.wait([asking])
            await asyncio.sleep(0.05)
            pool = upstream._pools[url]
            assert pool._connections == set(pool._idle)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(leave_early())
