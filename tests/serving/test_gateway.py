"""The way of a request: what is on record, in which order, however it ends."""

import asyncio
import json
from contextlib import suppress
from dataclasses import replace

import pytest

from fakes.plane import ASSISTANT, TRIAGE, Plane, route, target
from fakes.upstream import Script, Step, chat, completion, events, labels, reply, talker
from noria.domain.endpoint import Role
from noria.domain.errors import LogUnavailable, RequestTooLarge
from noria.domain.inference import Intent, Outcome
from noria.serving import shadows
from noria.serving.wires import Form

URL, CHAT_URL = TRIAGE.champion.url, ASSISTANT.champion.url
SHADOW = target("2", Role.SHADOW, 0)
HELLO = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}


def body(value) -> bytes:
    return json.dumps(value).encode()


async def chatting(plane: Plane, **more):
    return await plane.gateway.answer(plane.inbound(Form.CHAT, body({**HELLO, **more})))


async def spoken(answer) -> list:
    """What a stream says: its chunks as JSON, `[DONE]` as text."""
    raw = b"".join([chunk async for chunk in answer.chunks]).decode()
    datas = [line.removeprefix("data: ") for line in raw.splitlines() if line]
    return [d if d == "[DONE]" else json.loads(d) for d in datas]


# --- one whole answer ---


async def test_the_intent_is_on_disk_before_the_model_is_asked_and_the_outcome_before_the_caller_hears():
    on_disk = []
    plane = Plane({URL: lambda asked: on_disk.append(list(plane.spool.entries.values())) or labels(asked)})
    answer = await plane.predict(b'{"input": "good", "metadata": {"group": "north"}}', client_request_id="c1")

    assert (answer.status, answer.body, answer.version) == (200, b'"GOOD"', "triage/1")
    assert [type(entry) for entry in on_disk[0]] == [Intent]
    intent, outcome = plane.spool.entries.values()
    assert (intent.endpoint, intent.model, intent.version, intent.role) == ("triage", "triage", "1", Role.CHAMPION)
    assert (intent.client_request_id, intent.metadata, intent.policy_hash) == ("c1", {"group": "north"}, "p")
    assert json.loads(intent.request)["input"] == "good"
    assert (outcome.request_id, outcome.kind, outcome.status) == (intent.request_id, "answered", 200)
    assert outcome.response == b'"GOOD"'


async def test_a_chats_tokens_are_on_record():
    plane = Plane({CHAT_URL: talker("hi", "!")})
    answer = await chatting(plane)
    assert json.loads(answer.body) == completion("hi!", 2)
    assert (plane.outcomes[0].input_tokens, plane.outcomes[0].output_tokens) == (7, 2)


async def test_what_a_person_wrote_is_redacted_before_it_is_written_but_not_before_it_is_sent():
    plane = Plane({URL: labels})
    await plane.predict(b'{"input": "write to ada@example.com"}')
    assert plane.upstream.asked[0][1].json == {"inputs": ["write to ada@example.com"]}
    assert b"ada@example.com" not in plane.intents[0].request
    assert b"ADA@EXAMPLE.COM" not in plane.outcomes[0].response


async def test_a_log_that_takes_no_intent_means_that_the_model_is_not_asked():
    plane = Plane({URL: labels})
    plane.spool.refuses = Intent
    answer = await plane.predict()
    assert (answer.status, json.loads(answer.body)["error_code"]) == (503, "log_unavailable")
    assert plane.upstream.asked == []
    assert plane.counts.under_way == 0


async def test_a_log_that_takes_no_outcome_means_that_the_caller_gets_no_answer():
    plane = Plane({URL: labels})
    plane.spool.refuses = Outcome
    answer = await plane.predict()
    assert (answer.status, b"HELLO" in answer.body) == (503, False)
    assert plane.counts.ended == [("triage", "1", "champion", "failed", 503)]


