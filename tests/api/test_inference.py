"""Inference over HTTP: whatever callers send, however they leave, and whatever becomes of the model servers."""

import asyncio
import contextlib
import json
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from fakes.plane import TRIAGE, route, target
from fakes.site import running, until
from fakes.story import PROJECT
from fakes.upstream import Script, Step, chat, events, labels, listening, reply, talker
from noria.domain.endpoint import Role
from noria.domain.inference import Outcome

SMALL = PROJECT.model_copy(update={"server": PROJECT.server.model_copy(update={"max_body_bytes": 2000})})
TIMEOUT = timedelta(seconds=0.5)
HELLO = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}
JSON = {"content-type": "application/json"}


@pytest.fixture
async def site(tmp_path):
    async with running(tmp_path, labels, talker("hi"), SMALL) as made:
        yield made


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("/predict", {"input": "good"}, "GOOD"),
        ("/predict/triage", {"input": ["good", "bad"]}, ["GOOD", "BAD"]),
        ("/predict/assistant", {"input": "hello"}, "hi"),
        ("/invocations", {"inputs": ["good"], "metadata": {"user": "u"}}, {"predictions": ["GOOD"]}),
        ("/endpoints/triage/invocations", {"inputs": ["good"]}, {"predictions": ["GOOD"]}),
        ("/serving-endpoints/triage/invocations", {"inputs": ["good"]}, {"predictions": ["GOOD"]}),
    ],
)
async def test_every_address_answers_and_leaves_a_record_under_the_id_that_it_gives(site, path, value, expected):
    status, answer, headers = await site.post(path, value)
    assert (status, answer) == (200, expected)
    assert site.intents[0].request_id == headers["x-request-id"]
    assert headers["x-noria-version"] == site.intents[0].model + "/1"
    assert json.loads(site.intents[0].request) == value
    assert site.endings == [("answered", 200)]


async def test_headers_say_who_asks_and_what_about(site):
    headers = {"x-client-request-id": "mine", "x-noria-metadata": '{"group": "nørd"}', "x-noria-session": "s1"}
    await site.post("/predict", {"input": "a", "metadata": {"user": "u"}}, headers=headers)
    assert site.intents[0].client_request_id == "mine"
    assert site.intents[0].metadata == {"group": "nørd", "user": "u"}


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{nope", JSON, 400, "invalid_request"),
        (b"", JSON, 400, "invalid_request"),
        (b'{"input": NaN}', JSON, 400, "invalid_request"),
        (b'{"input": "\xff\xfe"}', JSON, 400, "invalid_request"),
        (b'{"text": "a"}', JSON, 400, "invalid_request"),
        (b'["a"]', JSON, 400, "invalid_request"),
        (b"[" * 1500, JSON, 400, "invalid_request"),
        (b'{"input": "a", "metadata": 1}', JSON, 400, "invalid_request"),
        (b'{"input": "a"}', {**JSON, "x-noria-metadata": "nope"}, 400, "invalid_request"),
        (b'{"input": "a"}', {**JSON, "content-encoding": "gzip"}, 415, "unsupported_media"),
        (b'{"input": "a"}', {"content-type": "application/xml"}, 415, "unsupported_media"),
        (b'{"input": "a"}', {"content-type": "application/x-www-form-urlencoded"}, 415, "unsupported_media"),
        (b'{"input": "a"}', {"content-type": "application/json; charset=utf-16"}, 415, "unsupported_media"),
        (b'{"input": "' + b"a" * 3000 + b'"}', JSON, 413, "request_too_large"),
    ],
)
async def test_what_cannot_be_answered_is_refused_with_what_to_send_and_is_on_record(site, body, headers, status, code):
    got, problem, answered = await site.post("/predict", data=body, headers=headers)
    assert (got, problem["error_code"]) == (status, code)
    assert all((problem["message"], problem["remedy"]))
    assert answered["x-request-id"] == site.intents[0].request_id
    assert (site.intents[0].version, site.endings) == ("1", [("rejected", status)])


