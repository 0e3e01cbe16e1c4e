"""The way of a request, free of any transport.

Invariant: a request that names an endpoint has exactly one intent on disk before a model is called, and exactly one
outcome on disk before the caller has the last byte. Cancelling the task that waits for an answer, or closing the
answer's chunks, says that nobody waits for it any more.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace

from noria.domain.endpoint import Role, Route, choose
from noria.domain.errors import InvalidRequest, NoriaError, Overloaded, UnknownEndpoint, UpstreamTimeout
from noria.domain.inference import Intent, OutcomeKind
from noria.serving import bodies, wires
from noria.serving.calls import Answered, Caller, Order
from noria.serving.passage import Passage, Passages, our_fault
from noria.serving.replies import Reply, judge, passes_on
from noria.serving.router import Router
from noria.serving.shadows import Shadows
from noria.serving.streaming import relay
from noria.serving.tracing import Trace, continue_trace
from noria.serving.wires import Form

CALLER_LEFT = 499
"""The status on record for a caller who left before the answer (nginx's number)."""
MOST_UNDER_WAY = 1000
"""Requests that one process holds at a time; one more is told to come back later."""
_NOTHING = Reply(body=b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbound:
    """A request as the transport hands it over.

    Attributes:
        request_id: Noria's own id for it.
        form: How it is put.
        body: As received.
        endpoint: Endpoint that the address names; empty if it names none.
        content_type: As the caller declared it; empty if not at all.
        session: Whoever should be answered by the same version again, empty if nobody says.
        metadata: The header x-noria-metadata, JSON.
        client_request_id: The caller's own id for it.
        requester: Who asks.
        trace: The trace it belongs to.
        left: Asked when the wait for the answer is cancelled: whether the caller left, or else we stop.
    """

    request_id: str
    form: Form
    body: bytes
    endpoint: str = ""
    content_type: str = ""
    session: str = ""
    metadata: bytes = b""
    client_request_id: str = ""
    requester: str = "local"
    trace: Trace = field(default_factory=lambda: continue_trace(""))
    left: Callable[[], bool] = lambda: True


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the caller gets.

    Attributes:
        status: HTTP status.
        body: The whole body; empty for a stream.
        chunks: The pieces of a stream, which must be read or closed; None for all else.
        version: `model/version` that answered; empty if none did.
        retry_after: The model server's own header, empty if it gave none.
    """

    status: int
    body: bytes = b""
    chunks: AsyncGenerator[bytes, None] | None = None
    version: str = ""
    retry_after: str = ""


class Gateway:
    """Takes requests, has them answered, and keeps the account.

    Args:
        router: Who answers.
        caller: Gets the answers.
        passages: Keeps the account.
        explain: HTTP status and body that tell a caller, in the form that he used, of an error.
        new_request_id: Makes ids for the shadows' copies.
        most_under_way: Requests to hold at a time.
    """

    def __init__(
        self,
        router: Router,
        caller: Caller,
        passages: Passages,
        explain: Callable[[NoriaError, Form], tuple[int, bytes]],
        new_request_id: Callable[[], str],
        most_under_way: int = MOST_UNDER_WAY,
    ) -> None:
        self._router = router
        self._caller = caller
        self._passages = passages
        self._explain = explain
        self._most_under_way = most_under_way
        self._shadows = Shadows(self._copy, passages, new_request_id)

    async def answer(self, inbound: Inbound) -> Answer:
        """Answer a request. Every failure is an answer too: nothing but a cancellation is raised."""
        received_us = self._passages.clock.now_us()
        try:
            endpoint = self._endpoint(inbound)
        except NoriaError as error:
            return self._problem(inbound, error)
        try:
            if self._passages.under_way >= self._most_under_way:
                raise Overloaded(
                    f"{self._passages.under_way} requests are under way already.", "Come back in a second."
                )
            order = self._order(inbound, self._router.route(endpoint), received_us)
        except UnknownEndpoint as error:
            return self._problem(inbound, error)
        except NoriaError as error:
            return await self._refuse(inbound, endpoint, received_us, error)
        return await self._serve(inbound, order)

    async def refuse(self, inbound: Inbound, error: NoriaError) -> Answer:
        """Answer a request whose body the transport would not take; recorded if its address names an endpoint."""
        endpoint = inbound.endpoint or ("" if inbound.form.names_its_endpoint else self._router.project.default)
        if endpoint not in self._router.project.endpoints:
            return self._problem(inbound, error)
        return await self._refuse(inbound, endpoint, self._passages.clock.now_us(), error)

    async def close(self, timeout_s: float) -> None:
        """Let the shadows' copies finish."""
        await self._shadows.close(timeout_s)

    def _endpoint(self, inbound: Inbound) -> str:
        """The endpoint that is meant; it need not exist."""
        if inbound.endpoint:
            return inbound.endpoint
        if inbound.form.names_its_endpoint:
            return wires.endpoint_named(inbound.body)
        return self._router.project.default

    def _order(self, inbound: Inbound, route: Route, received_us: int) -> Order:
        """What is to be done: which version is asked, what, and for how long at most."""
        bodies.check_media(inbound.content_type)
        call = wires.understand(inbound.form, inbound.body, inbound.content_type, route.wire, route.endpoint)
        metadata = {**bodies.read_metadata_header(inbound.metadata), **call.metadata}
        key = metadata.get("user") or metadata.get("conversation") or inbound.session or call.user or inbound.request_id
        target = choose(route, key.encode())
        intent = Intent(
            request_id=inbound.request_id,
            endpoint=route.endpoint,
            model=target.model,
            version=target.version,
            role=target.role,
            received_us=received_us,
            request=call.record,
            client_request_id=inbound.client_request_id,
            requester=inbound.requester,
            trace_id=inbound.trace.trace_id,
            span_id=inbound.trace.span_id,
            parent_span_id=inbound.trace.parent_span_id,
            sampled=inbound.trace.sampled,
            metadata=metadata,
            policy_hash=route.policy_hash,
            errors=call.notes,
        )
        return Order(route, target, call, intent, self._router.timeout_s(route.endpoint), inbound.trace.state)

    async def _serve(self, inbound: Inbound, order: Order) -> Answer:
        """Intent, call, outcome; then the copies."""
        passage = self._passages.begin(order.intent)
        answered: Answered | None = None
        try:
            await passage.open()
            answered = await self._caller.ask(order)
            if answered.stream is not None:
                return await self._stream(inbound, order, passage, answered)
            reply = judge(order.call.read, answered.status, answered.body, order.target.ref)
            await passage.end(OutcomeKind.ANSWERED, 200, reply)
        except NoriaError as error:
            return await self._fail(inbound, passage, error, answered)
        except Exception as error:  # whatever it is, the caller gets an answer and the record its end
            return await self._fail(inbound, passage, our_fault(error))
        except asyncio.CancelledError:
            await passage.leave(_ending(inbound), CALLER_LEFT, _NOTHING)
            raise
        self._shadows.copy(order)
        return Answer(status=200, body=reply.body, version=order.target.ref)

    async def _stream(self, inbound: Inbound, order: Order, passage: Passage, answered: Answered) -> Answer:
        """A stream that has been begun, so that closing it leaves an outcome even if nothing was read from it."""
        assert answered.stream is not None
        chunks = relay(
            order.call,
            answered.stream,
            passage,
            explain=lambda error: self._explain(error, inbound.form)[1],
            ending=lambda: _ending(inbound),
            answered=lambda: self._shadows.copy(order),
        )
        await anext(chunks)
        return Answer(status=200, chunks=chunks, version=order.target.ref)

    async def _fail(
        self, inbound: Inbound, passage: Passage, error: NoriaError, answered: Answered | None = None
    ) -> Answer:
        """Record a failure and tell the caller; OpenAI's errors are passed on in the model server's own words."""
        status, body = self._explain(error, inbound.form)
        retry_after = ""
        if answered is not None and inbound.form.names_its_endpoint and passes_on(answered.status, answered.body):
            status, body, retry_after = answered.status, answered.body, answered.headers.get("retry-after", "")
        await passage.leave(_kind(error), status, Reply(body=body), (error.code,))
        return Answer(status=status, body=body, version=passage.version, retry_after=retry_after)

    async def _refuse(self, inbound: Inbound, endpoint: str, received_us: int, error: NoriaError) -> Answer:
        """Record a request that no version was picked for, under the champion if there is one."""
        route = self._router.snapshot.routes.get(endpoint)
        champion = route.champion if route else None
        intent = Intent(
            request_id=inbound.request_id,
            endpoint=endpoint,
            model=champion.model if champion else self._router.project.model_name(endpoint),
            version=champion.version if champion else "",
            role=Role.CHAMPION,
            received_us=received_us,
            request=bodies.recordable(inbound.body),
            client_request_id=inbound.client_request_id,
            requester=inbound.requester,
            trace_id=inbound.trace.trace_id,
            span_id=inbound.trace.span_id,
            parent_span_id=inbound.trace.parent_span_id,
            sampled=inbound.trace.sampled,
            policy_hash=route.policy_hash if route else "",
            errors=(error.code,),
        )
        passage = self._passages.begin(intent)
        try:
            await passage.open()
        except NoriaError as unrecorded:
            error = unrecorded
        except asyncio.CancelledError:
            await passage.leave(_ending(inbound), CALLER_LEFT, _NOTHING)
            raise
        answer = await self._fail(inbound, passage, error)
        return replace(answer, version="")

    async def _copy(self, order: Order) -> None:
        """Ask a shadow what its champion was asked, in one piece, and record what it says."""
        passage = self._passages.begin(order.intent)
        try:
            await passage.open()
            answered = await self._caller.ask(order, whole=True)
            reply = judge(order.call.read, answered.status, answered.body, order.target.ref)
            await passage.end(OutcomeKind.ANSWERED, 200, reply)
        except NoriaError as error:
            status, body = self._explain(error, Form.PREDICT)
            await passage.leave(_kind(error), status, Reply(body=body), (error.code,))
        except Exception as error:  # whatever it is, the record gets its end
            await passage.leave(OutcomeKind.FAILED, 500, _NOTHING, (our_fault(error).code,))
        except asyncio.CancelledError:
            await passage.leave(OutcomeKind.INTERRUPTED, CALLER_LEFT, _NOTHING)
            raise

    def _problem(self, inbound: Inbound, error: NoriaError) -> Answer:
        """Tell the caller of an error that belongs to no endpoint and so has no record."""
        status, body = self._explain(error, inbound.form)
        return Answer(status=status, body=body)


def _ending(inbound: Inbound) -> OutcomeKind:
    """How a request ends whose answer nobody waits for any more."""
    return OutcomeKind.DISCONNECTED if inbound.left() else OutcomeKind.INTERRUPTED


def _kind(error: NoriaError) -> OutcomeKind:
    """How a request ends that met an error."""
    if isinstance(error, UpstreamTimeout):
        return OutcomeKind.TIMED_OUT
    return OutcomeKind.REJECTED if isinstance(error, InvalidRequest) else OutcomeKind.FAILED