async def test_what_the_log_would_not_take_is_written_as_the_caller_heard_it_once_it_does():
    plane = Plane({URL: labels})
    plane.spool.refuses = Outcome
    await plane.predict()
    await plane.gateway.catch_up()
    assert plane.endings == []
    plane.spool.refuses = ()
    await plane.predict()
    assert plane.endings == [("failed", 503), ("answered", 200)]
    assert plane.outcomes[0].errors == ("log_unavailable",)
    assert {o.request_id for o in plane.outcomes} == {i.request_id for i in plane.intents}
    await plane.gateway.close(1)
    assert len(plane.outcomes) == len(plane.counts.ended) == 2


async def test_what_is_owed_to_the_log_is_written_at_the_end_at_the_latest():
    plane = Plane({URL: labels})
    plane.spool.refuses = Outcome
    await plane.predict()
    plane.spool.refuses = ()
    await plane.gateway.close(1)
    assert plane.endings == [("failed", 503)]


async def test_whoever_is_cancelled_while_what_is_owed_is_written_takes_none_of_it_with_him():
    plane = Plane({URL: labels})
    plane.spool.refuses = Outcome
    await plane.predict()
    append, full, asked, go_on = plane.spool.append, LogUnavailable("The disk is full.", "Wait."), 0, asyncio.Event()

    async def slow(entry):
        nonlocal asked
        asked += 1
        await go_on.wait()
        raise full

    plane.spool.append = slow
    writing = asyncio.create_task(plane.gateway.close(1))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    go_on.set()
    plane.spool.append, plane.spool.refuses = append, ()
    for _ in range(10):
        await asyncio.sleep(0)
        await plane.gateway.close(1)
    assert (asked, plane.endings) == (1, [("failed", 503)])


async def test_an_answer_that_no_record_can_hold_is_not_given_but_its_request_has_its_end():
    plane = Plane({URL: labels})
    unwritable(plane, b"HELLO")
    answer = await plane.predict()
    assert (answer.status, b"HELLO" in answer.body) == (500, False)
    await plane.gateway.catch_up()
    assert plane.endings == [("failed", 500)]
    assert plane.counts.under_way == 0


async def test_a_stream_that_no_record_can_hold_and_that_nobody_waits_for_is_recorded_without_its_body():
    plane = Plane({CHAT_URL: talker("hi", "!")})
    unwritable(plane, b"choices")
    answer = await chatting(plane, stream=True)
    await anext(answer.chunks)
    await answer.chunks.aclose()
    await plane.gateway.catch_up()
    assert plane.endings == [("disconnected", 200)]
    assert plane.outcomes[0].response == b""


def unwritable(plane: Plane, part: bytes) -> None:
    """Have the log fail in a way that nobody foresaw at outcomes with that in their bodies."""
    append = plane.spool.append

    async def picky(entry):
        if isinstance(entry, Outcome) and part in entry.response:
            raise ValueError("what is that?")
        return await append(entry)

    plane.spool.append = picky


# --- what is wrong with a request ---


async def test_a_request_that_nobody_foresaw_is_answered_and_on_record(monkeypatch):
    def stumble(*_):
        raise RuntimeError("what is that?")

    monkeypatch.setattr("noria.serving.wires.understand", stumble)
    plane = Plane({URL: labels})
    answer = await plane.predict()
    assert (answer.status, b"what is that" in answer.body) == (500, False)
    assert plane.endings == [("failed", 500)]
    assert plane.counts.under_way == 0


async def test_a_malformed_request_is_refused_and_on_record_under_the_champion():
    plane = Plane({URL: labels})
    answer = await plane.predict(b'{"input": ')
    assert answer.status == 400
    assert json.loads(answer.body)["error_code"] == "invalid_request"
    assert (plane.intents[0].version, plane.intents[0].errors[0]) == ("1", "invalid_request")
    assert json.loads(plane.intents[0].request) == '{"input": '
    assert plane.endings == [("rejected", 400)]


async def test_an_endpoint_that_nobody_knows_has_no_record():
    plane = Plane({})
    answer = await plane.predict(endpoint="nope")
    assert (answer.status, plane.spool.entries) == (404, {})
    chatted = await chatting(plane, model="nope")
    assert json.loads(chatted.body)["error"]["code"] == "model_not_found"


