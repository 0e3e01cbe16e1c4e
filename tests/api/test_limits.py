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
from noria.settings import Price

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


# --- money ---


def priced(**more):
    """A project whose assistant costs a dollar for each token of its answers, and a cent for each that it reads."""
    price = Price(input=10_000, output=1_000_000, cached_input=0)
    assistant = PROJECT.endpoints["assistant"].model_copy(update={"price": price, **more})
    return PROJECT.model_copy(update={"endpoints": {**PROJECT.endpoints, "assistant": assistant}})


async def test_what_an_answer_cost_is_recorded_and_counted_for_its_key(tmp_path):
    async with running(tmp_path, labels, talker("Hel", "lo", "!"), project=priced()) as site:
        token = await key(site)
        async with client(site, token) as shop:
            await shop.chat.completions.create(model="assistant", messages=HELLO)
            async for _ in await shop.chat.completions.create(model="assistant", messages=HELLO, stream=True):
                pass
        await site.post("/predict/triage", {"input": "a"}, headers=bearer(token))
        assert [o.cost_usd for o in site.written(Outcome)] == [pytest.approx(3.07), pytest.approx(3.07), 0.0]
        assert (await used(site, token)).usd == pytest.approx(6.14)


async def test_tokens_that_the_provider_had_in_its_cache_cost_less(tmp_path):
    usage = {"prompt_tokens": 100, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 60}}
    said = {
        "id": "c",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"content": "x"}}],
        "usage": usage,
    }
    async with running(tmp_path, labels, lambda _: reply(said), project=priced()) as site:
        await site.post("/v1/chat/completions", {"model": "assistant", "messages": HELLO})
        assert site.written(Outcome)[0].cost_usd == pytest.approx(1.40)


async def test_a_budget_that_is_spent_ends_the_day(tmp_path, still):
    async with running(tmp_path, labels, talker("Hel", "lo", "!"), project=priced()) as site:
        token = await key(site, usd_per_day=5.0)
        async with client(site, token) as shop:
            await shop.chat.completions.create(model="assistant", messages=HELLO)
            await shop.chat.completions.create(model="assistant", messages=HELLO)  # $3.07 of $5 were spent
            with pytest.raises(
                openai.RateLimitError, match=r"budget of \$5 a day, and it is spent.*T00:00:00"
            ) as caught:
                await shop.chat.completions.create(model="assistant", messages=HELLO)
            assert (caught.value.code, caught.value.body["type"]) == ("insufficient_quota", "insufficient_quota")
            wait_s = int(caught.value.response.headers["retry-after"])
            assert 0 < wait_s <= 86_400
            assert site.endings[-1] == ("rejected", 429)
            still(wait_s)
            await shop.chat.completions.create(model="assistant", messages=HELLO)


async def test_what_a_request_may_cost_is_set_aside_so_that_many_at_once_overdraw_nothing(tmp_path):
    async with running(tmp_path, labels, talker("Hel", "lo", "!"), project=priced()) as site:
        async with client(site, await key(site, usd_per_day=10.0)) as shop:
            asked = [shop.chat.completions.create(model="assistant", messages=HELLO, max_tokens=3) for _ in range(10)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
        refused = [a for a in answers if isinstance(a, openai.RateLimitError)]
        assert len(refused) == 10 - len(site.endings) + sum(status == 429 for _, status in site.endings)
        assert sum(o.cost_usd or 0 for o in site.written(Outcome)) <= 10.0
        assert any("of it is left, and this request may cost" in str(r) for r in refused)


async def test_an_endpoints_budget_counts_everybody(tmp_path):
    project = priced(limits=LimitsSetting(usd_per_day=5))
    async with running(tmp_path, labels, talker("Hel", "lo", "!"), project=project) as site:
        for _ in range(2):
            assert (await site.post("/predict/assistant", {"input": "hi"}))[0] == 200
        status, said, _ = await site.post("/predict/assistant", {"input": "hi"})
        assert (status, said["error_code"]) == (429, "budget_exhausted")
        assert said["message"].startswith("The endpoint assistant has a budget of $5 a day")
        assert site.meters.read("endpoint:assistant").usd == pytest.approx(6.14)
        assert (await site.post("/predict/triage", {"input": "hi"}))[0] == 200


async def test_an_answer_whose_tokens_nobody_counted_costs_the_budget_by_its_length(tmp_path):
    said = {"id": "c", "object": "chat.completion", "choices": [{"index": 0, "message": {"content": "x" * 400}}]}
    async with running(tmp_path, labels, lambda _: reply(said), project=priced()) as site:
        token = await key(site, usd_per_day=1000.0)
        async with client(site, token) as shop:
            await shop.chat.completions.create(model="assistant", messages=HELLO)
        assert site.written(Outcome)[0].cost_usd is None
        assert (await used(site, token)).usd > 100
