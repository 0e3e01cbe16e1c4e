"""Who answers when the version that was picked can't: retries, fallbacks, the breaker, and what the record says."""

import asyncio
import itertools
import json
from dataclasses import replace

import pytest

from fakes.plane import ASSISTANT, TRIAGE, Plane, route, target
from fakes.story import PROJECT
from fakes.upstream import Script, Step, chat, completion, events, labels, listening, reply, talker
from noria.adapters.upstreams.both import ProjectUpstream
from noria.adapters.upstreams.credentials import UpstreamCredentials
from noria.adapters.upstreams.own import HttpUpstream
from noria.domain.endpoint import Role, Wire
from noria.domain.limits import Limits, Meter
from noria.domain.price import Price
from noria.serving.breaker import BreakerState
from noria.serving.limits import DAY_US
from noria.settings import Upstream

ENDPOINTS = PROJECT.endpoints
MORE = PROJECT.model_copy(
    update={
        "endpoints": {
            **ENDPOINTS,
            "spare": ENDPOINTS["assistant"],
            "last": ENDPOINTS["assistant"],
            "backup": ENDPOINTS["triage"],
        }
    }
)
SPARE = route(target("7", model="spare"), endpoint="spare", wire=Wire.OPENAI)
LAST = route(target("9", model="last"), endpoint="last", wire=Wire.OPENAI)
BACKUP = route(target("3", model="backup"), endpoint="backup")
ROUTES = (TRIAGE, ASSISTANT, SPARE, LAST, BACKUP)
URL, X, Y, Z = (one.champion.url for one in (TRIAGE, ASSISTANT, SPARE, LAST))


def plane(servers, *, fallbacks=("spare", "last"), routes=ROUTES, **more) -> Plane:
    made = Plane(servers, routes, project=MORE, **more)
    made.rule("assistant", fallbacks=fallbacks)
    made.rule("triage", fallbacks=("backup",))
    return made


def asked(made: Plane) -> list[str]:
    return [url for url, _ in made.upstream.asked]