async def test_an_endpoint_without_a_version_asks_for_patience_and_has_its_record():
    plane = Plane({}, routes=())
    assert (await plane.predict()).status == 503
    assert (plane.intents[0].model, plane.intents[0].version) == ("triage", "")
    assert plane.endings == [("failed", 503)]


async def test_what_the_transport_would_not_take_is_on_record_where_the_address_names_an_endpoint():
    plane = Plane({URL: labels})
    error = RequestTooLarge("The body is longer than 10 bytes.", "Send less.")
    assert (await plane.gateway.refuse(plane.inbound(Form.PREDICT, b""), error)).status == 413
    assert plane.endings == [("rejected", 413)]
    assert (await plane.gateway.refuse(plane.inbound(Form.CHAT, b""), error)).status == 413
    assert len(plane.intents) == 1


async def test_more_work_than_the_process_may_hold_is_told_to_come_back():
    plane = Plane({URL: lambda _: Script(before=Step.HANG)}, most_under_way=1)
    waiting = asyncio.create_task(plane.predict())
    await plane.upstream.arrived.wait()
    answer = await plane.predict()
    assert (answer.status, json.loads(answer.body)["error_code"]) == (503, "overloaded")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert plane.counts.under_way == 0


# --- model servers that fail ---


@pytest.mark.parametrize(
    ("script", "status", "kind"),
    [
        (reply({"error_code": "BAD", "message": "no column text"}, 400), 400, "rejected"),
        (reply({"message": "no embeddings here"}, 501), 400, "rejected"),
        (reply({"message": "division by zero"}, 500), 502, "failed"),
        (Script(404), 502, "failed"),
        (Script(302), 502, "failed"),
        (Script(503), 503, "failed"),
        (Script(pieces=(b"<html>",)), 502, "failed"),
        (Script(pieces=(b'{"predictions": ["a", "b"]}',)), 502, "failed"),
        (Script(pieces=(b'{"predic', Step.CUT)), 502, "failed"),
        (Script(before=Step.CUT), 502, "failed"),
        (Script(before=b"SSH-2.0"), 502, "failed"),
    ],
)
async def test_a_model_server_that_fails_is_told_and_on_record(script, status, kind):
    plane = Plane({URL: lambda _: replace(script)})
    answer = await plane.predict()
    assert answer.status == status
    assert plane.endings == [(kind, status)]
    assert plane.outcomes[0].response == answer.body
    assert plane.counts.under_way == 0


async def test_the_models_own_words_reach_the_caller():
    plane = Plane({URL: lambda _: reply({"message": "no column text"}, 400)})
    assert "no column text" in json.loads((await plane.predict()).body)["message"]


@pytest.mark.parametrize("status", [400, 429])
async def test_openais_errors_reach_the_caller_as_they_are(status):
    error = {"error": {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}}
    script = replace(reply(error, status), headers={"retry-after": "7"})
    plane = Plane({CHAT_URL: lambda _: script})
    answer = await chatting(plane)
    assert (answer.status, json.loads(answer.body), answer.retry_after) == (status, error, "7")


async def test_a_model_that_takes_too_long_is_a_timeout():
    plane = Plane({URL: lambda _: Script(before=Step.HANG)})
    plane.rule(timeout_s=0.02)
    assert (await plane.predict()).status == 504
    assert plane.endings == [("timed_out", 504)]


# --- model servers that are replaced ---


async def test_a_request_waits_for_a_model_server_that_is_being_replaced():
    plane = Plane({}, patience_s=5.0)
    waiting = asyncio.create_task(plane.predict())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    plane.upstream.servers[URL] = labels
    assert (await waiting).status == 200
    assert plane.endings == [("answered", 200)]


async def test_a_request_follows_its_version_to_a_new_address():
    plane = Plane({}, patience_s=5.0)
    waiting = asyncio.create_task(plane.predict())
    await asyncio.sleep(0.02)
    plane.upstream.servers["unix:/new.sock"] = labels
    plane.put(route(replace(target("1"), url="unix:/new.sock"), revision=2))
    plane.router.refresh()
    assert (await waiting).status == 200


