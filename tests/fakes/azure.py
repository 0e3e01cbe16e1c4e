"""A double of Azure OpenAI on a real socket: its two kinds of path and of credentials, its errors, its streams."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

CLASSIC = re.compile(r"/openai/deployments/(?P<deployment>[^/]+)/(?P<what>chat/completions|completions|embeddings)")
V1 = re.compile(r"/openai/v1/(?P<what>chat/completions|completions|embeddings)")


@dataclass
class AzureDouble:
    """What the double grants, and what it was asked."""

    deployments: tuple[str, ...] = ("gpt-4o-mini",)
    key: str = "azure-key"
    token: str = "entra-token"
    url: str = ""
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    """Path with query, headers by lower-case name, body."""

    def refusal(self, path: str, headers: dict[str, str], body: Any) -> tuple[int, str, str] | None:
        """Status, code and message of Azure's own errors; None for a request that it takes."""
        if headers.get("api-key") != self.key and headers.get("authorization") != f"Bearer {self.token}":
            return 401, "401", "Access denied due to invalid subscription key or wrong API endpoint."
        parts = urlsplit(path)
        if (classic := CLASSIC.fullmatch(parts.path)) is not None:
            if not re.match(r"\d{4}-\d{2}-\d{2}", parse_qs(parts.query).get("api-version", [""])[0]):
                return 404, "404", "Resource not found"
            deployment = classic["deployment"]
        elif V1.fullmatch(parts.path) is not None:
            deployment = body.get("model")
        else:
            return 404, "404", "Resource not found"
        if deployment not in self.deployments:
            return 404, "DeploymentNotFound", "The API deployment for this resource does not exist."
        return None

    @property
    def last(self) -> tuple[str, dict[str, str], Any]:
        return self.asked[-1]


@contextmanager
def azure(**options: Any) -> Iterator[AzureDouble]:
    """The double, listening on a free port of this machine."""
    double = AzureDouble(**options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            double.asked.append((self.path, headers, body))
            refused = double.refusal(self.path, headers, body)
            if refused is not None:
                status, code, message = refused
                self._whole(status, {"error": {"code": code, "message": message}})
            elif body.get("stream"):
                self._stream(body)
            else:
                self._whole(200, completion(body))

        def _whole(self, status: int, value: Any) -> None:
            raw = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def _stream(self, body: Any) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream; charset=utf-8")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for line in (*chunks(body), b"data: [DONE]\n\n"):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        double.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield double
        finally:
            server.shutdown()
            thread.join()


def said(body: Any) -> list[str]:
    """What it answers: the last message, word by word."""
    return [f"{word} " for word in f"You said: {body['messages'][-1]['content']}".split()]


def completion(body: Any) -> dict[str, Any]:
    """An answer in one piece, with the fields that only Azure has."""
    if "input" in body:
        data = [{"object": "embedding", "index": 0, "embedding": [0.25, 0.5]}]
        return {"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 2, "total_tokens": 2}}
    words = said(body)
    message = {"role": "assistant", "content": "".join(words).strip(), "refusal": None}
    return {
        "id": "chatcmpl-azure",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini-2024-07-18",
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "content_filter_results": {}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": len(words), "total_tokens": 9 + len(words)},
    }


def chunks(body: Any) -> Iterator[bytes]:
    """The same as a stream: Azure begins with a chunk that has no choices."""
    head = {"id": "chatcmpl-azure", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini-2024-07-18"}
    yield event({**head, "choices": [], "prompt_filter_results": []})
    for word in said(body):
        yield event({**head, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
    yield event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if body.get("stream_options", {}).get("include_usage"):
        usage = {"prompt_tokens": 9, "completion_tokens": len(said(body)), "total_tokens": 9 + len(said(body))}
        yield event({**head, "choices": [], "usage": usage})


def event(value: Any) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()
