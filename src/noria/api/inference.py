"""The addresses that ask for inference, over HTTP: everything that decides anything is in `serving/gateway`."""

import asyncio
import math
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from noria.api.messages import JSON, Departure, Request, Send, begin, respond
from noria.api.problems import RETRY_AFTER_S, MethodNotAllowed, explain
from noria.domain.errors import NoriaError
from noria.ports import FrameReader
from noria.serving.admission import Inbound
from noria.serving.gateway import Answer, Gateway
from noria.serving.router import Router
from noria.serving.tracing import continue_trace
from noria.serving.wires import Form

PARQUET = "application/vnd.apache.parquet"
"""MLflow's content type for a table that pandas wrote."""
_LONGEST_ID = 200


class Inference:
    """Answers inference requests.

    Args:
        gateway: Where they go.
        router: Says how long a body may be.
        frames: Reads Parquet.
    """

    def __init__(self, gateway: Gateway, router: Router, frames: FrameReader) -> None:
        self._gateway = gateway
        self._router = router
        self._frames = frames

    async def handle(self, request: Request, form: Form, endpoint: str, send: Send) -> None:
        """Answer one request.

        Raises:
            CallerLeft: The caller went away in the middle of his request.
        """
        if request.method != "POST":
            error = MethodNotAllowed(f"{request.path} takes POST, not {request.method}.", "POST a JSON body.")
            status, body = explain(error, form)
            await respond(send, request.id, status, body, headers=(("allow", "POST"),))
            return
        try:
            server = self._router.project.server
            there = request.whole(server.max_body_bytes)
            body = (
                there
                if there is not None
                else await request.body(
                    server.max_body_bytes, server.slow_client.total_seconds(), server.max_bodies_bytes
                )
            )
            parquet = form is Form.INVOCATIONS and request.header(b"content-type").lower().startswith(PARQUET)
            if parquet:
                body = await self._frames.read(body)
        except NoriaError as error:
            refused = await self._gateway.refuse(self._inbound(request, form, endpoint, b""), error)
            await _send_whole(send, request.id, refused, (("connection", "close"),))
            return
        departure = Departure(request)
        inbound = self._inbound(request, form, endpoint, body, departure)
        if parquet:
            inbound = replace(inbound, content_type=JSON, notes=("converted_from_parquet",))
        try:
            answer = await self._gateway.answer(inbound)
            if answer.chunks is None:
                departure.stop()
                await _send_whole(send, inbound.request_id, answer)
            else:
                await self._stream(answer, answer.chunks, inbound.request_id, departure, send)
        except asyncio.CancelledError:
            if not departure.absorb():
                raise
        finally:
            departure.stop()

    async def _stream(
        self, answer: Answer, pieces: AsyncGenerator[bytes, None], request_id: str, departure: Departure, send: Send
    ) -> None:
        """Send an answer as it comes."""
        async with aclosing(pieces) as chunks:
            headers = (
                ("content-type", "text/event-stream; charset=utf-8"),
                ("cache-control", "no-cache"),
                ("x-noria-version", answer.version),
                ("x-noria-cache", "hit" if answer.cached else ""),
                *_standing(answer),
            )
            await begin(send, request_id, answer.status, headers)
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            departure.stop()
            await send({"type": "http.response.body", "body": b""})

    def _inbound(
        self, request: Request, form: Form, endpoint: str, body: bytes, departure: Departure | None = None
    ) -> Inbound:
        """The request as the gateway takes it."""
        client_id = request.header(b"x-client-request-id") or request.header(b"x-request-id")
        return Inbound(
            request_id=request.id,
            form=form,
            body=body,
            endpoint=endpoint,
            content_type=request.header(b"content-type"),
            session=request.header(b"x-noria-session"),
            metadata=request.raw_header(b"x-noria-metadata"),
            client_request_id=client_id[:_LONGEST_ID],
            key=request.key,
            header=request.header,
            trace=continue_trace(
                request.header(b"traceparent"),
                request.joined(b"tracestate"),
                self._router.project.telemetry.sample,
            ),
            left=(lambda: departure.left) if departure is not None else (lambda: True),
        )


def _standing(answer: Answer) -> Iterator[tuple[str, str]]:
    """OpenAI's headers for how a caller stands with his limits."""
    for what, limit, remaining, reset_s in answer.standings:
        yield f"x-ratelimit-limit-{what}", str(limit)
        yield f"x-ratelimit-remaining-{what}", str(remaining)
        yield f"x-ratelimit-reset-{what}", _duration(reset_s)


def _duration(seconds: float) -> str:
    """As OpenAI writes it: `6m0s`, `1s`, `120ms`."""
    if 0 < seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _send_whole(
    send: Send, request_id: str, answer: Answer, more: tuple[tuple[str, str], ...] = ()
) -> Coroutine[Any, Any, None]:
    """Send an answer that isn't a stream."""
    retry_after = answer.retry_after or (RETRY_AFTER_S if answer.status == 503 else "")
    headers = (
        ("x-noria-version", answer.version),
        ("x-noria-cache", "hit" if answer.cached else ""),
        ("retry-after", retry_after),
        *_standing(answer),
        *more,
    )
    return respond(send, request_id, answer.status, answer.body, headers=headers)