async def test_patience_ends():
    plane = Plane({}, patience_s=0.05)
    assert (await plane.predict()).status == 502
    assert plane.endings == [("failed", 502)]


async def test_a_server_that_breaks_off_before_answering_is_asked_once_more_and_not_twice():
    plane = Plane({}, patience_s=5.0)
    answers = [Script(before=Step.CUT), None]
    plane.upstream.servers[URL] = lambda asked: answers.pop(0) or labels(asked)
    assert (await plane.predict()).status == 200
    plane.upstream.servers[URL] = lambda _: Script(before=Step.CUT)
    plane.upstream.asked.clear()
    assert (await plane.predict()).status == 502
    assert len(plane.upstream.asked) == 2


async def test_a_server_without_time_is_asked_again():
    plane = Plane({}, patience_s=5.0)
    answers = [Script(503), Script(503), None]
    plane.upstream.servers[URL] = lambda asked: answers.pop(0) or labels(asked)
    assert (await plane.predict()).status == 200


async def test_a_timeout_is_not_tried_again():
    plane = Plane({URL: lambda _: Script(before=Step.HANG)}, patience_s=5.0)
    plane.rule(timeout_s=0.05)
    await plane.predict()
    assert len(plane.upstream.asked) == 1


# --- callers who leave ---


async def test_a_caller_who_leaves_ends_the_call_and_is_on_record():
    script = Script(before=Step.HANG)
    plane = Plane({URL: lambda _: script})
    waiting = asyncio.create_task(plane.predict())
    await plane.upstream.arrived.wait()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert script.gone.is_set()
    assert plane.endings == [("disconnected", 499)]


async def test_a_process_that_stops_is_not_a_caller_who_left():
    plane = Plane({URL: lambda _: Script(before=Step.HANG)})
    waiting = asyncio.create_task(plane.predict(left=lambda: False))
    await plane.upstream.arrived.wait()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert plane.endings == [("interrupted", 499)]


async def test_a_caller_who_leaves_while_the_intent_is_written_has_a_whole_record():
    plane = Plane({URL: labels})
    writing, append = asyncio.Event(), plane.spool.append

    async def slowly(entry):
        writing.set()
        written = asyncio.create_task(append(entry))
        with suppress(asyncio.CancelledError):  # a spool's append can't be cut in two
            await asyncio.sleep(0.01)
            return await written
        await written
        raise asyncio.CancelledError

    plane.spool.append = slowly
    waiting = asyncio.create_task(plane.predict())
    await writing.wait()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert len(plane.intents) == 1
    assert plane.endings == [("disconnected", 499)]
    assert plane.upstream.asked == []


# --- streams ---


async def test_a_stream_is_passed_on_and_its_whole_answer_is_on_disk_before_the_end():
    plane = Plane({CHAT_URL: talker("Hel", "lo")})
    answer = await chatting(plane, stream=True)
    seen, before_done = [], None
    async for chunk in answer.chunks:
        if b"[DONE]" in chunk:
            before_done = list(plane.endings)
        seen.append(chunk)
    assert before_done == [("answered", 200)]
    recorded = json.loads(plane.outcomes[0].response)
    assert recorded["choices"][0]["message"]["content"] == "Hello"
    assert (plane.outcomes[0].output_tokens, plane.outcomes[0].ttft_us) == (2, 0)
    assert b"usage" not in b"".join(seen)


async def test_a_caller_who_asked_for_the_usage_gets_it():
    plane = Plane({CHAT_URL: talker("hi")})
    said = await spoken(await chatting(plane, stream=True, stream_options={"include_usage": True}))
    assert said[-2]["usage"]["completion_tokens"] == 1
    assert said[-1] == "[DONE]"


