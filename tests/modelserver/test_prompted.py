"""Prompt versions behind the model server's HTTP face: chats that go on to a base, and what comes back as it comes."""

from typing import Any

import pytest

from fakes.asgi import Caller, Reply
from fakes.prompts import RuleBase, prompt
from fakes.upstream import FakeUpstream, Script, Step, talker
from noria.adapters.prompts.asking import Prompted
from noria.domain.errors import UpstreamFailed
from noria.domain.prompt import Base
from noria.modelserver.app import App
from noria.modelserver.batching import Answer, Batcher
from noria.modelserver.prompted import Passage

ASK = b'{"messages": [{"role": "user", "content": "Hello"}], "temperature": 1%s}'


def app(base: FakeUpstream) -> App:
    made = prompt(Base(upstream="lab", model="m-1"), parameters={"temperature": 0, "max_tokens": 9})
    passage = Passage(Prompted(made, RuleBase({})), base)
    batcher = Batcher(lambda call: Answer(call.rows))
    batcher.close()
    return App(batcher, chats=True, passage=passage)


async def ask(made: App, body: bytes, path: str = "/v1/chat/completions") -> Reply:
    reply = Reply()
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "headers": []}
    await made(scope, Caller(body).receive, reply.send)
    return reply


async def test_a_chat_goes_on_with_the_versions_messages_and_its_parameters_where_the_caller_gave_none() -> None:
    base = FakeUpstream({"unix:/nowhere": talker("Arr")})
    reply = await ask(app(base), ASK % b"")
    assert (reply.status, reply.json["choices"][0]["message"]["content"]) == (200, "Arr")
    [(_, asked)] = base.asked
    assert asked.json == {
        "messages": [{"role": "system", "content": "Talk like a pirate."}, {"role": "user", "content": "Hello"}],
        "temperature": 1,
        "max_tokens": 9,
        "model": "m-1",
    }


async def test_a_stream_comes_through_as_it_is() -> None:
    base = FakeUpstream({"unix:/nowhere": talker("A", "rr")})
    reply = await ask(app(base), ASK % b', "stream": true', path="/invocations")
    assert reply.headers[b"content-type"] == b"text/event-stream"
    assert reply.body.count(b"data: ") == 5
    assert reply.body.endswith(b"data: [DONE]\n\n")


async def test_what_the_base_refuses_reaches_the_caller() -> None:
    base = FakeUpstream({"unix:/nowhere": lambda _: Script(429, (b'{"error": "slow down"}',))})
    reply = await ask(app(base), ASK % b"")
    assert (reply.status, reply.json) == (429, {"error": "slow down"})


async def test_half_an_answer_is_not_taken_for_a_whole_one() -> None:
    base = FakeUpstream({"unix:/nowhere": lambda _: Script(200, (b"half", Step.CUT))})
    with pytest.raises(UpstreamFailed):
        await ask(app(base), ASK % b"")


@pytest.mark.parametrize("body", [b"{", b'{"messages": []}'])
async def test_what_is_no_chat_is_refused(body: bytes) -> None:
    reply = await ask(app(FakeUpstream()), body)
    assert (reply.status, reply.json["error_code"]) == (400, "BAD_REQUEST")


async def test_a_base_that_is_gone_is_told() -> None:
    assert (await ask(app(FakeUpstream()), ASK % b"")).status == 500
