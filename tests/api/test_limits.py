"""Limits as callers meet them: told ahead, refused in time, recorded, and never at a model's cost."""

import asyncio

import openai
import pytest

from fakes.site import running, until
from fakes.story import PROJECT
from fakes.upstream import Step, chat, events, labels, reply, talker
from noria.adapters.clock import SystemClock
from noria.domain.inference import Outcome
from noria.domain.limits import Limits
from noria.governance import keys
from noria.settings import Limits as LimitsSetting

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(autouse=True)
def still(monkeypatch):
    """A clock that stands still: nothing flows off while a test looks. `still(seconds)` moves it."""
    at = [SystemClock().now_us()]
    monkeypatch.setattr(SystemClock, "now_us", lambda _: at[0])

    def wait(seconds: float) -> None:
        at[0] += int(seconds * 1_000_000)

    return wait


@pytest.fixture
async def site(tmp_path):
    async with running(tmp_path, labels, talker("Hel", "lo", "!")) as made:
        yield made


async def key(site, name="shop", **limits) -> str:
    """A new key's token, once the app knows it."""
    made, token = keys.create(site.state, SystemClock(), name, "ada", limits=Limits(**limits))
    await until(lambda: made.hash in (site.router.snapshot.keys or {}))
    return token


def client(site, token: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{site.url}/v1", api_key=token, max_retries=0)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def used(site, token: str):
    """The meter of the key with that token."""
    [key] = [k for h, k in site.router.snapshot.keys.items() if h == keys.digest(token)]
    return site.meters.read(f"key:{key.id}")


async def test_without_limits_nothing_is_counted_and_nothing_said(site):
    _, _, headers = await site.post("/predict", {"input": "a"})
    token = await key(site)
    _, _, more = await site.post("/predict", {"input": "a"}, headers=bearer(token))
    assert not [name for name in (*headers, *more) if name.lower().startswith("x-ratelimit")]
    assert site.meters.changes == 0


async def test_a_caller_sees_his_limit_come_and_is_refused_in_the_clients_own_words(site):
    async with client(site, await key(site, requests_per_minute=2)) as shop:
        ask = shop.chat.completions.with_raw_response.create
        told = [(await ask(model="assistant", messages=HELLO)).headers for _ in range(2)]
        assert [headers["x-ratelimit-limit-requests"] for headers in told] == ["2", "2"]
        assert [headers["x-ratelimit-remaining-requests"] for headers in told] == ["1", "0"]
        assert told[0]["x-ratelimit-reset-requests"] == "30s"
        assert "x-ratelimit-limit-tokens" not in told[0]
        with pytest.raises(openai.RateLimitError, match="may use 2 requests per minute") as caught:
            await ask(model="assistant", messages=HELLO)
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.body["type"] == "requests"
    headers = caught.value.response.headers
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["retry-after"] == "30"
    assert site.endings == [("answered", 200), ("answered", 200), ("rejected", 429)]
    assert site.intents[2].requester == "shop"
    assert site.intents[2].errors == ("rate_limited",)


async def test_a_refused_request_calls_no_model(tmp_path):
    asked = []

    def handle(request):
        asked.append(request)
        return labels(request)

    async with running(tmp_path, handle) as site:
        headers = bearer(await key(site, requests_per_minute=1))
        assert [(await site.post("/predict", {"input": "a"}, headers=headers))[0] for _ in range(5)] == [200] + [
            429
        ] * 4
        assert len(asked) == 1


async def test_of_many_at_once_no_more_than_the_limit_pass(site):
    headers = bearer(await key(site, requests_per_minute=5))
    answers = await asyncio.gather(*(site.post("/predict", {"input": "a"}, headers=headers) for _ in range(30)))
    assert sorted(status for status, _, _ in answers) == [200] * 5 + [429] * 25


async def test_tokens_are_set_aside_and_then_counted_as_they_were_used(site):
    token = await key(site, tokens_per_minute=1000)
    async with client(site, token) as shop:
        answer = await shop.chat.completions.with_raw_response.create(model="assistant", messages=HELLO, max_tokens=500)
        assert int(answer.headers["x-ratelimit-remaining-tokens"]) < 500
        assert (await used(site, token)).tokens == 10  # 7 + 3, as the model server says
        with pytest.raises(openai.RateLimitError, match="may use 1000 tokens per minute, and this request") as caught:
            await shop.chat.completions.create(model="assistant", messages=HELLO, max_tokens=1000)
        assert "retry-after" not in caught.value.response.headers
        stream = await shop.chat.completions.create(model="assistant", messages=HELLO, max_tokens=900, stream=True)
        assert len([chunk async for chunk in stream]) >= 3
        assert (await used(site, token)).tokens == 20


async def test_a_stream_says_how_its_caller_stands(site):
    async with client(site, await key(site, requests_per_minute=10)) as shop:
        answer = await shop.chat.completions.with_raw_response.create(model="assistant", messages=HELLO, stream=True)
        assert answer.headers["x-ratelimit-remaining-requests"] == "9"
        async for _ in answer.parse():
            pass


async def test_a_stream_that_its_caller_leaves_is_counted_by_what_was_said(tmp_path):
    hang = events(*chat("word " * 100)[:2], done=False, then=(Step.HANG,))
    async with running(tmp_path, labels, lambda _: hang) as site:
        token = await key(site, tokens_per_minute=10_000)
        async with client(site, token) as shop:
            stream = await shop.chat.completions.create(model="assistant", messages=HELLO, stream=True)
            await anext(aiter(stream))
            await stream.close()
        assert await site.ended() == [("disconnected", 200)]
        assert (await used(site, token)).tokens > 100


async def test_a_request_that_could_not_be_answered_costs_no_tokens(tmp_path):
    async with running(tmp_path, labels, lambda _: reply({"error": {"message": "down"}}, 500)) as site:
        token = await key(site, tokens_per_minute=1000)
        async with client(site, token) as shop:
            with pytest.raises(openai.APIStatusError):
                await shop.chat.completions.create(model="assistant", messages=HELLO, max_tokens=900)
            with pytest.raises(openai.BadRequestError):
                await shop.chat.completions.create(model="assistant", messages=[], max_tokens=900)
        assert (await used(site, token)).tokens == 0


async def test_an_endpoints_limit_holds_for_all_keys_together_and_for_no_key(tmp_path):
    limited = PROJECT.endpoints["triage"].model_copy(update={"limits": LimitsSetting(requests_per_minute=3)})
    project = PROJECT.model_copy(update={"endpoints": {**PROJECT.endpoints, "triage": limited}})
    async with running(tmp_path, labels, talker("hi"), project=project) as site:
        status, _, headers = await site.post("/predict", {"input": "a"})
        assert (status, headers["x-ratelimit-remaining-requests"]) == (200, "2")
        a, b = bearer(await key(site, "a", requests_per_minute=100)), bearer(await key(site, "b"))
        assert (await site.post("/predict", {"input": "a"}, headers=a))[2]["x-ratelimit-remaining-requests"] == "1"
        assert (await site.post("/predict", {"input": "a"}, headers=b))[0] == 200
        status, said, headers = await site.post("/predict", {"input": "a"}, headers=a)
        assert (status, said["error_code"]) == (429, "rate_limited")
        assert said["message"].startswith("The endpoint triage may use 3 requests per minute")
        assert headers["x-ratelimit-limit-requests"] == "3"
        assert (await site.post("/predict/assistant", {"input": "a"}, headers=b))[0] == 200


async def test_who_waits_as_long_as_retry_after_says_is_answered(site, still):
    headers = bearer(await key(site, requests_per_minute=1))
    assert (await site.post("/predict", {"input": "a"}, headers=headers))[0] == 200
    status, _, told = await site.post("/predict", {"input": "a"}, headers=headers)
    assert status == 429
    still(int(told["retry-after"]))
    assert (await site.post("/predict", {"input": "a"}, headers=headers))[0] == 200
    assert [o.status for o in site.written(Outcome)] == [200, 429, 200]