async def test_a_stream_whose_server_forgets_to_say_done_is_complete_if_every_choice_ended():
    plane = Plane({CHAT_URL: lambda _: events(*chat("hi"), done=False)})
    assert (await spoken(await chatting(plane, stream=True)))[-1] == "[DONE]"
    assert plane.endings == [("answered", 200)]


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (events(*chat("par", "tial")[:2], done=False), "failed"),
        (events(*chat("par")[:2], done=False, then=(Step.CUT,)), "failed"),
        (events(*chat("par")[:2], {"error": {"message": "out of memory"}}), "failed"),
        (events(*chat("par")[:2], "nonsense", done=False), "failed"),
        (events(*chat("par")[:2], done=False, then=(Step.HANG,)), "timed_out"),
    ],
)
async def test_a_stream_that_breaks_tells_the_caller_does_not_say_done_and_keeps_what_was_said(script, kind):
    plane = Plane({CHAT_URL: lambda _: script})
    plane.rule(timeout_s=0.05)
    said = await spoken(await chatting(plane, stream=True))
    assert "error" in said[-1]
    assert [o.kind for o in plane.outcomes] == [kind]
    if len(said) > 1:
        assert json.loads(plane.outcomes[0].response)["choices"][0]["message"]["content"] == "par"


@pytest.mark.parametrize(
    "script",
    [
        Script(pieces=(b"data: nonsense\n\n",), content_type="text/event-stream"),
        Script(pieces=(Step.CUT,), content_type="text/event-stream"),
        events(done=False),
        events({"error": {"message": "out of memory"}}),
    ],
)
async def test_a_stream_that_never_begins_is_a_plain_failure(script):
    plane = Plane({CHAT_URL: lambda _: replace(script)})
    answer = await chatting(plane, stream=True)
    assert (answer.chunks, answer.status) == (None, 502)
    assert plane.endings == [("failed", 502)]


async def test_a_stream_that_nobody_listens_to_any_more_ends_the_call_and_keeps_what_was_said():
    script = events(*chat("par", "tial")[:2], done=False, then=(Step.HANG,))
    plane = Plane({CHAT_URL: lambda _: script})
    answer = await chatting(plane, stream=True)
    await anext(answer.chunks)
    await anext(answer.chunks)
    await answer.chunks.aclose()
    assert script.gone.is_set()
    assert [o.kind for o in plane.outcomes] == ["disconnected"]
    assert json.loads(plane.outcomes[0].response)["choices"][0]["message"]["content"] == "par"


async def test_a_stream_that_nobody_ever_listened_to_has_its_outcome_too():
    plane = Plane({CHAT_URL: talker("hi")})
    answer = await chatting(plane, stream=True)
    await answer.chunks.aclose()
    assert [o.kind for o in plane.outcomes] == ["disconnected"]
    assert plane.counts.under_way == 0


async def test_a_stream_that_cannot_be_recorded_does_not_say_done():
    plane = Plane({CHAT_URL: talker("hi")})
    plane.spool.refuses = Outcome
    said = await spoken(await chatting(plane, stream=True))
    assert said[-1]["error"]["code"] == "log_unavailable"
    plane.spool.refuses = ()
    await plane.gateway.close(1)
    assert plane.endings == [("failed", 200)]
    assert plane.counts.ended == [("assistant", "1", "champion", "failed", 200)]


async def test_a_stream_that_is_refused_by_the_model_is_a_plain_answer():
    error = {"error": {"message": "too long", "type": "invalid_request_error"}}
    plane = Plane({CHAT_URL: lambda _: reply(error, 400)})
    answer = await chatting(plane, stream=True)
    assert (answer.chunks, answer.status, json.loads(answer.body)) == (None, 400, error)


# --- versions and shadows ---


async def test_whoever_names_himself_stays_with_one_version_however_he_does_it():
    canary = route(target("1", weight=50), target("2", Role.CANARY, 50))
    plane = Plane({URL: labels, target("2").url: labels}, routes=(canary,))
    ways = [
        {"body": b'{"input": "a", "metadata": {"user": "u7"}}', "session": "other"},
        {"body": b'{"input": "a", "metadata": {"conversation": "u7"}}'},
        {"body": b'{"input": "a"}', "session": "u7"},
        {"body": b'{"input": "a"}', "metadata": b'{"user": "u7"}'},
    ]
    assert len({(await plane.predict(**way)).version for way in ways for _ in range(3)}) == 1
    assert len({(await plane.predict()).version for _ in range(30)}) == 2


