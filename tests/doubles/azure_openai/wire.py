"""The data plane of the double: chats, streams, embeddings, files, fine-tuning jobs."""

import math
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from email import message_from_bytes
from typing import Any

from doubles.azure_openai.learning import chat_tokens, embed, tokens
from doubles.azure_openai.world import Refusal, World

_PATH = re.compile(r"(?:/openai/deployments/(?P<deployment>[^/]+)|/openai/v1|/openai|/v1)(?P<what>/.*)")


class Stream:
    """An answer that comes in pieces."""

    def __init__(self, events: Iterator[dict[str, Any]]) -> None:
        self.events = events


class Data:
    """What the `openai` client talks to."""

    def __init__(self, world: World) -> None:
        self._world = world

    def answer(self, method: str, path: str, query: Mapping[str, str], body: Any, content_type: str) -> Any:
        """Answer a request: JSON, bytes or a stream."""
        asked = _PATH.fullmatch(path)
        if asked is None:
            raise Refusal(404, "404", f"There is nothing at {path}.")
        what = asked["what"].strip("/").split("/")
        name = asked["deployment"]
        match (method, *what):
            case ("POST", "chat", "completions"):
                return self._chat(body, name or str(body.get("model")))
            case ("POST", "embeddings"):
                return self._embeddings(body, name or str(body.get("model")))
            case ("POST", "files"):
                return self._upload(body, content_type).json()
            case ("GET", "files"):
                found = [f.json() for f in self._world.files.values() if query.get("purpose") in (None, f.purpose)]
                return _page(found, query)
            case (_, "files", file_id, *rest):
                return self._file(method, file_id, rest)
            case ("POST", "fine_tuning", "jobs"):
                with self._world.lock:
                    return self._world.begin(body).json()
            case ("GET", "fine_tuning", "jobs"):
                return _page([job.json() for job in reversed(list(self._world.jobs.values()))], query)
            case ("GET", "fine_tuning", "jobs", job_id):
                return self._world.job(job_id).json()
            case ("POST", "fine_tuning", "jobs", job_id, "cancel"):
                return self._world.cancel(job_id).json()
            case ("GET", "fine_tuning", "jobs", job_id, "events"):
                return _page(list(reversed(self._world.job(job_id).events)), query)
            case ("GET", "fine_tuning", "jobs", job_id, "checkpoints"):
                return _page(list(reversed(self._world.job(job_id).checkpoints)), query)
        raise Refusal(404, "404", f"There is nothing at {method} {path}.")

    def _file(self, method: str, file_id: str, rest: Sequence[str]) -> Any:
        with self._world.lock:
            if file_id not in self._world.files:
                raise Refusal(404, "notFound", f"There is no file {file_id}.")
            if method == "DELETE":
                del self._world.files[file_id]
                return {"id": file_id, "object": "file", "deleted": True}
            found = self._world.files[file_id]
        return found.content if list(rest) == ["content"] else found.json()

    def _upload(self, body: bytes, content_type: str) -> Any:
        parts = message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
        fields: dict[str, tuple[str, bytes]] = {}
        for part in parts.get_payload() if parts.is_multipart() else []:
            known = part.get_param("name", header="content-disposition")
            fields[str(known)] = (part.get_filename() or "", part.get_payload(decode=True))
        if "file" not in fields or "purpose" not in fields:
            raise Refusal(400, "invalidPayload", "A file and its purpose are needed.")
        name, content = fields["file"]
        with self._world.lock:
            return self._world.upload(name, fields["purpose"][1].decode(), content)

    def _chat(self, body: Any, name: str) -> Any:
        chat = body.get("messages")
        if not isinstance(chat, list) or not chat:
            raise Refusal(400, "invalid_request_error", "messages is missing.")
        likely = self._world.asked(name).likely(chat)
        said = max(likely, key=likely.__getitem__)
        usage = {"prompt_tokens": chat_tokens(chat), "completion_tokens": tokens(said)}
        usage["total_tokens"] = sum(usage.values())
        frame = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": name}
        if body.get("stream"):
            wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            return Stream(_pieces(frame, said, usage if wants_usage else None))
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        choice["logprobs"] = (
            _logprobs(likely, said, int(body.get("top_logprobs") or 0)) if body.get("logprobs") else None
        )
        return frame | {"object": "chat.completion", "choices": [choice], "usage": usage}

    def _embeddings(self, body: Any, name: str) -> Any:
        self._world.asked(name)
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        rows = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(embed(texts))]
        used = sum(map(tokens, texts))
        usage = {"prompt_tokens": used, "total_tokens": used}
        return {"object": "list", "data": rows, "model": name, "usage": usage}


def _pieces(frame: dict[str, Any], said: str, usage: dict[str, int] | None) -> Iterator[dict[str, Any]]:
    def piece(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return frame | {"object": "chat.completion.chunk", "choices": [choice]}

    yield piece({"role": "assistant", "content": ""})
    for word in re.findall(r"\s*\S+", said):
        yield piece({"content": word})
    yield piece({}, "stop")
    if usage is not None:
        yield frame | {"object": "chat.completion.chunk", "choices": [], "usage": usage}


def _logprobs(likely: Mapping[str, float], said: str, top: int) -> dict[str, Any]:
    """An answer counts as one token here."""

    def token(text: str) -> dict[str, Any]:
        return {"token": text, "logprob": math.log(max(likely[text], 1e-12)), "bytes": list(text.encode())}

    order = sorted(likely, key=lambda text: -likely[text])[:top]
    return {"content": [token(said) | {"top_logprobs": [token(text) for text in order]}]}


def _page(found: list[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    ids = [each["id"] for each in found]
    first = ids.index(query["after"]) + 1 if query.get("after") in ids else 0
    limit = int(query.get("limit") or 20)
    shown = found[first : first + limit]
    return {"object": "list", "data": shown, "has_more": first + limit < len(found)}
