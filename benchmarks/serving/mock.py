"""The model server that every gateway is put before: it reads what is asked, and answers at once or on the beat.

`python -m benchmarks.serving.mock --port N --socket PATH` listens on both. In a request `max_tokens` says how many
chunks a stream has, and `pause_ms` how long it waits between two.
"""

import argparse
import asyncio
import itertools
import json
import socket
import time
from typing import Any

import msgspec
import uvicorn

BACKLOG = 2048
HEAD = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "bench"}
WORDS = "The wheel turns as long as the river runs, and the river asks for nothing in return."
ANSWER = {
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": WORDS}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 40, "completion_tokens": 20, "total_tokens": 60},
}


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = HEAD | {"object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


FIRST, WORD, LAST = _event({"role": "assistant", "content": ""}), _event({"content": " river"}), _event({}, "stop")
_numbers = itertools.count()
_EVENTS = [(b"content-type", b"text/event-stream")]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """A bare ASGI application."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    asked = json.loads(body)
    if asked.get("stream"):
        await _stream(asked, send)
        return
    head = {"id": f"chatcmpl-{next(_numbers)}", "created": int(time.time()), "model": asked["model"]}
    answer = json.dumps(head | ANSWER).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def _stream(asked: dict[str, Any], send: Any) -> None:
    """Chunks on the beat, whatever happened to the ones before."""
    count, pause_s = asked.get("max_tokens", 20), asked.get("pause_ms", 0) / 1000
    await send({"type": "http.response.start", "status": 200, "headers": _EVENTS})
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for number in range(count):
        if (wait := begun + number * pause_s - loop.time()) > 0:
            await asyncio.sleep(wait)
        await send({"type": "http.response.body", "body": WORD if number else FIRST, "more_body": True})
    await send({"type": "http.response.body", "body": LAST + b"data: [DONE]\n\n"})


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--socket", required=True)
    options = parser.parse_args()
    local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    local.bind(options.socket)
    local.listen(BACKLOG)
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="warning", backlog=BACKLOG
    )
    uvicorn.Server(config).run([socket.create_server(("127.0.0.1", options.port), backlog=BACKLOG), local])


if __name__ == "__main__":
    main()