async def test_unknown_endpoints_and_methods_are_told(site):
    status, problem, _ = await site.post("/predict/nope", {"input": "a"})
    assert (status, problem["error_code"]) == (404, "unknown_endpoint")
    assert "triage, assistant" in problem["remedy"]
    async with site.http.get(site.url + "/predict") as response:
        assert (response.status, response.headers["allow"]) == (405, "POST")
    status, problem, _ = await site.post("/predict/a/b", {"input": "a"})
    assert (status, problem["error_code"]) == (404, "not_found")
    assert site.intents == []


async def test_a_body_without_a_declared_length_is_stopped_where_it_is_too_long(site):
    sent = 0

    async def endless():
        nonlocal sent
        for _ in range(50):
            sent += 1000
            yield b"a" * 1000

    status, problem, _ = await site.post("/predict", data=endless(), headers=JSON)
    assert (status, problem["error_code"]) == (413, "request_too_large")
    assert sent == 50_000
    status, answer, _ = await site.post("/predict", {"input": "still there"})
    assert (status, answer) == (200, "STILL THERE")


async def test_a_caller_who_asks_first_whether_a_long_body_is_welcome_need_not_send_it(site):
    address = urlsplit(site.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"POST /predict HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 9999\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_a_caller_who_leaves_in_the_middle_of_his_request_leaves_nothing(site):
    address = urlsplit(site.url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
    await writer.drain()
    writer.close()
    assert (await site.post("/predict", {"input": "next"}))[0] == 200
    assert len(site.intents) == 1


# --- callers who leave ---


async def test_a_caller_who_leaves_before_the_answer_frees_the_model_and_is_on_record(tmp_path):
    arrived, script = asyncio.Event(), Script(before=Step.HANG)

    def handle(_):
        arrived.set()
        return script

    async with running(tmp_path, handle) as site:
        asking = asyncio.create_task(site.post("/predict", {"input": "a"}))
        await asyncio.wait_for(arrived.wait(), 10)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert await site.ended() == [("disconnected", 499)]
        await asyncio.wait_for(script.gone.wait(), 10)


async def test_a_caller_who_leaves_a_stream_frees_the_model_and_what_was_said_is_on_record(tmp_path):
    script = events(*chat("par", "tial")[:2], done=False, then=(Step.HANG,))
    async with running(tmp_path, labels, lambda _: script) as site:
        async with site.http.post(site.url + "/v1/chat/completions", json={**HELLO, "stream": True}) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            await response.content.readuntil(b"par")
        assert await site.ended() == [("disconnected", 200)]
        await asyncio.wait_for(script.gone.wait(), 10)
        said = json.loads(site.written(Outcome)[0].response)
        assert said["choices"][0]["message"]["content"] == "par"


# --- model servers that fail ---


@pytest.mark.parametrize(
    ("script", "status", "kind"),
    [
        (reply({"message": "division by zero"}, 500), 502, "failed"),
        (Script(before=b"SSH-2.0\r\n"), 502, "failed"),
        (Script(before=Step.CUT), 502, "failed"),
        (Script(pieces=(b"<html>",)), 502, "failed"),
        (Script(pieces=(b'{"predic', Step.CUT)), 502, "failed"),
        (Script(before=Step.HANG), 504, "timed_out"),
    ],
)
async def test_a_model_server_that_fails_is_told_and_on_record(tmp_path, script, status, kind):
    triage = PROJECT.endpoints["triage"].model_copy(update={"timeout": TIMEOUT})
    quick = PROJECT.model_copy(update={"endpoints": {**PROJECT.endpoints, "triage": triage}})
    async with running(tmp_path, lambda _: script, project=quick, patience_s=0.1) as site:
        got, problem, _ = await site.post("/predict", {"input": "a"})
        assert got == status
        assert problem["message"]
        assert site.endings == [(kind, status)]


async def test_a_model_server_that_is_replaced_fails_no_request(tmp_path):
    async with running(tmp_path, project=PROJECT) as site, contextlib.AsyncExitStack() as stack:
        where = tmp_path / "gone.sock"
        site.put(route(replace(target(), url=f"unix:{where}")))
        await until(lambda: "triage" in site.router.snapshot.routes)
        asking = [asyncio.create_task(site.post("/predict", {"input": "a"})) for _ in range(20)]
        await asyncio.sleep(0.1)
        url = await stack.enter_async_context(listening(labels, tmp_path))
        site.put(route(replace(target(), url=url), revision=2))
        assert {(await answer)[0] for answer in asking} == {200}


async def test_a_dead_state_database_does_not_stop_inference(site):
    site.state.revision = lambda: 1 / 0
    await until(lambda: site.router.stale_since)
    assert (await site.post("/predict", {"input": "a"}))[0] == 200
    status, body, _ = await site.get("/readyz")
    assert (status, json.loads(body)["stale_since"] is not None) == (200, True)


async def test_a_full_log_gives_no_answers_and_says_so_until_it_has_room_again(site):
    site.spool.full = True
    status, problem, headers = await site.post("/predict", {"input": "a"})
    assert (status, problem["error_code"], headers["retry-after"]) == (503, "log_unavailable", "1")
    assert (await site.get("/readyz"))[0] == 503
    site.spool.full = False
    assert (await site.post("/predict", {"input": "a"}))[0] == 200
    assert (await site.get("/readyz"))[0] == 200


async def test_versions_are_swapped_under_load_without_a_failed_request(tmp_path):
    def version(name):
        return lambda asked: reply({"predictions": [name for _ in asked.json["inputs"]]})

    async with running(tmp_path, version("1")) as site, contextlib.AsyncExitStack() as stack:
        first = site.state.find(type(TRIAGE))[0].champion
        url = await stack.enter_async_context(listening(version("2"), tmp_path))
        second = replace(target("2"), url=url)
        statuses, answers, stop = [], [], asyncio.Event()

        async def caller(name):
            while not stop.is_set():
                status, answer, _ = await site.post("/predict", {"input": "a", "metadata": {"user": name}})
                statuses.append(status)
                answers.append(answer)

        async with asyncio.TaskGroup() as callers:
            for n in range(8):
                callers.create_task(caller(f"u{n}"))
            for revision, weight in enumerate((10, 50, 90), start=2):
                canary = replace(second, role=Role.CANARY, weight=weight)
                site.put(route(replace(first, weight=100 - weight), canary, revision=revision))
                await until(lambda at=revision: site.router.route("triage").revision == at)
                await asyncio.sleep(0.05)
            site.put(replace(route(second, revision=5), previous=first))
            await until(lambda: site.router.route("triage").revision == 5)
            done = len(statuses)
            await until(lambda: len(statuses) > done + 20)
            stop.set()
        assert set(statuses) == {200}
        assert (answers[0], answers[-1]) == ("1", "2")
        assert len(site.endings) == len(statuses) == len({i.request_id for i in site.intents})


async def test_a_shadow_gets_its_copy_on_its_own_time(tmp_path):
    async with running(tmp_path, labels) as site, listening(lambda _: reply({"predictions": ["x"]}), tmp_path) as url:
        champion = site.state.find(type(TRIAGE))[0].champion
        site.put(route(champion, replace(target("2", Role.SHADOW, 0), url=url), revision=2))
        await until(lambda: site.router.route("triage").shadows)
        assert (await site.post("/predict", {"input": "a"}))[1] == "A"
        await site.ended(2)
        assert [(i.role, i.version) for i in site.intents] == [(Role.CHAMPION, "1"), (Role.SHADOW, "2")]


async def test_a_connection_is_kept_and_serves_one_request_after_the_other(site):
    address = urlsplit(site.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    for n in range(3):
        body = b'{"input": "a%d"}' % n
        writer.write(b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(4) == b'"A%d"' % n
    writer.close()


async def test_a_callers_trace_goes_through_to_the_record_and_over_the_wire_to_the_model_server(tmp_path):
    trace, span, heard = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", []
    sent = [("traceparent", f"00-{trace}-{span}-01"), ("tracestate", "vendor=1,two=2"), ("tracestate", "three=3")]
    async with running(tmp_path, lambda asked: heard.append(asked.headers) or labels(asked)) as site:
        _, _, headers = await site.post("/predict", {"input": "a"}, headers=sent)
        (intent,) = site.intents
    assert (intent.trace_id, intent.parent_span_id) == (trace, span)
    assert heard[0]["traceparent"] == f"00-{trace}-{intent.span_id}-01"
    assert heard[0]["tracestate"] == "vendor=1,two=2,three=3"
    assert "traceparent" not in headers
