"""The way of a request, free of any transport.

Invariant: a request that names an endpoint has exactly one intent on disk before a model is called, and exactly one
outcome on disk before the caller has the last byte. Cancelling the task that waits for an answer, or closing the
answer's chunks, says that nobody waits for it any more.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from noria.domain.errors import CircuitOpen, Forbidden, InvalidRequest, NoriaError, RateLimited, UpstreamTimeout
from noria.domain.inference import OutcomeKind
from noria.domain.limits import Standing
from noria.serving.admission import Admission, Inbound
from noria.serving.cache import Kept
from noria.serving.calls import Caller
from noria.serving.orders import Answered, Order
from noria.serving.passage import REST_US, Passage, Passages, about, our_fault
from noria.serving.replies import Reply, passes_on
from noria.serving.retries import CallFailed
from noria.serving.shadows import Shadows
from noria.serving.streaming import Incoming, Replay, relay
from noria.serving.wires import Form

CALLER_LEFT = 499
"""The status on record for a caller who left before the answer (nginx's number)."""
_NOTHING = Reply(body=b"")
_COME_BACK = (429, 503)
"""Statuses with which a server may say when to come back."""


@dataclass(slots=True, kw_only=True)
class Answer:
    """What the caller gets.

    Attributes:
        status: HTTP status.
        body: The whole body; empty for a stream.
        chunks: The pieces of a stream, which must be read or closed; None for all else.
        version: `model/version` that answered; empty if none did.
        retry_after: When to come back, as the header says it; empty if nobody says.
        standings: How the caller stands with his limits; empty if there are none.
        cached: Whether it was given before.
    """

    status: int
    body: bytes = b""
    chunks: AsyncGenerator[bytes, None] | None = None
    version: str = ""
    retry_after: str = ""
    standings: tuple[Standing, ...] = ()
    cached: bool = False


class Gateway:
    """Takes requests, has them answered, and keeps the account.

    Args:
        admission: Decides what is to be done.
        caller: Gets the answers.
        passages: Keeps the account.
        explain: HTTP status and body that tell a caller, in the form that he used, of an error.
        new_request_id: Makes ids for the shadows' copies.
    """

    def __init__(
        self,
        admission: Admission,
        caller: Caller,
        passages: Passages,
        explain: Callable[[NoriaError, Form], tuple[int, bytes]],
        new_request_id: Callable[[], str],
    ) -> None:
        self._admission = admission
        self._caller = caller
        self._passages = passages
        self._explain = explain
        self._shadows = Shadows(self._copy, passages, new_request_id)

    def answer(self, inbound: Inbound) -> Coroutine[Any, Any, Answer]:
        """Answer a request. Every failure is an answer too: nothing but a cancellation is raised."""
        received_us = self._passages.clock.now_us()
        try:
            endpoint = self._admission.endpoint(inbound)
        except NoriaError as error:
            return self._problem(inbound, error)
        try:
            order = self._admission.order(inbound, endpoint, received_us)
        except Exception as error:  # whatever it is, the caller gets an answer and the request its record
            refusal = error if isinstance(error, NoriaError) else our_fault(error, inbound.named)
            if not self._admission.exists(endpoint):
                return self._problem(inbound, refusal)
            return self._refuse(inbound, endpoint, received_us, refusal)
        return self._serve(inbound, order)

    def refuse(self, inbound: Inbound, error: NoriaError) -> Coroutine[Any, Any, Answer]:
        """Answer a request whose body the transport would not take; recorded if its address names an endpoint."""
        if endpoint := self._admission.endpoint_unread(inbound):
            return self._refuse(inbound, endpoint, self._passages.clock.now_us(), error)
        return self._problem(inbound, error)

    async def catch_up(self) -> None:
        """Write what the log would not take before; to be called now and then."""
        await self._passages.catch_up(REST_US)

    async def close(self, timeout_s: float) -> None:
        """Let the shadows' copies finish, and try once more to write what is owed to the log."""
        await self._shadows.close(timeout_s)
        await self._passages.catch_up()

    async def _serve(self, inbound: Inbound, order: Order) -> Answer:
        """Intent, call, outcome; then the copies."""
        passage = self._passages.begin(order.intent, order.call.stream, order.charge)
        try:
            await passage.open()
            if order.wish is not None and (kept := order.wish.find(order.intent.received_us)) is not None:
                return await self._again(inbound, order, passage, kept)
            answered = await self._caller.ask(order, passage)
            if answered.stream is not None:
                return await self._stream(inbound, order, passage, answered)
            await passage.end(OutcomeKind.ANSWERED, 200, answered.reply)
        except CallFailed as failed:
            return await self._fail(inbound, passage, failed.error, failed)
        except NoriaError as error:
            return await self._fail(inbound, passage, error)
        except Exception as error:  # whatever it is, the caller gets an answer and the record its end
            return await self._fail(inbound, passage, our_fault(error, about(passage.intent)))
        except asyncio.CancelledError:
            await passage.leave(_ending(inbound), CALLER_LEFT, _NOTHING)
            raise
        self._follow_up(order, answered)
        return Answer(status=200, body=answered.reply.body, version=answered.target.ref, standings=_standings(order))

    async def _again(self, inbound: Inbound, order: Order, passage: Passage, kept: Kept) -> Answer:
        """Give an answer that was given before; no model has anything to do with it."""
        passage.cache_hit = True
        if kept.pieces is not None:
            chunks = self._relay(inbound, passage, Replay(kept), lambda: None)
            await anext(chunks)
            return Answer(status=200, chunks=chunks, version=order.target.ref, cached=True, standings=_standings(order))
        await passage.end(OutcomeKind.ANSWERED, 200, kept.reply)
        return Answer(status=200, body=kept.body, version=order.target.ref, cached=True, standings=_standings(order))

    async def _stream(self, inbound: Inbound, order: Order, passage: Passage, answered: Answered) -> Answer:
        """A stream that has been begun, so that closing it leaves an outcome even if nothing was read from it."""
        assert answered.stream is not None
        if order.wish is not None:
            answered.stream.pieces = []
        chunks = self._relay(inbound, passage, answered.stream, lambda: self._follow_up(order, answered))
        await anext(chunks)
        return Answer(status=200, chunks=chunks, version=answered.target.ref, standings=_standings(order))

    def _relay(
        self, inbound: Inbound, passage: Passage, source: Incoming | Replay, answered: Callable[[], None]
    ) -> AsyncGenerator[bytes, None]:
        return relay(
            source,
            passage,
            explain=lambda error: self._explain(error, inbound.form)[1],
            ending=lambda: _ending(inbound),
            answered=answered,
        )

    def _follow_up(self, order: Order, answered: Answered) -> None:
        """What an answer on record brings with it: copies for the shadows, which are compared with what the order's
        version says, and a place in the cache. Nothing where another version stood in."""
        if answered.target is not order.target:
            return
        self._shadows.copy(order)
        if order.wish is not None:
            order.wish.keep(answered.kept(self._passages.clock.now_us()))

    async def _fail(
        self, inbound: Inbound, passage: Passage, error: NoriaError, failed: CallFailed | None = None
    ) -> Answer:
        """Record a failure and tell the caller; OpenAI's errors are passed on in the model server's own words."""
        status, body = self._explain(error, inbound.form)
        retry_after = str(error.retry_after_s) if isinstance(error, CircuitOpen) else ""
        if failed is not None:
            passed_on = inbound.form.names_its_endpoint and passes_on(failed.status, failed.body)
            if passed_on or failed.status in _COME_BACK:
                retry_after = failed.headers.get("retry-after", "")
            if passed_on:
                status, body = failed.status, failed.body
        await passage.leave(_kind(error), status, Reply(body=body), (error.code,))
        return Answer(status=status, body=body, version=passage.version, retry_after=retry_after)

    async def _refuse(self, inbound: Inbound, endpoint: str, received_us: int, error: NoriaError) -> Answer:
        """Record a request that was not admitted."""
        passage = self._passages.begin(self._admission.refused(inbound, endpoint, received_us, error))
        try:
            await passage.open()
        except NoriaError as unrecorded:
            error = unrecorded
        except asyncio.CancelledError:
            await passage.leave(_ending(inbound), CALLER_LEFT, _NOTHING)
            raise
        answer = await self._fail(inbound, passage, error)
        if isinstance(error, RateLimited):
            wait = str(max(1, math.ceil(error.retry_after_s))) if error.retry_after_s else ""
            return replace(answer, version="", retry_after=wait, standings=error.standings)
        return replace(answer, version="")

    async def _copy(self, order: Order) -> None:
        """Ask a shadow what its champion was asked, in one piece, and record what it says."""
        passage = self._passages.begin(order.intent, charge=self._passages.allowances.of_copy(order.charge))
        try:
            await passage.open()
            answered = await self._caller.ask(order, passage, alone=True)
            await passage.end(OutcomeKind.ANSWERED, 200, answered.reply)
        except (CallFailed, NoriaError) as failed:
            error = failed.error if isinstance(failed, CallFailed) else failed
            status, body = self._explain(error, Form.PREDICT)
            await passage.leave(_kind(error), status, Reply(body=body), (error.code,))
        except Exception as error:  # whatever it is, the record gets its end
            await passage.leave(OutcomeKind.FAILED, 500, _NOTHING, (our_fault(error, about(passage.intent)).code,))
        except asyncio.CancelledError:
            await passage.leave(OutcomeKind.INTERRUPTED, CALLER_LEFT, _NOTHING)
            raise

    async def _problem(self, inbound: Inbound, error: NoriaError) -> Answer:
        """Tell the caller of an error that belongs to no endpoint and so has no record."""
        status, body = self._explain(error, inbound.form)
        return Answer(status=status, body=body)


def _standings(order: Order) -> tuple[Standing, ...]:
    """How the caller stands with his limits."""
    return order.charge.standings if order.charge is not None else ()


def _ending(inbound: Inbound) -> OutcomeKind:
    """How a request ends whose answer nobody waits for any more."""
    return OutcomeKind.DISCONNECTED if inbound.left() else OutcomeKind.INTERRUPTED


def _kind(error: NoriaError) -> OutcomeKind:
    """How a request ends that met an error."""
    if isinstance(error, UpstreamTimeout):
        return OutcomeKind.TIMED_OUT
    return OutcomeKind.REJECTED if isinstance(error, InvalidRequest | Forbidden | RateLimited) else OutcomeKind.FAILED
