"""Answers in one write, over a real socket, beside uvicorn's own way."""

import asyncio
from types import SimpleNamespace

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from noria.adapters.uvicorn import Turn, write_whole
from noria.api.messages import respond


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True


def cycle(method: str = "POST", *, keep_alive: bool = True, paused: bool = False) -> RequestResponseCycle:
    async def drain() -> None:
        made.flow.write_paused = False

    made = RequestResponseCycle(
        scope={"method": method},
        transport=Wire(),
        flow=SimpleNamespace(write_paused=paused, drain=drain),
        logger=None,
        access_logger=None,
        access_log=False,
        default_headers=[(b"date", b"now")],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=keep_alive,
        on_response=lambda: None,
    )
    return made


def turn(*, keep_alive: bool = True, paused: bool = False) -> Turn:
    """The same on the short way."""

    async def drain() -> None:
        protocol.flow.write_paused = False

    protocol = SimpleNamespace(
        parser=SimpleNamespace(should_keep_alive=lambda: keep_alive),
        flow=SimpleNamespace(write_paused=paused, drain=drain),
        transport=Wire(),
        server_state=SimpleNamespace(default_headers=[(b"date", b"now")]),
        on_response_complete=lambda: None,
    )
    return Turn(protocol, "/v1/chat/completions", [], b"")


async def answered(made: RequestResponseCycle, **more) -> list[bytes]:
    await respond(made.send, "r1", 200, b"{}", **more)
    assert made.response_complete
    return made.transport.written


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("headers", [(), (("retry-after", "3"), ("x-empty", "")), (("connection", "close"),)])
async def test_one_write_says_what_two_would_have_said(keep_alive, headers):
    once = await answered(cycle(keep_alive=keep_alive), headers=headers)
    twice = cycle(keep_alive=keep_alive, paused=True)
    assert once == [b"".join(await answered(twice, headers=headers))]
    assert len(twice.transport.written) == 2


async def test_a_header_that_would_be_two_is_left_to_uvicorn_which_refuses_it():
    made = cycle()
    with pytest.raises(RuntimeError, match="header"):
        await respond(made.send, "r1", 200, b"{}", headers=(("x-evil", "a\r\nset-cookie: b"),))
    assert made.transport.written == []


async def test_a_caller_who_left_and_a_server_that_is_not_uvicorn_are_left_alone():
    gone = cycle()
    gone.disconnected = True
    assert not write_whole(gone.send, 200, [], b"")
    assert not write_whole(lambda _: None, 200, [], b"")
    assert not write_whole(cycle("HEAD").send, 200, [], b"")


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("paused", [True, False])
@pytest.mark.parametrize("headers", [(), (("retry-after", "3"), ("x-empty", "")), (("connection", "close"),)])
async def test_the_short_way_says_the_same_whether_the_caller_has_to_be_waited_for_or_not(keep_alive, paused, headers):
    short = turn(keep_alive=keep_alive, paused=paused)
    await respond(short, "r1", 200, b"{}", headers=headers)
    assert short.response_complete
    wire = short._protocol.transport
    assert b"".join(wire.written) == b"".join(await answered(cycle(keep_alive=keep_alive), headers=headers))
    assert wire.closed is (not keep_alive or (bool(headers) and headers[0][0] == "connection"))


async def test_a_header_that_would_be_two_is_refused_on_the_short_way():
    for paused in (True, False):
        short = turn(paused=paused)
        with pytest.raises(RuntimeError, match="header"):
            await respond(short, "r1", 200, b"{}", headers=(("x-evil", "a\r\nset-cookie: b"),))
        assert short._protocol.transport.written == []
