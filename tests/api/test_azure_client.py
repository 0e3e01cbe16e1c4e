"""OpenAI's own client for Azure works unchanged, over the classic paths and over v1."""

import asyncio
import json

import openai
import pytest
import yarl
from pydantic import BaseModel

from fakes.site import running
from fakes.upstream import chat, completion, events, labels, reply, talker
from noria.domain.inference import Outcome

HELLO = [{"role": "user", "content": "hello"}]
JSON = {"content-type": "application/json"}
VERSION = "2024-10-21"
MORE = {"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


class Person(BaseModel):
    """A shape to answer in."""

    name: str


def azure(site, **more) -> openai.AsyncAzureOpenAI:
    return openai.AsyncAzureOpenAI(
        azure_endpoint=site.url, api_version=VERSION, api_key="unused", max_retries=0, **more
    )


@pytest.fixture
async def site(tmp_path):
    async with running(tmp_path, labels, talker("Hel", "lo", "!")) as made:
        yield made


@pytest.fixture
async def client(site):
    async with azure(site) as made:
        yield made


async def test_a_deployment_is_an_endpoint(site, client):
    raw = await client.chat.completions.with_raw_response.create(model="assistant", messages=HELLO, user="u1")
    assert raw.parse().choices[0].message.content == "Hello!"
    assert raw.headers["x-request-id"] == site.intents[0].request_id
    assert raw.headers["x-noria-version"] == "assistant/1"
    assert (site.intents[0].endpoint, site.endings) == ("assistant", [("answered", 200)])


async def test_the_path_names_the_endpoint_whatever_the_body_says(site):
    async with azure(site, azure_deployment="assistant") as client:
        answer = await client.chat.completions.create(model="gpt-4o", messages=HELLO)
        assert answer.choices[0].message.content == "Hello!"
    status, answer, _ = await site.post("/openai/deployments/assistant/chat/completions", {"messages": HELLO})
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "Hello!")
    assert [i.endpoint for i in site.intents] == ["assistant", "assistant"]