async def test_an_endpoint_says_by_what_its_callers_are_known():
    canary = route(target("1", weight=50), target("2", Role.CANARY, 50))
    plane = Plane({URL: labels, target("2").url: labels}, routes=(canary,))
    plane.rule(sticky=("tenant", b"x-team"))

    async def versions(**way):
        return [(await plane.predict(**way)).version for _ in range(12)]

    for value in ("a", "b", "c", "d"):
        by_key = await versions(
            body=body({"input": "a", "metadata": {"tenant": value, "user": "u"}}), header=lambda _: "z"
        )
        by_header = await versions(header=lambda name, value=value: value if name == b"x-team" else "")
        by_session = await versions(session=value)
        assert set(by_key) == set(by_header) == set(by_session)
        assert len(set(by_key)) == 1
    assert len(set(await versions(body=b'{"input": "a", "metadata": {"user": "u1"}}'))) == 2


async def test_openais_user_counts_before_a_session():
    shares = (target("1", weight=50, model="assistant"), target("2", Role.CANARY, 50, "assistant"))
    plane = Plane({one.url: talker("hi") for one in shares}, routes=(replace(ASSISTANT, targets=shares),))

    async def version(user, session):
        chat = plane.inbound(Form.CHAT, body({**HELLO, "user": user}), session=session)
        return (await plane.gateway.answer(chat)).version

    for user in ("a", "b", "c", "d"):
        assert len({await version(user, f"session-{n}") for n in range(12)}) == 1


async def test_shadows_get_a_copy_after_the_answer_and_a_record_of_their_own():
    plane = Plane(
        {URL: labels, SHADOW.url: lambda _: reply({"predictions": ["other"]})}, routes=(route(target(), SHADOW),)
    )
    answer = await plane.predict(b'{"input": "a", "metadata": {"group": "north"}}')
    assert answer.body == b'"A"'
    assert len(plane.intents) == 1
    await plane.gateway.close(5.0)
    copy = plane.intents[1]
    assert (copy.role, copy.version, copy.shadow_of) == (Role.SHADOW, "2", plane.intents[0].request_id)
    assert (copy.metadata, copy.request_id != copy.shadow_of) == ({"group": "north"}, True)
    assert plane.outcomes[1].response == b'"other"'


async def test_a_stream_is_copied_to_shadows_in_one_piece():
    shadow = target("2", Role.SHADOW, 0, "assistant")
    routes = (replace(ASSISTANT, targets=(*ASSISTANT.targets, shadow)),)
    plane = Plane({CHAT_URL: talker("a"), shadow.url: talker("b")}, routes=routes)
    await spoken(await chatting(plane, stream=True))
    await plane.gateway.close(5.0)
    assert "stream" not in plane.upstream.asked[1][1].json
    assert json.loads(plane.outcomes[1].response) == completion("b")


async def test_a_shadow_that_fails_hurts_nobody_and_is_on_record():
    plane = Plane({URL: labels}, routes=(route(target(), SHADOW),))
    assert (await plane.predict()).status == 200
    await plane.gateway.close(5.0)
    assert plane.endings == [("answered", 200), ("failed", 502)]


async def test_requests_that_were_not_answered_are_not_copied():
    plane = Plane({SHADOW.url: labels}, routes=(route(target(), SHADOW),))
    await plane.predict()
    await plane.gateway.close(5.0)
    assert len(plane.intents) == 1


async def test_copies_that_are_too_many_are_counted_and_not_made(monkeypatch):
    monkeypatch.setattr(shadows, "MOST", 2)
    hanging = Script(before=Step.HANG)
    plane = Plane({URL: labels, SHADOW.url: lambda _: hanging}, routes=(route(target(), SHADOW),))
    for _ in range(5):
        await plane.predict()
    assert plane.counts.dropped == 3
    await plane.gateway.close(0.01)
    assert [kind for kind, _ in plane.endings].count("interrupted") == 2
    assert plane.counts.under_way == 0