async def spoken(answer) -> str:
    assert answer.chunks is not None, answer
    raw = b"".join([chunk async for chunk in answer.chunks]).decode()
    datas = [line.removeprefix("data: ") for line in raw.splitlines() if line]
    assert datas[-1] == "[DONE]", datas[-1]
    choices = [choice for data in datas[:-1] for choice in json.loads(data)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def failing() -> dict[str, Script]:
    """All the ways in which a version can fail before the caller has seen anything."""
    return {
        "500": reply({"error": {"message": "boom"}}, 500),
        "429": reply({"error": {"message": "slow down"}}, 429),
        "503": Script(503),
        "404": Script(404),
        "401": Script(401),
        "garbage": Script(pieces=(b"<html>",)),
        "half an answer": Script(pieces=(b'{"choices": [', Step.CUT)),
        "reset": Script(before=Step.CUT),
        "no http": Script(before=b"SSH-2.0\r\n"),
    }


# --- fallbacks ---


async def test_what_a_stand_in_answers_counts_for_its_own_limits_and_one_that_has_spent_them_is_passed_over():
    made = plane({X: lambda _: Script(503), Y: talker("hi"), Z: talker("bye")})
    made.rule("spare", limits=Limits(requests_per_minute=1, tokens_per_minute=1000))
    counted = [0.0]
    for stream in (False, True):
        answer = await made.chat(stream=stream)
        assert (answer.status, answer.version) == (200, "spare/7")
        if stream:
            await spoken(answer)
        counted.append(made.meters.read("endpoint:spare").tokens)
    assert counted == sorted(set(counted))
    assert made.meters.read("endpoint:spare").requests == 0  # nobody asked for it
    made.meters.values["endpoint:spare"] = Meter(made.clock.now_us(), 0.0, 1000.0, 0, 0.0)
    answer = await made.chat()
    assert (answer.status, answer.version) == (200, "last/9")
    assert "fallback_spent_spare" in made.outcomes[-1].errors
    made.rule("last", limits=Limits(usd_per_day=2.0))
    made.meters.values["endpoint:last"] = Meter(made.clock.now_us(), 0.0, 0.0, made.clock.now_us() // DAY_US, 2.0)
    assert (await made.chat()).status == 503


async def test_a_stand_ins_money_is_spent_from_its_own_budget():
    made = plane({X: lambda _: Script(503), Y: talker("hi")}, fallbacks=("spare",))
    prices = {"assistant": {"spare/7": Price(input=1e6, output=1e6)}}
    made.router.snapshot = replace(made.router.snapshot, prices=prices)
    made.rule("spare", limits=Limits(usd_per_day=1.0))
    answer = await made.chat()
    assert (answer.status, answer.version) == (200, "spare/7")
    assert made.meters.read("endpoint:spare").usd == made.outcomes[-1].cost_usd > 1.0
    assert (await made.chat()).status == 503


@pytest.mark.parametrize("how", failing())
@pytest.mark.parametrize("stream", [False, True])
async def test_another_answers_when_a_version_cannot_and_the_record_says_who_and_why(how, stream):
    made = plane({X: lambda _: replace(failing()[how]), Y: talker("from", " Y")})
    answer = await made.chat(stream=stream)
    assert (answer.status, answer.version) == (200, "spare/7")
    text = await spoken(answer) if stream else json.loads(answer.body)["choices"][0]["message"]["content"]
    assert text == "from Y"
    (intent,), (outcome,) = made.intents, made.outcomes
    assert (intent.endpoint, intent.model, intent.version) == ("assistant", "assistant", "1")
    assert (outcome.kind, outcome.status, outcome.model, outcome.version) == ("answered", 200, "spare", "7")
    assert outcome.errors[-1] == "fallback_from_assistant"
    assert outcome.tries == len(made.upstream.asked)
    assert made.counts.under_way == 0


async def test_one_after_the_other_is_asked_in_the_order_of_the_project_file():
    made = plane({Y: lambda _: Script(500), Z: talker("Z")})
    answer = await made.chat()
    assert answer.version == "last/9"
    assert asked(made) == [Y, Z]
    assert made.outcomes[0].errors == (
        *("upstream_failed", "fallback_from_assistant"),
        *("upstream_failed", "fallback_from_spare"),
    )
    assert made.outcomes[0].tries == 2


async def test_when_nobody_can_answer_the_caller_hears_of_the_version_that_was_picked():
    made = plane({X: lambda _: reply({"error": {"message": "X is broken"}}, 500)})
    answer = await made.chat()
    assert (answer.status, answer.version) == (502, "assistant/1")
    assert b"X is broken" in answer.body
    assert (made.outcomes[0].kind, made.outcomes[0].model) == ("failed", "")


@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_the_callers_mistake_is_his_wherever_it_is_sent(status):
    made = plane({X: lambda _: reply({"error": {"message": "too long"}}, status), Y: talker("Y")})
    assert (await made.chat()).status == status
    assert asked(made) == [X]
    assert [o.kind for o in made.outcomes] == ["rejected"]


async def test_a_request_that_the_one_who_stands_in_refuses_is_not_passed_on_either():
    made = plane({Y: lambda _: reply({"error": {"message": "too long"}}, 400), Z: talker("Z")})
    assert (await made.chat()).status == 400
    assert asked(made) == [Y]
    assert (made.outcomes[0].kind, made.outcomes[0].model) == ("rejected", "spare")


async def test_endpoints_of_another_wire_or_without_a_version_are_passed_over():
    made = plane({URL: labels, Z: talker("Z")}, fallbacks=("triage", "spare", "last"), routes=(TRIAGE, ASSISTANT, LAST))
    assert (await made.chat()).version == "last/9"
    assert asked(made) == [Z]
    assert made.outcomes[0].errors == ("upstream_failed", "fallback_from_assistant")


async def test_classifiers_stand_in_for_one_another_too():
    made = plane({BACKUP.champion.url: labels})
    answer = await made.predict()
    assert (answer.body, answer.version) == (b'"HELLO"', "backup/3")


async def test_fallbacks_of_fallbacks_are_not_asked():
    made = plane({Z: talker("Z")}, fallbacks=("spare",))
    made.rule("spare", fallbacks=("last",))
    assert (await made.chat()).status == 502
    assert asked(made) == []


async def test_a_version_is_waited_for_before_another_is_asked():
    made = plane({Y: talker("Y")}, patience_s=5.0)
    waiting = asyncio.create_task(made.chat())
    await asyncio.sleep(0.05)
    made.upstream.servers[X] = talker("X")
    assert (await waiting).version == "assistant/1"
    assert made.outcomes[0].errors == ()


async def test_answers_of_another_are_not_copied_to_shadows():
    shadow = target("2", Role.SHADOW, 0, "assistant")
    made = plane(
        {Y: talker("Y"), shadow.url: talker("S")},
        routes=(replace(ASSISTANT, targets=(*ASSISTANT.targets, shadow)), SPARE),
    )
    await made.chat()
    await spoken(await made.chat(stream=True))
    await made.gateway.close(5.0)
    assert len(made.intents) == 2


async def test_a_shadow_that_fails_has_nobody_stand_in():
    shadow = target("2", Role.SHADOW, 0, "assistant")
    made = plane(
        {X: talker("X"), Y: talker("Y")}, routes=(replace(ASSISTANT, targets=(*ASSISTANT.targets, shadow)), SPARE)
    )
    await made.chat()
    await made.gateway.close(5.0)
    assert Y not in asked(made)
    assert made.endings == [("answered", 200), ("failed", 502)]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_shadow_elsewhere_gets_its_copy_in_one_piece_and_never_on_the_callers_time(stream):
    shadow = replace(target("2", Role.SHADOW, 0, "assistant"), url="upstream:azure/gpt")
    copied = asyncio.Event()
    slow = Script(pieces=(copied, *reply(completion("S")).pieces))
    made = plane(
        {X: talker("X"), shadow.url: lambda _: slow}, routes=(replace(ASSISTANT, targets=(ASSISTANT.champion, shadow)),)
    )
    for _ in range(3):
        answer = await made.chat(stream=stream)
        assert answer.chunks is None or await spoken(answer) == "X"
    assert made.endings == [("answered", 200)] * 3  # while no copy has been answered yet
    copied.set()
    await made.gateway.close(5.0)
    assert made.endings == [("answered", 200)] * 6
    assert not any(asked.json.get("stream") for url, asked in made.upstream.asked if url == shadow.url)


# --- streams ---


@pytest.mark.parametrize(
    "script",
    [
        events(*chat()[:1], done=False),
        events(*chat()[:1], done=False, then=(Step.CUT,)),
        events(*chat()[:1], {"error": {"message": "out of memory"}}),
        Script(pieces=(b"data: {",), content_type="text/event-stream"),
        Script(pieces=(b": waiting\n\n", Step.CUT), content_type="text/event-stream"),
    ],
)
async def test_a_stream_that_dies_before_its_first_word_is_told_by_another(script):
    made = plane({X: lambda _: replace(script), Y: talker("from", " Y")})
    answer = await made.chat(stream=True)
    assert answer.version == "spare/7"
    assert await spoken(answer) == "from Y"
    assert made.outcomes[0].model == "spare"


async def test_a_stream_that_dies_after_its_first_word_is_not_begun_again():
    made = plane({X: lambda _: events(*chat("par", "tial")[:2], done=False, then=(Step.CUT,)), Y: talker("Y")})
    answer = await made.chat(stream=True)
    said = b"".join([chunk async for chunk in answer.chunks])
    assert b"par" in said
    assert b"error" in said
    assert asked(made) == [X]
    assert (made.outcomes[0].kind, made.outcomes[0].model, made.outcomes[0].tries) == ("failed", "", 1)


async def test_without_fallbacks_a_stream_begins_with_its_first_event():
    word = asyncio.Event()
    pieces = (*events(*chat()[:1], done=False).pieces, word, *events(*chat("hi")[1:]).pieces)
    made = plane({X: lambda _: Script(pieces=pieces, content_type="text/event-stream")}, fallbacks=())
    answer = await made.chat(stream=True)
    assert answer.chunks is not None
    word.set()
    assert await spoken(answer) == "hi"


async def test_a_stream_that_broke_off_before_its_first_event_is_asked_for_once_more():
    answers = [events(done=False, then=(Step.CUT,)), None]
    made = plane({X: lambda asked: answers.pop(0) or talker("again")(asked)}, fallbacks=())
    assert await spoken(await made.chat(stream=True)) == "again"
    assert made.outcomes[0].tries == 2


# --- timeouts ---


async def test_a_try_that_takes_too_long_is_made_once_more_and_then_another_is_asked():
    made = plane({X: lambda _: Script(before=Step.HANG), Y: talker("Y")})
    made.rule("assistant", try_timeout_s=0.02)
    assert (await made.chat()).version == "spare/7"
    assert asked(made) == [X, X, Y]
    assert made.outcomes[0].errors == ("upstream_timeout", "fallback_from_assistant")


async def test_the_endpoints_timeout_bounds_everything():
    made = plane({url: lambda _: Script(before=Step.HANG) for url in (X, Y, Z)})
    made.rule("assistant", timeout_s=0.05)
    assert (await made.chat()).status == 504
    assert asked(made) == [X]
    assert made.endings == [("timed_out", 504)]


@pytest.mark.parametrize("before", [(), (b": waiting\n\n",), events(*chat()[:1], done=False).pieces])
async def test_a_stream_that_does_not_begin_in_time_is_told_by_another(before):
    silent = Script(pieces=(*before, Step.HANG), content_type="text/event-stream")
    made = plane({X: lambda _: replace(silent), Y: talker("Y")})
    made.rule("assistant", try_timeout_s=0.03, tries=1)
    assert await spoken(await made.chat(stream=True)) == "Y"
    assert asked(made) == [X, Y]


async def test_a_stream_that_falls_silent_ends_and_one_that_goes_on_is_left_alone():
    made = plane({X: lambda _: events(*chat("par")[:2], done=False, then=(Step.HANG,))})
    made.rule("assistant", try_timeout_s=0.03)
    said = b"".join([chunk async for chunk in (await made.chat(stream=True)).chunks])
    assert b"silent for 0.03 s" in said
    assert made.endings == [("timed_out", 200)]


# --- the breaker ---


def elsewhere(servers, **more) -> Plane:
    """A plane whose X is at a service elsewhere."""
    away = replace(ASSISTANT, targets=(replace(ASSISTANT.champion, url="upstream:azure/gpt"),))
    served = {"upstream:azure/gpt" if url == X else url: handler for url, handler in servers.items()}
    return plane(served, routes=(TRIAGE, away, SPARE, LAST, BACKUP), **more)


async def test_a_version_that_keeps_failing_is_left_alone_and_its_callers_hear_when_to_come_back():
    made = elsewhere({X: lambda _: Script(500)}, fallbacks=())
    made.rule("assistant", breaker_failures=3, breaker_open_s=30.0)
    assert [(await made.chat()).status for _ in range(3)] == [502] * 3
    answer = await made.chat()
    assert (answer.status, 1 <= int(answer.retry_after) <= 30) == (503, True)
    assert json.loads(answer.body)["error"]["code"] == "circuit_open"
    assert len(made.upstream.asked) == 3
    assert (made.outcomes[-1].kind, made.outcomes[-1].errors, made.outcomes[-1].tries) == (
        "failed",
        ("circuit_open",),
        0,
    )
    assert made.caller.breakers() == {
        **dict.fromkeys(("backup/3", "last/9", "spare/7", "triage/1"), BreakerState.CLOSED),
        "assistant/1": BreakerState.OPEN,
    }


async def test_while_a_version_is_left_alone_others_answer_at_once():
    made = elsewhere({X: lambda _: Script(500), Y: talker("Y")})
    made.rule("assistant", breaker_failures=1, breaker_open_s=30.0)
    assert [(await made.chat()).version for _ in range(3)] == ["spare/7"] * 3
    assert asked(made) == ["upstream:azure/gpt", Y, Y, Y]
    assert made.outcomes[-1].errors == ("circuit_open", "fallback_from_assistant")


async def test_after_a_while_one_request_finds_out_and_the_others_wait_for_it():
    going = asyncio.Event()
    answers = [Script(500), Script(pieces=(going, *reply(completion("back")).pieces))]
    made = elsewhere({X: lambda asked: answers.pop(0) if answers else talker("back")(asked)}, fallbacks=())
    made.rule("assistant", breaker_failures=1, breaker_open_s=0.02)
    await made.chat()
    await asyncio.sleep(0.03)
    made.upstream.arrived.clear()
    probe = asyncio.create_task(made.chat())
    await made.upstream.arrived.wait()
    assert made.caller.breakers()["assistant/1"] is BreakerState.HALF_OPEN
    assert [(await made.chat()).status for _ in range(5)] == [503] * 5
    going.set()
    assert (await probe).status == 200
    assert made.caller.breakers()["assistant/1"] is BreakerState.CLOSED
    assert (await made.chat()).status == 200


async def test_a_caller_who_leaves_while_his_request_is_the_probe_makes_room_for_the_next():
    answers = [Script(500), Script(before=Step.HANG)]
    made = elsewhere({X: lambda asked: answers.pop(0) if answers else talker("back")(asked)}, fallbacks=())
    made.rule("assistant", breaker_failures=1, breaker_open_s=0.001)
    await made.chat()
    await asyncio.sleep(0.005)
    made.upstream.arrived.clear()
    probe = asyncio.create_task(made.chat())
    await made.upstream.arrived.wait()
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    assert (await made.chat()).status == 200


@pytest.mark.parametrize("status", [400, 413, 415, 422, 429])
async def test_callers_mistakes_and_their_pace_open_nothing(status):
    made = elsewhere({X: lambda _: reply({"error": {"message": "no"}}, status)}, fallbacks=())
    made.rule("assistant", breaker_failures=1)
    for _ in range(5):
        await made.chat()
    assert made.caller.breakers()["assistant/1"] is BreakerState.CLOSED


async def test_callers_who_leave_open_nothing():
    made = elsewhere({X: lambda _: Script(before=Step.HANG)}, fallbacks=())
    made.rule("assistant", breaker_failures=1)
    for _ in range(3):
        waiting = asyncio.create_task(made.chat())
        made.upstream.arrived.clear()
        await made.upstream.arrived.wait()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert made.caller.breakers()["assistant/1"] is BreakerState.CLOSED


async def test_streams_that_break_count_however_well_they_began():
    made = elsewhere({X: lambda _: events(*chat("par")[:2], done=False, then=(Step.CUT,))}, fallbacks=())
    made.rule("assistant", breaker_failures=2)
    for _ in range(2):
        answer = await made.chat(stream=True)
        assert b"".join([chunk async for chunk in answer.chunks])
    assert made.caller.breakers()["assistant/1"] is BreakerState.OPEN


async def test_a_server_of_ours_that_is_started_anew_fails_nobody_however_many_wait_for_it():
    made = plane({URL: lambda _: Script(before=Step.CUT)}, patience_s=5.0)
    made.rule("triage", breaker_failures=2, fallbacks=())
    waiting = [asyncio.create_task(made.predict()) for _ in range(20)]
    await made.upstream.arrived.wait()
    del made.upstream.servers[URL]
    await asyncio.sleep(0.1)
    assert made.caller.breakers()["triage/1"] is BreakerState.CLOSED
    made.upstream.servers[URL] = labels
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [200] * 20


async def test_a_server_of_ours_that_stays_away_is_given_up_when_patience_ends():
    made = plane({}, patience_s=0.02)
    made.rule("triage", breaker_failures=2, fallbacks=())
    assert [(await made.predict()).status for _ in range(3)] == [502, 502, 503]


@pytest.mark.parametrize("how", ["500", "404", "garbage", "half an answer", "reset"])
async def test_an_input_that_a_server_of_ours_chokes_on_harms_nobody_else(how):
    made = plane({URL: lambda asked: replace(failing()[how]) if b"bad" in asked.body else labels(asked)})
    made.rule("triage", breaker_failures=2, fallbacks=())
    assert [(await made.predict(b'{"input": "bad"}')).status for _ in range(5)] == [502] * 5
    assert (await made.predict()).status == 200


async def test_a_service_elsewhere_that_is_not_there_is_given_up_within_one_request():
    made = elsewhere({Y: talker("Y")}, patience_s=60.0)
    assert (await made.chat()).version == "spare/7"
    assert made.caller.breakers()["assistant/1"] is BreakerState.OPEN
    assert made.outcomes[0].tries == 1


# --- over real sockets ---


SOCKETS = {
    **{how: failing()[how] for how in ("500", "garbage", "half an answer", "reset", "no http")},
    "hang": Script(before=Step.HANG),
    "429 for long": replace(reply({"error": {"message": "slow down"}}, 429), headers={"retry-after": "60"}),
    "half a chunk": Script(pieces=(b'data: {"choi', Step.CUT), content_type="text/event-stream"),
    "half a chunk, then silence": Script(pieces=(b'data: {"choi', Step.HANG), content_type="text/event-stream"),
}


@pytest.mark.parametrize("how", SOCKETS)
@pytest.mark.parametrize("stream", [False, True])
async def test_over_sockets_another_answers_too(how, stream, tmp_path):
    upstream = HttpUpstream()
    async with (
        listening(lambda _: replace(SOCKETS[how], gone=asyncio.Event()), tmp_path) as x,
        listening(talker("Y")) as y,
    ):
        made = plane({}, routes=(_at(ASSISTANT, x), _at(SPARE, y)), upstream=upstream)
        made.rule("assistant", try_timeout_s=0.1, tries=1, fallbacks=("spare",))
        answer = await made.chat(stream=stream)
        assert answer.version == "spare/7", answer
        said = await spoken(answer) if stream else json.loads(answer.body)["choices"][0]["message"]["content"]
        assert said == "Y"
        await upstream.aclose()


@pytest.mark.parametrize("why", ["nobody listens", "no key", "500", "reset"])
async def test_a_local_model_stands_in_for_a_service_elsewhere(why, tmp_path):
    keys = {} if why == "no key" else {"AZURE_KEY": "k"}
    async with (
        listening(lambda _: replace(failing()[why])) as there,
        listening(talker("local"), tmp_path) as here,
    ):
        url = "http://127.0.0.1:9" if why == "nobody listens" else there
        settings = {"azure": Upstream(kind="openai", url=url, key="AZURE_KEY", private=True)}
        upstream = ProjectUpstream(
            HttpUpstream(), lambda: settings, UpstreamCredentials(lambda name: keys.get(name, ""))
        )
        made = plane(
            {}, routes=(_at(ASSISTANT, "upstream:azure/gpt-4o"), _at(SPARE, here)), upstream=upstream, patience_s=5.0
        )
        made.rule("assistant", breaker_failures=2)
        answers = [await made.chat() for _ in range(3)]
        await upstream.aclose()
    assert [answer.version for answer in answers] == ["spare/7"] * 3
    assert [outcome.errors[-1] for outcome in made.outcomes] == ["fallback_from_assistant"] * 3


async def test_over_sockets_a_short_retry_after_is_waited_for():
    upstream, seen = HttpUpstream(), []
    busy = replace(reply({"error": {"message": "slow down"}}, 429), headers={"retry-after-ms": "5"})

    def handle(asked):
        seen.append(asked)
        return busy if len(seen) == 1 else talker("X")(asked)

    async with listening(handle) as x:
        made = plane({}, routes=(_at(ASSISTANT, x),), upstream=upstream, patience_s=5.0)
        assert (await made.chat()).version == "assistant/1"
        await upstream.aclose()
    assert len(seen) == made.outcomes[0].tries == 2


async def test_over_sockets_a_stream_without_end_is_cut_at_the_endpoints_timeout(tmp_path):
    upstream = HttpUpstream()
    (word,) = events(chat("on")[1], done=False).pieces

    def endless(_):
        return Script(pieces=itertools.cycle((word, Step.REST)), content_type="text/event-stream")

    async with listening(endless, tmp_path) as x:
        made = plane({}, routes=(_at(ASSISTANT, x),), upstream=upstream)
        made.rule("assistant", timeout_s=0.5)
        answer = await made.chat(stream=True)
        said = [chunk async for chunk in answer.chunks]
        assert b"error" in said[-1]
        await upstream.aclose()
    assert made.endings == [("timed_out", 200)]


def _at(made, url):
    return replace(made, targets=(replace(made.champion, url=url),))