async def test_a_stream_comes_with_its_usage_to_whoever_asks_for_it(site, client):
    options = {"include_usage": True}
    stream = await client.chat.completions.create(
        model="assistant", messages=HELLO, stream=True, stream_options=options
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello!"
    assert [c.usage.completion_tokens for c in chunks if c.usage] == [3]
    assert json.loads(site.written(Outcome)[0].response)["choices"][0]["message"]["content"] == "Hello!"


async def test_the_synchronous_client_works_with_a_key_and_with_an_entra_token(site):
    def talk(**credentials) -> tuple[str, str, list[str]]:
        with openai.AzureOpenAI(azure_endpoint=site.url, api_version=VERSION, max_retries=0, **credentials) as client:
            whole = client.chat.completions.create(model="assistant", messages=HELLO)
            parts = client.chat.completions.create(model="assistant", messages=HELLO, stream=True)
            streamed = "".join(c.choices[0].delta.content or "" for c in parts)
            return whole.choices[0].message.content, streamed, [m.id for m in client.models.list()]

    expected = ("Hello!", "Hello!", ["assistant"])
    assert await asyncio.to_thread(talk, api_key="k") == expected
    assert await asyncio.to_thread(talk, azure_ad_token_provider=lambda: "t") == expected


async def test_the_v1_paths_work_without_an_api_version(site):
    async with openai.AsyncOpenAI(base_url=f"{site.url}/openai/v1/", api_key="k", max_retries=0) as client:
        answer = await client.chat.completions.create(model="assistant", messages=HELLO)
        assert answer.choices[0].message.content == "Hello!"
        assert [m.id async for m in client.models.list()] == ["assistant"]
        assert (await client.models.retrieve("assistant")).id == "assistant"


async def test_deployments_and_models_are_listed(site, client):
    assert [m.id async for m in client.models.list()] == ["assistant"]
    assert (await client.models.retrieve("assistant")).owned_by == "noria"
    _, body, _ = await site.get("/openai/deployments?api-version=2022-12-01")
    assert [(d["id"], d["model"], d["status"]) for d in json.loads(body)["data"]] == [
        ("assistant", "assistant", "succeeded")
    ]


async def test_completions_and_embeddings_reach_the_model(tmp_path):
    def handle(asked):
        if asked.path == "/v1/embeddings":
            data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
            return reply({"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 2}})
        choice = {"index": 0, "text": asked.json["prompt"] + "!", "finish_reason": "stop"}
        return reply({"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]})

    async with running(tmp_path, labels, handle) as site, azure(site) as client:
        assert (await client.completions.create(model="assistant", prompt="hi")).choices[0].text == "hi!"
        vector = await client.embeddings.create(model="assistant", input="hi", encoding_format="float")
        assert vector.data[0].embedding == [0.5, 0.25]


def spoken(delta, finish=None):
    """A chunk of a stream."""
    return [{**chat("")[0], "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}]


def plain(site) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{site.url}/v1", api_key="unused", max_retries=0)


@pytest.mark.parametrize("connected", [azure, plain])
async def test_tools_and_shapes_and_all_that_a_model_may_know_reach_it_untouched(tmp_path, connected):
    asked_for = []

    def handle(asked):
        asked_for.append(asked.json)
        if asked.json.get("tools"):
            call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":'}}
            return events(*spoken({"tool_calls": [call]}), *spoken(MORE), *spoken({}, "tool_calls"))
        message = {"role": "assistant", "content": '{"name": "Ada"}'}
        token = {"token": "A", "logprob": -0.5, "bytes": [65], "top_logprobs": []}
        choice = {"message": message, "finish_reason": "stop", "logprobs": {"content": [token]}}
        return reply({**completion(""), "choices": [{"index": n, **choice} for n in range(2)]})

    async with running(tmp_path, labels, handle) as site, connected(site) as client:
        parsed = await client.chat.completions.parse(
            model="assistant", messages=HELLO, response_format=Person, n=2, logprobs=True, stop=["x"], seed=7,
            extra_body={"min_p": 0.1},
        )  # fmt: skip
        assert [c.message.parsed.name for c in parsed.choices] == ["Ada", "Ada"]
        assert parsed.choices[0].logprobs.content[0].logprob == -0.5
        assert asked_for[0]["response_format"]["json_schema"]["name"] == "Person"
        assert [asked_for[0][key] for key in ("n", "logprobs", "stop", "seed", "min_p")] == [2, True, ["x"], 7, 0.1]
        async with client.chat.completions.stream(model="assistant", messages=HELLO, tools=[TOOL]) as stream:
            final = await stream.get_final_completion()
        call = final.choices[0].message.tool_calls[0]
        assert (call.id, call.function.name, call.function.arguments) == ("c1", "add", '{"a": 1}')
        recorded = json.loads(site.written(Outcome)[1].response)["choices"][0]["message"]["tool_calls"][0]
        assert recorded["function"] == {"name": "add", "arguments": '{"a": 1}'}


async def test_problems_are_told_as_openais_clients_read_them(site, client):
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="nope", messages=HELLO)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="is a model that predicts"):
        await client.chat.completions.create(model="triage", messages=HELLO)
    with pytest.raises(openai.NotFoundError) as caught:
        await client.images.generate(model="assistant", prompt="a cat")
    assert caught.value.body["code"] == "not_found"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nope")
    status, body, _ = await site.get("/openai/deployments/assistant/chat/completions")
    assert (status, json.loads(body)["error"]["code"]) == (405, "method_not_allowed")


TRICKS = (
    *("..", "%2e%2e", "a%2fb", "..%2f..%2fetc%2fpasswd", "%00", "a%00b", "x" * 5000),
    *("%ff%fe", "%C3%BC", "%F0%9F%98%80", "a%20b", "%7Bendpoint%7D", "%7B%7B7*7%7D%7D", "%0d%0ax-evil:%201"),
)


@pytest.mark.parametrize(
    "path",
    [
        "/predict/{}",
        "/endpoints/{}/invocations",
        "/serving-endpoints/{}/invocations",
        "/openai/deployments/{}/chat/completions",
        "/openai/deployments/{}",
        "/v1/models/{}",
        "/api/2.0/endpoints/{}",
    ],
)
async def test_tricks_in_names_find_nothing_and_leave_nothing(site, path):
    for name in TRICKS:
        url = yarl.URL(site.url + path.format(name), encoded=True)
        for method, body in (("POST", b'{"input": "a"}'), ("GET", None)):
            async with site.http.request(method, url, data=body, headers=JSON) as response:
                assert response.status in (404, 405), name
                problem = await response.json()
                assert "error_code" in problem or "error" in problem
                assert "x-evil" not in response.headers
    assert site.intents == []
