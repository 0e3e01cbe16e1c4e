"""Answers from memory: what counts as the same request, what is kept and for how long, and what the record says."""

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.plane import ASSISTANT, TRIAGE, Plane, route, target
from fakes.story import PROJECT
from fakes.upstream import Script, Step, chat, events, labels, talker
from noria.domain.endpoint import Role, Wire
from noria.domain.errors import InvalidRequest
from noria.domain.inference import Intent, Outcome
from noria.serving.cache import OVERHEAD, AnswerCache, CacheRules, Kept, wish
from noria.serving.rules import rules_of
from noria.serving.wires import Form, understand
from noria.settings import Cache

MINUTE = 60_000_000
URL, CHAT_URL = TRIAGE.champion.url, ASSISTANT.champion.url


def memory(ttl_us=MINUTE, entries=100, max_bytes=1_000_000) -> AnswerCache:
    return AnswerCache(CacheRules(ttl_us, entries, max_bytes))


def caching(servers, cache=None, **more) -> Plane:
    plane = Plane(servers, **more)
    plane.rule(cache=cache or memory())
    return plane


def key(body, form=Form.CHAT, ref="m/1", cache_control="", wire=Wire.OPENAI, content_type=""):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = wish(memory(), ref, form, understand(form, raw, content_type, wire, "m"), cache_control)
    return None if found is None else found.key


TABLE = {"dataframe_split": {"columns": ["a"], "data": [["1"]]}}
ASKED = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "temperature": 0.7}


# --- what counts as the same request ---


@pytest.mark.parametrize(
    "same",
    [
        {**ASKED, "user": "u1", "metadata": {"group": "north"}},
        {**ASKED, "store": True, "safety_identifier": "x", "prompt_cache_key": "y"},
        dict(reversed(ASKED.items())),
        json.dumps(ASKED, indent=2).encode(),
        json.dumps(ASKED).replace("hello", "\\u0068ello").encode(),
    ],
)
def test_who_asks_and_how_it_is_written_make_no_difference(same):
    assert key(same) == key(ASKED)


@pytest.mark.parametrize(
    "other",
    [
        {**ASKED, "temperature": 0.8},
        {**ASKED, "seed": 1},
        {**ASKED, "n": 2},
        {**ASKED, "stream": True},
        {**ASKED, "messages": [{"role": "user", "content": "hello "}]},
        {**ASKED, "messages": [{"role": "system", "content": "hello"}]},
        {**ASKED, "unknown": 1},
    ],
)
def test_everything_else_does(other):
    assert key(other) != key(ASKED)


def test_versions_forms_and_kinds_of_stream_are_told_apart():
    stream = {**ASKED, "stream": True}
    usage = {**stream, "stream_options": {"include_usage": True}}
    assert len({key(ASKED), key(ASKED, ref="m/2"), key(stream), key(usage)}) == 4
    one, many = (key({"input": asked}, Form.PREDICT, wire=Wire.MLFLOW) for asked in ("a", ["a"]))
    rows = key({"inputs": ["a"]}, Form.INVOCATIONS, wire=Wire.MLFLOW)
    assert len({one, many, rows}) == 3


def test_a_table_in_csv_is_known_again():
    csv = {"form": Form.INVOCATIONS, "wire": Wire.MLFLOW, "content_type": "text/csv"}
    assert key(b"a\n1\n", **csv) == key(b"a\r\n1\r\n", **csv) != key(b"a\n2\n", **csv)
    assert key(b"a\n1\n", **csv) != key(TABLE, Form.INVOCATIONS, wire=Wire.MLFLOW)


@pytest.mark.parametrize(
    "twice",
    [
        b'{"messages": [{"role": "user", "content": "a"}], "n": 1, "n": 2}',
        b'{"messages": [{"role": "user", "role": "x"}]}',
    ],
)
def test_a_key_that_is_there_twice_keeps_a_request_out(twice):
    assert key(twice) is None


def test_a_caller_can_ask_for_nothing_to_be_kept():
    assert key(ASKED, cache_control="no-store") is None
    assert key(ASKED, cache_control="max-age=60, No-Store") is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON)
