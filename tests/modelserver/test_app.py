"""The model server's HTTP face: status codes, MLflow's error bodies, callers that leave."""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fakes.asgi import Caller, Reply
from noria.modelserver.app import MAX_BODY, App
from noria.modelserver.batching import Answer, Batcher, Call

JSON = ((b"content-type", b"application/json"),)


class Model:
    """Fails as its input says."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()
        self.rows: list[Any] = []

    def __call__(self, call: Call) -> Answer:
        self.asked.set()
        assert self.gate.wait(30)
        self.rows += call.rows
        for row in call.rows:
            if row in _FAILURES:
                raise _FAILURES[row]
        return Answer(call.rows, [{"yes": 1.0} for _ in call.rows])


_FAILURES = {"wrong": ValueError("that is wrong"), "type": TypeError("that type"), "broken": RuntimeError("secret")}


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def app(model: Model) -> Iterator[App]:
    batcher = Batcher(model, max_queue=1)
    yield App(batcher)
    model.gate.set()
    batcher.close()


async def ask(app: App, method: str, path: str, caller: Caller, headers: Any = JSON) -> Reply:
    reply = Reply()
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    await app(scope, caller.receive, reply.send)
    return reply


async def queued(app: App) -> None:
    """Come back once a call waits for the model."""
    for _ in range(1000):
        if app._batcher._waiting:
            return
        await asyncio.sleep(0)
    raise AssertionError("no call waits")


async def invoke(app: App, *rows: Any) -> Reply:
    return await ask(app, "POST", "/invocations", Caller(json.dumps({"inputs": list(rows)}).encode()))


async def test_an_invocation_is_answered_with_predictions_and_probabilities(app: App) -> None:
    reply = await invoke(app, "a")
    assert (reply.status, reply.json) == (200, {"predictions": ["a"], "probabilities": [{"yes": 1.0}]})
    assert reply.headers == {b"content-type": b"application/json", b"content-length": str(len(reply.body)).encode()}


async def test_a_body_may_come_in_pieces(app: App) -> None:
    reply = await ask(app, "POST", "/invocations", Caller(b'{"inp', b'uts": ["a"]}'))
    assert reply.json["predictions"] == ["a"]


@pytest.mark.parametrize("path", ["/ping", "/health"])
async def test_a_server_that_listens_is_well(app: App, path: str) -> None:
    reply = await ask(app, "GET", path, Caller())
    assert (reply.status, reply.body) == (200, b"\n")


async def test_the_version_is_that_of_the_wire(app: App) -> None:
    reply = await ask(app, "GET", "/version", Caller())
    assert reply.status == 200
    assert reply.body.startswith(b"3.")


@pytest.mark.parametrize(("row", "message"), [("wrong", "that is wrong"), ("type", "that type")])
async def test_a_model_that_objects_to_its_input_is_a_bad_request(app: App, row: str, message: str) -> None:
    reply = await invoke(app, row)
    assert (reply.status, reply.json) == (400, {"error_code": "BAD_REQUEST", "message": message})


async def test_a_model_that_breaks_is_a_server_error_without_a_traceback(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    reply = await invoke(app, "broken")
    assert (reply.status, reply.json["error_code"]) == (500, "INTERNAL_ERROR")
    assert reply.json["message"] == "The model failed: RuntimeError: secret"
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", JSON, 400),
        (b'{"inputs": []}', JSON, 400),
        (b'{"inputs": ["a"]}', ((b"content-type", b"image/png"),), 415),
    ],
)
async def test_a_body_that_cannot_be_read_is_told(app: App, body: bytes, headers: Any, status: int) -> None:
    reply = await ask(app, "POST", "/invocations", Caller(body), headers)
    assert (reply.status, reply.json["error_code"]) == (status, "BAD_REQUEST")


async def test_a_body_without_end_is_cut_off(app: App) -> None:
    chunk = b" " * (MAX_BODY // 2)
    assert (await ask(app, "POST", "/invocations", Caller(chunk, chunk, b"  "))).status == 413


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/", 404), ("GET", "/invocations", 405)])
async def test_an_unknown_path_or_method_is_told(app: App, method: str, path: str, status: int) -> None:
    assert (await ask(app, method, path, Caller())).status == status


async def test_a_full_queue_says_when_to_come_back(app: App, model: Model) -> None:
    model.gate.clear()
    first = asyncio.create_task(invoke(app, "a"))
    assert await asyncio.to_thread(model.asked.wait, 30)
    second = asyncio.create_task(invoke(app, "b"))
    await queued(app)
    third = await invoke(app, "c")
    assert (third.status, third.headers[b"retry-after"]) == (503, b"1")
    model.gate.set()
    assert [(await first).status, (await second).status] == [200, 200]


async def test_a_caller_that_leaves_is_not_computed_for(app: App, model: Model) -> None:
    model.gate.clear()
    first = asyncio.create_task(invoke(app, "a"))
    assert await asyncio.to_thread(model.asked.wait, 30)
    caller = Caller(b'{"inputs": ["b"]}')
    second = asyncio.create_task(ask(app, "POST", "/invocations", caller))
    await queued(app)
    caller.leave.set()
    assert (await second).status == 0
    model.gate.set()
    assert (await first).status == 200
    assert model.rows == ["a"]


async def test_a_caller_that_leaves_before_its_body_is_there_is_let_go(app: App) -> None:
    caller = Caller(b'{"in', b"never sent")
    caller.messages.pop()
    caller.leave.set()
    assert (await ask(app, "POST", "/invocations", caller)).status == 0
