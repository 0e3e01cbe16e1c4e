"""`POST /feedback`: what somebody says about an answer, once or again; a repeat changes nothing.

An entry names its answer by `request_id` (the x-request-id of the response). `endpoint` says which endpoint gave the
answer; without it the default endpoint is meant. `feedback_id` is the entry's identity; without it the identity is made
from the entry's content, so that the same entry sent twice is one.
"""

import asyncio
import math
import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, TypedDict

import msgspec

from noria.api.messages import Request, Send, respond
from noria.api.problems import RETRY_AFTER_S, MethodNotAllowed, explain
from noria.domain.errors import InvalidRequest, NoriaError, UnknownEndpoint
from noria.serving import bodies
from noria.serving.log.recorder import Recorder
from noria.serving.router import Router
from noria.settings import Project

MOST = 1000
"""Entries that one request may hold."""
FIELDS = ("request_id", "endpoint", "label", "score", "comment", "source", "feedback_id")
_REMEDY = 'Send {"request_id": "…", "label": "…"}, with score (0 to 1) or comment instead of or beside label.'
_REQUEST_ID = re.compile(r"[0-9a-f]{32}")
_LONGEST_NAME = 200


class Entry(TypedDict):
    """One thing that somebody says, as `Recorder.feedback` takes it."""

    request_id: str
    endpoint: str
    label: str | None
    score: float | None
    comment: str | None
    source: str
    feedback_id: str


class FeedbackDesk:
    """Takes feedback."""

    def __init__(self, recorder: Recorder, router: Router) -> None:
        self._recorder = recorder
        self._router = router

    async def handle(self, request: Request, send: Send) -> None:
        """Answer with the entries' ids once all of them are on disk.

        Raises:
            CallerLeft: The caller went away in the middle of his request.
        """
        headers: tuple[tuple[str, str], ...] = ()
        try:
            if request.method != "POST":
                headers = (("allow", "POST"),)
                raise MethodNotAllowed(f"/feedback takes POST, not {request.method}.", "POST a JSON body.")
            entries = await self._read(request)
            if request.key is not None:
                for entry in entries:
                    request.key.check(entry["endpoint"])
            written = await asyncio.gather(*(self._recorder.feedback(**entry) for entry in entries))
        except NoriaError as error:
            status, body = explain(error)
            headers = (*headers, ("retry-after", RETRY_AFTER_S if status == 503 else ""))
            await respond(send, request.id, status, body, headers=headers)
            return
        body = msgspec.json.encode({"feedback_ids": [entry.feedback_id for entry in written]})
        await respond(send, request.id, 200, body)

    async def _read(self, request: Request) -> Sequence[Entry]:
        server = self._router.project.server
        body = await request.body(server.max_body_bytes, server.slow_client.total_seconds(), server.max_bodies_bytes)
        bodies.check_media(request.header(b"content-type"))
        value = bodies.load(body)
        items = value if isinstance(value, list) else [value]
        if not 0 < len(items) <= MOST:
            raise InvalidRequest(f"The list holds {len(items)} entries.", f"Send between 1 and {MOST} at a time.")
        return [entry_of(item, self._router.project) for item in items]


def entry_of(item: Any, project: Project) -> Entry:
    """One entry, checked.

    Args:
        item: What somebody sent for one.
        project: Says which endpoints there are.

    Raises:
        InvalidRequest: It is none; the sentence names the field.
        UnknownEndpoint: It names an endpoint that isn't there.
    """
    if not isinstance(item, dict):
        raise InvalidRequest("An entry is not an object.", _REMEDY)
    if unknown := [key for key in item if key not in FIELDS]:
        raise InvalidRequest(f"`{unknown[0][:64]}` is not a field of feedback.", f"Fields: {', '.join(FIELDS)}.")
    request_id = item.get("request_id")
    if not isinstance(request_id, str) or not _REQUEST_ID.fullmatch(request_id):
        raise InvalidRequest(
            "`request_id` is missing or not one of Noria's.", "Send the 32 hex digits of the answer's x-request-id."
        )
    label, score, comment = _label(item.get("label")), _score(item.get("score")), _text(item, "comment")
    if label is None and score is None and comment is None:
        raise InvalidRequest("The entry says nothing: label, score and comment are missing.", _REMEDY)
    entry = Entry(
        request_id=request_id,
        endpoint=_endpoint(_text(item, "endpoint"), project),
        label=label,
        score=score,
        comment=comment,
        source=_text(item, "source", _LONGEST_NAME) or "human",
        feedback_id=_text(item, "feedback_id", _LONGEST_NAME) or "",
    )
    entry["feedback_id"] = entry["feedback_id"] or _identity(entry)
    return entry


def _endpoint(name: str | None, project: Project) -> str:
    if name is None:
        return project.default
    if name not in project.endpoints:
        known = ", ".join(project.endpoints)
        raise UnknownEndpoint(f"There is no endpoint named {name[:64]!r}.", f"Known endpoints: {known}.")
    return name


def _label(value: object) -> str | None:
    """A class: text, or a number or boolean as JSON writes it."""
    if value is None or (isinstance(value, str) and value):
        return value
    if isinstance(value, bool | int | float):
        return msgspec.json.encode(value).decode()
    raise InvalidRequest("`label` is empty or not a plain value.", _REMEDY)


def _score(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1 or math.isnan(value):
        raise InvalidRequest("`score` is not a number between 0 and 1.", "0 is bad, 1 is good.")
    return float(value)


def _text(item: dict[str, Any], field: str, longest: int | None = None) -> str | None:
    """A field that holds text; None if it is absent."""
    value = item.get(field)
    if value is None:
        return None
    if not isinstance(value, str) or not value or (longest is not None and len(value) > longest):
        limit = f" of at most {longest} characters" if longest is not None else ""
        raise InvalidRequest(f"`{field}` is not a text{limit}.", f"Send `{field}` as a string, or leave it out.")
    return value


def _identity(entry: Entry) -> str:
    """32 hex digits made from what an entry says."""
    return blake2b(msgspec.json.encode(entry), digest_size=16).hexdigest()