def test_different_questions_never_share_an_answer(first, second):
    def asked(value):
        try:
            return key({"inputs": [value]}, Form.INVOCATIONS, wire=Wire.MLFLOW)
        except InvalidRequest:  # a number that JSON can't carry
            return None

    keys, said = (asked(first), asked(second)), [json.dumps(one, sort_keys=True) for one in (first, second)]
    assert None in keys or (keys[0] == keys[1]) == (said[0] == said[1])


# --- what is kept ---


def kept(text: str, at_us: int = 0) -> Kept:
    return Kept(text.encode(), None, at_us)


def test_an_answer_is_forgotten_when_it_is_too_old():
    held = memory(ttl_us=10)
    held.keep(b"k", kept("a", 5))
    assert held.find(b"k", 14) is not None
    assert held.find(b"k", 15) is None
    assert (len(held), held.bytes) == (0, 0)


def test_what_was_used_longest_ago_makes_room():
    held = memory(entries=2)
    for name in (b"a", b"b"):
        held.keep(name, kept("x"))
    held.find(b"a", 0)
    held.keep(b"c", kept("x"))
    assert [held.find(name, 0) is not None for name in (b"a", b"b", b"c")] == [True, False, True]


def test_an_answer_larger_than_everything_is_not_kept_and_drives_nothing_out():
    held = memory(max_bytes=2 * OVERHEAD)
    held.keep(b"a", kept("x"))
    held.keep(b"b", kept("x" * 2 * OVERHEAD))
    assert held.find(b"a", 0) is not None
    assert held.find(b"b", 0) is None


@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.integers(0, 400), st.booleans(), st.integers(0, 30)), min_size=1, max_size=80
    )
)
def test_whatever_is_asked_the_bounds_hold_and_nothing_old_or_wrong_is_given(steps):
    held, now, truth = memory(ttl_us=50, entries=4, max_bytes=4 * (OVERHEAD + 200)), 0, {}
    for name, size, keeps, passes in steps:
        now += passes
        place = bytes([name])
        if keeps:
            truth[place] = kept("x" * size, now)
            held.keep(place, truth[place])
        elif (found := held.find(place, now)) is not None:
            assert found == truth[place]
            assert now - found.kept_us < 50
        assert len(held) <= 4
        assert held.bytes <= 4 * (OVERHEAD + 200)
        assert held.bytes == sum(one.size for one in held._kept.values())


def test_a_new_project_file_keeps_what_it_does_not_change():
    def project(**cache):
        endpoints = dict(PROJECT.endpoints)
        routing = endpoints["triage"].routing.model_copy(update={"cache": Cache(**cache)})
        endpoints["triage"] = endpoints["triage"].model_copy(update={"routing": routing})
        return PROJECT.model_copy(update={"endpoints": endpoints})

    before = rules_of(project())
    assert rules_of(project(), before)["triage"].cache is before["triage"].cache
    assert rules_of(project(ttl=timedelta(hours=1)), before)["triage"].cache is not before["triage"].cache
    assert rules_of(PROJECT, before)["triage"].cache is None


# --- on the way of a request ---


async def test_the_very_same_request_is_answered_from_memory_and_recorded_as_a_hit():
    plane = caching({CHAT_URL: talker("hi")})
    first, second = await plane.chat(user="ada"), await plane.chat(user="bob")
    assert (first.cached, second.cached) == (False, True)
    assert (second.status, second.body, second.version) == (200, first.body, "assistant/1")
    assert len(plane.upstream.asked) == 1
    assert len(plane.intents) == 2
    miss, hit = plane.outcomes
    assert (miss.cache_hit, miss.tries, miss.input_tokens) == (False, 1, 7)
    assert (hit.cache_hit, hit.tries, hit.input_tokens, hit.output_tokens, hit.cost_usd) == (True, 0, 0, 0, 0.0)
    assert (hit.kind, hit.response) == ("answered", miss.response)
    assert plane.counts.under_way == 0


