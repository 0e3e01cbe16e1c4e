"""The model server's HTTP face: MLflow's scoring wire as a bare ASGI application."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import aclosing
from importlib.metadata import version
from typing import Any

from noria.adapters.uvicorn import LINE, Line, write_whole
from noria.domain.errors import InvalidRequest, NotReady, Overloaded, RequestTooLarge, UnsupportedMedia
from noria.modelserver import chat
from noria.modelserver.batching import Answer, Batcher, Call
from noria.modelserver.wire import encode, parse, reply
from noria.ports import UpstreamReply

log = logging.getLogger(__name__)

MAX_BODY = 64_000_000
"""Longest body, in bytes; the gateway's own limit is lower."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Passage = Callable[[bytes], Awaitable[UpstreamReply]]
_JSON = (b"content-type", b"application/json")

_PROBLEMS: tuple[tuple[type[Exception], int, str], ...] = (
    (RequestTooLarge, 413, "REQUEST_LIMIT_EXCEEDED"),
    (UnsupportedMedia, 415, "BAD_REQUEST"),
    (InvalidRequest, 400, "BAD_REQUEST"),
    (Overloaded, 503, "TEMPORARILY_UNAVAILABLE"),
    (NotReady, 503, "TEMPORARILY_UNAVAILABLE"),
    (ValueError, 400, "BAD_REQUEST"),
    (TypeError, 400, "BAD_REQUEST"),
)
"""Error → status and MLflow's error code. A model that raises the last two says that the input is at fault."""


class CallerLeft(Exception):
    """The caller closed the connection before the answer was there."""


class App:
    """`POST /invocations`, for a model that chats also `/v1/chat/completions`; `GET /ping`, `/health`, `/version`.

    Args:
        batcher: Puts calls to the model.
        chats: Whether it chats.
        passage: Where chats go on to, for a model that answers them somewhere else; what is said there is passed on as
            it comes.
    """

    def __init__(self, batcher: Batcher, *, chats: bool = False, passage: Passage | None = None) -> None:
        self._batcher = batcher
        self._chats = chats
        self._passage = passage
        self._version = version("mlflow").encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        if path == "/invocations" and method == "POST" and not self._chats:
            await self._invoke(scope, receive, send)
        elif path in ("/invocations", "/v1/chat/completions") and method == "POST" and self._chats:
            await (self._chat if self._passage is None else self._pass)(scope, receive, send)
        elif path in ("/ping", "/health") and method == "GET":
            await _respond(send, 200, b"\n")
        elif path == "/version" and method == "GET":
            await _respond(send, 200, self._version, (b"content-type", b"text/plain"))
        else:
            known = path in ("/invocations", "/ping", "/health", "/version")
            await _respond(send, 405 if known else 404, _problem("NOT_FOUND", f"There is no {method} {path}."))

    async def _invoke(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            call = parse(await _body(receive), _header(scope, b"content-type"))
            if not call.rows:
                raise InvalidRequest("The request has no rows.", "Send at least one.")
            answer = await self._submit(call, scope, receive)
            await _respond(send, 200, reply(answer))
        except CallerLeft:
            return
        except Exception as error:
            await _fail(send, error)

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            asked = chat.read(await _body(receive))
            call = Call([asked], params=chat.PARAMS)
            [said] = (await self._submit(call, scope, receive)).predictions
            if asked.get("stream") is True:
                usage = bool((asked.get("stream_options") or {}).get("include_usage"))
                await _respond(send, 200, chat.events(said, usage=usage), (b"content-type", b"text/event-stream"))
            else:
                await _respond(send, 200, encode(said))
        except CallerLeft:
            return
        except Exception as error:
            await _fail(send, error)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a chat on, and what is said back, piece by piece; given up when the caller closes the connection."""
        assert self._passage is not None
        line: Line | None = scope.get(LINE)
        waiting, begun = asyncio.current_task(), False
        if line is not None and waiting is not None:
            line.watch(waiting.cancel)
        try:
            reply = await self._passage(await _body(receive))
            async with aclosing(reply.chunks):
                kind = reply.headers.get("content-type", "application/json").encode("latin-1")
                head = {"type": "http.response.start", "status": reply.status, "headers": [(b"content-type", kind)]}
                async for chunk in reply.chunks:
                    if not begun:
                        await send(head)
                        begun = True
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                if not begun:
                    await send(head)
            await send({"type": "http.response.body", "body": b""})
        except CallerLeft:
            return
        except asyncio.CancelledError:
            if line is None or waiting is None or not line.disconnected:
                raise
            waiting.uncancel()
        except Exception as error:
            if begun:
                raise  # the connection breaks, so that half an answer isn't taken for a whole one
            await _fail(send, error)
        finally:
            if line is not None:
                line.on_cut = None

    async def _submit(self, call: Call, scope: Scope, receive: Receive) -> Answer:
        """The model's answer; the call is given up when the caller closes the connection.

        Raises:
            CallerLeft: The caller did.
        """
        line: Line | None = scope.get(LINE)
        waiting = asyncio.current_task()
        if line is None or waiting is None:
            answer: Answer = await _unless_told(self._batcher.submit(call), receive)
            return answer
        line.watch(waiting.cancel)
        try:
            return await self._batcher.submit(call)
        except asyncio.CancelledError:
            if not line.disconnected:
                raise
            waiting.uncancel()
            raise CallerLeft from None
        finally:
            line.on_cut = None


async def _body(receive: Receive) -> bytes:
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerLeft
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > MAX_BODY:
            raise RequestTooLarge(f"The body is longer than {MAX_BODY} bytes.", "Send fewer rows at a time.")
        if not message.get("more_body"):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _unless_told(work: Awaitable[Any], receive: Receive) -> Any:
    """Wait for the work; give it up when the caller closes the connection.

    Raises:
        CallerLeft: The caller did.
    """
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(receive())  # after the body there is nothing to receive but the disconnection
    try:
        await asyncio.wait((task, left), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise CallerLeft
        return task.result()
    finally:
        task.cancel()
        left.cancel()


async def _fail(send: Send, error: Exception) -> None:
    """Answer with what went wrong; what nobody expected is logged with its traceback, and told without."""
    status, code = next(((s, c) for kind, s, c in _PROBLEMS if isinstance(error, kind)), (500, "INTERNAL_ERROR"))
    message = str(error) or type(error).__name__
    if status == 500:
        log.error("the model failed", exc_info=error)
        message = f"The model failed: {type(error).__name__}: {error}"
    headers = ((b"retry-after", b"1"),) if status == 503 else ()
    await _respond(send, status, _problem(code, message), _JSON, *headers)


def _problem(code: str, message: str) -> bytes:
    return encode({"error_code": code, "message": message})


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


async def _respond(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    said = [(name.decode(), value.decode("latin-1")) for name, value in headers or (_JSON,)]
    if write_whole(send, status, [*said, ("content-length", str(len(body)))], body):
        return
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*(headers or (_JSON,)), length]})
    await send({"type": "http.response.body", "body": body})
