"""A trial over a real socket: what is asked, what is gathered, what is refused."""

import asyncio
import json
import threading
from contextlib import contextmanager

import pytest
from aiohttp import web

from noria.adapters.upstreams.own import HttpUpstream
from noria.domain.errors import InvalidData, UpstreamFailed
from noria.release.trial import BATCH, PROMPTS, SINGLES, WARM_UP, Trial


@contextmanager
def model_server(path, answer):
    """A server on a unix socket in a thread of its own; yields its URL and the bodies it was sent."""
    bodies, loop, ready = [], asyncio.new_event_loop(), threading.Event()

    async def handle(request):
        bodies.append((request.path, await request.json()))
        return answer(request.path, bodies[-1][1])

    async def serve():
        app = web.Application()
        app.router.add_post("/{path:.*}", handle)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        await web.UnixSite(runner, str(path)).start()
        return runner

    runner = loop.run_until_complete(serve())
    thread = threading.Thread(target=lambda: (ready.set(), loop.run_forever()))
    thread.start()
    ready.wait()
    try:
        yield f"unix:{path}", bodies
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def upper(path, body):
    return web.json_response(
        {
            "predictions": [text.upper() for text in body["inputs"]],
            "probabilities": [{text.upper(): 0.9} for text in body["inputs"]],
        }
    )


def test_every_row_is_answered_in_order_some_of_them_alone(tmp_path):
    texts = [f"text {n}" for n in range(SINGLES + BATCH + 5)]
    with model_server(tmp_path / "s", upper) as (url, bodies):
        answers = Trial(HttpUpstream).classify(url, texts)
    assert answers.predictions == tuple(text.upper() for text in texts)
    assert answers.probabilities[7] == {"TEXT 7": 0.9}
    assert len(answers.latencies_ms) == SINGLES
    assert min(answers.latencies_ms) > 0
    assert sorted(len(body["inputs"]) for _, body in bodies) == [1] * (WARM_UP + SINGLES) + [5, BATCH]


def test_fewer_rows_than_are_asked_alone_are_enough(tmp_path):
    with model_server(tmp_path / "s", upper) as (url, _):
        assert Trial(HttpUpstream).classify(url, ["a"]).predictions == ("A",)


def test_no_rows_are_no_trial():
    with pytest.raises(InvalidData, match="no held-out rows"):
        Trial(HttpUpstream).classify("unix:/nowhere", [])


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (lambda: web.json_response({"predictions": []}), "one answer for each row"),
        (lambda: web.Response(text="garbage"), "one answer for each row"),
        (lambda: web.Response(status=500, text="CUDA is sad"), "500: CUDA is sad"),
    ],
)
def test_a_server_that_fails_is_named_with_what_it_said(tmp_path, reply, says):
    with (
        model_server(tmp_path / "s", lambda path, body: reply()) as (url, _),
        pytest.raises(UpstreamFailed, match=says),
    ):
        Trial(HttpUpstream).classify(url, ["a", "b"])


def test_a_server_that_fails_at_the_rest_of_the_rows_is_named_too(tmp_path):
    def alone(path, body):
        return upper(path, body) if len(body["inputs"]) == 1 else web.Response(status=500, text="too many at once")

    with (
        model_server(tmp_path / "s", alone) as (url, _),
        pytest.raises(UpstreamFailed, match="500: too many at once"),
    ):
        Trial(HttpUpstream).classify(url, [f"text {n}" for n in range(SINGLES + 3 * BATCH)])


def test_a_server_that_is_not_there_is_an_upstream_failure(tmp_path):
    with pytest.raises(UpstreamFailed):
        Trial(HttpUpstream).classify(f"unix:{tmp_path}/nobody", ["a"])


def test_a_chat_version_is_asked_a_few_questions(tmp_path):
    def say(path, body):
        content = body["messages"][-1]["content"]
        return web.json_response({"choices": [{"message": {"role": "assistant", "content": f"Re: {content}"}}]})

    with model_server(tmp_path / "s", say) as (url, bodies):
        answers = Trial(HttpUpstream).chat(url)
    assert answers.predictions == tuple(f"Re: {prompt}" for prompt in PROMPTS)
    assert len(answers.latencies_ms) == len(PROMPTS)
    assert {path for path, _ in bodies} == {"/v1/chat/completions"}


def test_a_chat_version_that_answers_no_completion_is_an_upstream_failure(tmp_path):
    with (
        model_server(tmp_path / "s", lambda path, body: web.Response(text=json.dumps({"ok": True}))) as (url, _),
        pytest.raises(UpstreamFailed, match="did not give one answer"),
    ):
        Trial(HttpUpstream).chat(url)


@pytest.mark.parametrize("prompts", [PROMPTS, tuple(f"Say {n}." for n in range(SINGLES + 20))], ids=["few", "many"])
def test_a_chat_server_that_fails_is_named_with_what_it_said(tmp_path, prompts):
    with (
        model_server(tmp_path / "s", lambda path, body: web.Response(status=503, text="no slot")) as (url, _),
        pytest.raises(UpstreamFailed, match="503: no slot"),
    ):
        Trial(HttpUpstream).chat(url, prompts)