async def test_a_stream_is_given_again_piece_by_piece():
    plane = caching({CHAT_URL: talker("Hel", "lo")})
    first = [piece async for piece in (await plane.chat(stream=True)).chunks]
    answer = await plane.chat(stream=True)
    assert answer.cached
    before_done = []
    second = []
    async for piece in answer.chunks:
        if b"[DONE]" in piece:
            before_done = list(plane.endings)
        second.append(piece)
    assert second == first
    assert before_done == [("answered", 200)] * 2
    assert len(plane.upstream.asked) == 1
    assert plane.outcomes[1].response == plane.outcomes[0].response
    assert (plane.outcomes[1].ttft_us, plane.outcomes[1].cache_hit) == (0, True)


async def test_a_caller_who_leaves_a_stream_from_memory_is_on_record():
    plane = caching({CHAT_URL: talker("hi")})
    assert [piece async for piece in (await plane.chat(stream=True)).chunks]
    answer = await plane.chat(stream=True)
    await answer.chunks.aclose()
    assert plane.endings == [("answered", 200), ("disconnected", 200)]


async def test_without_a_cache_everybody_is_answered_by_the_model():
    plane = Plane({URL: labels})
    assert [(await plane.predict()).cached for _ in range(2)] == [False, False]
    assert len(plane.upstream.asked) == 2


async def test_a_caller_can_ask_for_a_fresh_answer_which_then_counts():
    words = iter(["one", "two", "three"])
    plane = caching({CHAT_URL: lambda asked: talker(next(words))(asked)})

    async def said(cache_control=""):
        body = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": "x"}]}).encode()
        headers = {b"cache-control": cache_control}
        answer = await plane.gateway.answer(plane.inbound(Form.CHAT, body, header=lambda name: headers.get(name, "")))
        return json.loads(answer.body)["choices"][0]["message"]["content"]

    assert [await said(), await said(), await said("no-cache"), await said()] == ["one", "one", "two", "two"]
    assert [await said("no-store"), await said()] == ["three", "two"]


async def test_an_answer_lasts_as_long_as_the_endpoint_says():
    plane = caching({URL: labels}, memory(ttl_us=MINUTE))
    await plane.predict()
    plane.clock.at += timedelta(seconds=59)
    assert (await plane.predict()).cached
    plane.clock.at += timedelta(seconds=1)
    assert not (await plane.predict()).cached


async def test_another_version_gives_its_own_answers():
    plane = caching({URL: labels, target("2").url: labels})
    cache = plane.router.rules("triage").cache
    await plane.predict()
    plane.put(route(target("2"), revision=2))
    plane.router.refresh()
    plane.rule(cache=cache)
    answer = await plane.predict()
    assert (answer.cached, answer.version) == (False, "triage/2")


@pytest.mark.parametrize("script", [Script(500), Script(400), events(*chat("par")[:2], done=False, then=(Step.CUT,))])
async def test_what_is_no_answer_is_not_kept(script):
    plane = caching({CHAT_URL: lambda _: script})
    for _ in range(2):
        answer = await plane.chat(stream=True)
        assert not answer.cached
        if answer.chunks is not None:
            assert [piece async for piece in answer.chunks]
    assert len(plane.router.rules("assistant").cache) == 0


async def test_an_answer_that_could_not_be_recorded_is_not_kept():
    plane = caching({URL: labels})
    plane.spool.refuses = Outcome
    assert (await plane.predict()).status == 503
    plane.spool.refuses = ()
    assert not (await plane.predict()).cached


async def test_the_answer_of_one_who_stood_in_is_not_kept():
    backup = route(target("3", model="assistant"), endpoint="assistant")
    plane = caching({target("3", model="assistant").url: labels}, routes=(TRIAGE, backup))
    plane.rule("triage", fallbacks=("assistant",))
    assert [(await plane.predict()).version for _ in range(2)] == ["assistant/3"] * 2
    assert not any(outcome.cache_hit for outcome in plane.outcomes)


async def test_shadows_get_no_copy_of_what_no_model_answered():
    shadow = target("2", Role.SHADOW, 0)
    plane = caching({URL: labels, shadow.url: labels}, routes=(route(target(), shadow),))
    for _ in range(3):
        await plane.predict()
    await plane.gateway.close(5.0)
    assert len(plane.intents) == 4


async def test_a_log_that_takes_no_intent_gives_no_answer_from_memory_either():
    plane = caching({URL: labels})
    await plane.predict()
    plane.spool.refuses = Intent
    assert (await plane.predict()).status == 503
