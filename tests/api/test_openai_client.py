"""OpenAI's own Python client works unchanged: sync, async, streaming, and when something goes wrong."""

import asyncio
import json

import openai
import pytest

from fakes.site import running
from fakes.upstream import chat, events, labels, reply, talker
from noria.domain.inference import Outcome

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def site(tmp_path):
    async with running(tmp_path, labels, talker("Hel", "lo", "!")) as made:
        yield made


@pytest.fixture
async def client(site):
    async with openai.AsyncOpenAI(base_url=f"{site.url}/v1", api_key="unused", max_retries=0) as made:
        yield made


async def test_a_chat_is_answered_and_recorded(site, client):
    answer = await client.chat.completions.create(model="assistant", messages=HELLO, metadata={"user": "u1"})
    assert answer.choices[0].message.content == "Hello!"
    assert answer.usage.completion_tokens == 3
    assert site.intents[0].request_id == answer._request_id
    assert site.intents[0].metadata == {"user": "u1"}
    assert site.endings == [("answered", 200)]


async def test_a_chat_is_streamed_and_recorded_whole(site, client):
    stream = await client.chat.completions.create(model="assistant", messages=HELLO, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Hello!"
    assert all(c.usage is None for c in chunks)
    outcome = site.written(Outcome)[0]
    assert json.loads(outcome.response)["choices"][0]["message"]["content"] == "Hello!"
    assert (outcome.input_tokens, outcome.output_tokens) == (7, 3)
    assert 0 <= outcome.ttft_us <= outcome.duration_us


async def test_the_usage_of_a_stream_comes_to_whoever_asks_for_it(client):
    options = {"include_usage": True}
    stream = await client.chat.completions.create(
        model="assistant", messages=HELLO, stream=True, stream_options=options
    )
    assert [c.usage.completion_tokens async for c in stream if c.usage] == [3]


async def test_the_stream_helper_puts_the_answer_together(client):
    async with client.chat.completions.stream(model="assistant", messages=HELLO) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "Hello!"


async def test_the_synchronous_client_works_too(site):
    def talk() -> tuple[str, str, list[str]]:
        with openai.OpenAI(base_url=f"{site.url}/v1", api_key="unused", max_retries=0) as client:
            whole = client.chat.completions.create(model="assistant", messages=HELLO)
            parts = client.chat.completions.create(model="assistant", messages=HELLO, stream=True)
            streamed = "".join(c.choices[0].delta.content or "" for c in parts)
            return whole.choices[0].message.content, streamed, [m.id for m in client.models.list()]

    assert await asyncio.to_thread(talk) == ("Hello!", "Hello!", ["assistant"])


async def test_models_are_listed_and_found(client):
    assert [m.id async for m in client.models.list()] == ["assistant"]
    assert (await client.models.retrieve("assistant")).owned_by == "noria"
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("nope")
    assert caught.value.code == "model_not_found"


async def test_a_model_that_nobody_knows_is_told_in_the_clients_own_words(client):
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="nope", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "triage, assistant" in caught.value.message


async def test_a_classifier_is_not_for_chatting(client):
    with pytest.raises(openai.BadRequestError, match="/predict/triage"):
        await client.chat.completions.create(model="triage", messages=HELLO)


async def test_no_messages_are_a_bad_request(client):
    with pytest.raises(openai.BadRequestError, match="`messages`"):
        await client.chat.completions.create(model="assistant", messages=[])


async def test_completions_and_embeddings_reach_the_model(tmp_path):
    def handle(asked):
        if asked.path == "/v1/embeddings":
            data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
            return reply({"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 2}})
        choice = {"index": 0, "text": asked.json["prompt"] + "!", "finish_reason": "stop"}
        return reply({"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]})

    async with (
        running(tmp_path, labels, handle) as site,
        openai.AsyncOpenAI(base_url=f"{site.url}/v1", api_key="unused") as client,
    ):
        assert (await client.completions.create(model="assistant", prompt="hi")).choices[0].text == "hi!"
        vector = await client.embeddings.create(model="assistant", input="hi", encoding_format="float")
        assert vector.data[0].embedding == [0.5, 0.25]
        assert site.written(Outcome)[1].input_tokens == 2


async def test_a_stream_that_breaks_is_an_error_to_the_client_and_not_a_short_answer(tmp_path):
    broken = events(*chat("par", "tial")[:2], done=False)
    async with (
        running(tmp_path, labels, lambda _: broken) as site,
        openai.AsyncOpenAI(base_url=f"{site.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        stream = await client.chat.completions.create(model="assistant", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError, match="ended in the middle"):
            [chunk async for chunk in stream]
        assert await site.ended() == [("failed", 200)]


async def test_the_models_own_errors_reach_the_client(tmp_path):
    error = {"error": {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}}
    async with (
        running(tmp_path, labels, lambda _: reply(error, 400)) as site,
        openai.AsyncOpenAI(base_url=f"{site.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="assistant", messages=HELLO, stream=True)
        assert caught.value.code == "context_length_exceeded"
        assert site.endings == [("rejected", 400)]
