"""The ASGI app: inference and feedback by hand, since every request pays for what stands before them; the rest by
Starlette. Every response carries x-request-id."""

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response
from starlette.routing import Route

from noria.adapters.uvicorn import Turn
from noria.api.addresses import OPENAI_PREFIXES, address
from noria.api.auth import KEY, Door, turn_away
from noria.api.catalogue import Catalogue
from noria.api.console import routes as console_routes
from noria.api.console.history import ReadDrift
from noria.api.control import Control
from noria.api.feedback import FeedbackDesk
from noria.api.inference import Inference
from noria.api.messages import CallerLeft, Message, Receive, Request, Room, Scope, Send
from noria.api.metrics import Metrics
from noria.api.openapi import Description
from noria.api.pool import Pool
from noria.api.problems import MethodNotAllowed, NotFound, explain
from noria.api.readiness import Readiness, Siblings
from noria.api.runs import Runs
from noria.api.traces import Trace, Traces
from noria.domain.errors import NoriaError
from noria.ports import Clock, FrameReader, Meters, StateStore, Upstream
from noria.serving.admission import Admission
from noria.serving.allowance import Allowances
from noria.serving.calls import Caller
from noria.serving.gateway import Gateway
from noria.serving.log.recorder import Recorder, new_request_id
from noria.serving.passage import Passages
from noria.serving.router import Router
from noria.serving.wires import Form

log = logging.getLogger("noria.api")

REFRESH_S = 0.1
"""Pause between two looks at the state's revision, in seconds."""
KEEP_S = 1.0
"""Pause between two times that what was counted is written down for other processes, in seconds."""
SHADOWS_S = 5.0
"""How long the shadows' copies may take at the end, in seconds."""


class App:
    """What uvicorn calls. Built by `create_app`."""

    def __init__(
        self,
        inference: Inference,
        feedback: FeedbackDesk,
        pages: Starlette,
        lifetime: "Lifetime",
        new_id: Callable[[], str],
        door: Door,
    ) -> None:
        self._inference = inference
        self._feedback = feedback
        self._pages = pages
        self._lifetime = lifetime
        self._new_id = new_id
        self._door = door
        self._room = Room()

    @property
    def addresses(self) -> list[str]:
        """Paths of all pages, as Starlette writes them; inference and feedback stand beside them."""
        return [route.path for route in self._pages.routes if isinstance(route, Route)]

    def drain(self) -> None:
        """Say at `/readyz` that the process stops."""
        self._lifetime.readiness.draining = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or begin and end the process's work."""
        if scope["type"] == "lifespan":
            await self._lifetime.run(receive, send)
        elif scope["type"] == "http":
            request = Request(scope, receive, self._new_id(), self._room)
            try:
                await self._answer(request, scope, receive, send)
            except CallerLeft:
                return
            finally:
                request.let_go()

    async def answer(self, turn: Turn, form: Form, endpoint: str) -> None:
        """Answer a request for inference that came whole. Raises nothing: the caller hears of whatever goes wrong."""
        request = Request.of(turn, self._new_id())
        try:
            if (error := self._door.refusal(request)) is not None:
                await turn_away(turn, request, error)
            else:
                await self._inference.handle(request, form, endpoint, turn)
        except BaseException as error:
            log.error("an answer broke off", exc_info=error, extra={"request_id": request.id})
            turn.break_off()
        finally:
            turn.over()

    async def _answer(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        if (error := self._door.refusal(request)) is not None:
            await turn_away(send, request, error)
        elif (found := address(request.path)) is not None:
            await self._inference.handle(request, *found, send)
        elif request.path == "/feedback":
            await self._feedback.handle(request, send)
        else:
            scope[KEY] = request.key
            await self._pages(scope, receive, _stamped(send, request.id))


class Lifetime:
    """What runs beside the requests: looks at the state for new routes, and in the end closes everything in order."""

    def __init__(
        self,
        router: Router,
        gateway: Gateway,
        outside: tuple[Upstream | FrameReader, ...],
        metrics: Metrics,
        on_close: Callable[[], None],
        readiness: Readiness,
    ) -> None:
        self._router = router
        self._gateway = gateway
        self._metrics = metrics
        self._outside = outside
        self._on_close = on_close
        self._untold = True
        self.readiness = readiness
        """What `/readyz` asks."""

    async def run(self, receive: Receive, send: Send) -> None:
        """ASGI's lifespan."""
        await receive()
        await asyncio.to_thread(self._look)
        jobs = [asyncio.create_task(self._refresh()), asyncio.create_task(self._keep_counts())]
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for job in jobs:
            job.cancel()
        await self._gateway.close(SHADOWS_S)
        for world in self._outside:
            await world.aclose()
        await asyncio.to_thread(self._metrics.keep)
        await asyncio.to_thread(self._on_close)
        await send({"type": "lifespan.shutdown.complete"})

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            await asyncio.to_thread(self._look)
            await self._gateway.catch_up()

    def _look(self) -> None:
        """Take over what changed in the state, and tell the other processes."""
        if self._router.refresh() or self._untold:
            try:
                self.readiness.tell_siblings()
                self._untold = False
            except OSError as error:
                if not self._untold:
                    log.warning("the other processes can't be told which routes are known here: %s", error)
                self._untold = True

    async def _keep_counts(self) -> None:
        """For the other processes, if there are any."""
        while self._metrics.pool is not None:
            await asyncio.to_thread(self._metrics.keep)
            await asyncio.sleep(KEEP_S)


def create_app(
    *,
    router: Router,
    upstream: Upstream,
    frames: FrameReader,
    reachable: Callable[[str], Awaitable[bool]],
    recorder: Recorder,
    state: StateStore,
    clock: Clock,
    meters: Meters,
    read_drift: ReadDrift,
    trace: Trace,
    on_close: Callable[[], None],
    loopback: bool = True,
    jitter: Callable[[], float] = random.random,
    patience_s: float = math.inf,
    pool: Pool | None = None,
    siblings: Siblings | None = None,
    spool_bytes: Callable[[], int] | None = None,
) -> App:
    """The app of one API process.

    Args:
        router: Who answers; refreshed by the app.
        upstream: Calls model servers; closed by the app.
        frames: Reads Parquet; closed by the app.
        reachable: Whether anything listens at a model server's URL.
        recorder: Writes the log.
        state: What the console and `/api/status` show.
        clock: Where times come from.
        meters: What was used of limits.
        read_drift: Endpoint → its rows of the table drift_metrics, for the console's charts.
        trace: Tells where an answer comes from.
        on_close: Closes the spool and the meters, once nothing writes any more; called in a thread.
        loopback: Whether we listen on loopback only; without keys any other name for us is somebody's trick then.
        jitter: Between 0 and 1, spreads what is sent again.
        pool: What several processes have counted together; None if there is only this one.
        siblings: The project's other API processes; None if there are none.
        spool_bytes: What the spools take on disk, for `/metrics`.
        patience_s: Bounds the endpoints' own patience with a model server that is being replaced, in seconds.
    """
    metrics = Metrics(state, clock, pool, spool_bytes)
    passages = Passages(recorder, metrics, clock, Allowances(meters, clock), router.price)
    new_id = partial(new_request_id, clock)
    caller = Caller(upstream, router, jitter, patience_s)
    metrics.counts.streams, metrics.counts.breakers = lambda: passages.streams, caller.breakers
    gateway = Gateway(Admission(router, passages), caller, passages, explain, new_id)
    readiness = Readiness(
        router, reachable, lambda: passages.log_problem, recorder.names_problem, caller.breakers, siblings
    )
    lifetime = Lifetime(router, gateway, (upstream, frames), metrics, on_close, readiness)
    control = Control(router, readiness, state, metrics, clock)
    routes = [
        *control.routes(),
        *Catalogue(router).routes(),
        *Traces(trace).routes(),
        *Runs(state, clock, lambda: router.project).routes(),
        *console_routes(state, read_drift, lambda: router.project, clock, trace),
    ]
    routes.append(Route("/openapi.json", Description(routes).serve))
    pages = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _on_http, NoriaError: _on_noria},
    )
    pages.router.redirect_slashes = False
    return App(
        Inference(gateway, router, frames),
        FeedbackDesk(recorder, router),
        pages,
        lifetime,
        new_id,
        Door(router, clock, loopback, metrics.turned_away),
    )


def _stamped(send: Send, request_id: str) -> Send:
    """A send that adds x-request-id to the response."""

    async def stamped(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
        await send(message)

    return stamped


def _on_http(request: StarletteRequest, error: Exception) -> Response:
    """Starlette's own errors, told as ours, or below OpenAI's addresses as its clients read them."""
    path = request.scope["path"]
    form = Form.CHAT if path.startswith(OPENAI_PREFIXES) else None
    allowed = (getattr(error, "headers", None) or {}).get("Allow", "")
    if getattr(error, "status_code", 404) == 405:
        problem = MethodNotAllowed(f"{path[:200]} does not take {request.method}.", f"It takes {allowed}.")
        return _problem(problem, allowed, form)
    return _problem(NotFound(f"Nothing is at {path[:200]!r}.", "GET /openapi.json lists what there is."), form=form)


def _on_noria(_request: StarletteRequest, error: Exception) -> Response:
    return _problem(error if isinstance(error, NoriaError) else NoriaError(str(error)))


def _problem(error: NoriaError, allowed: str = "", form: Form | None = None) -> Response:
    status, body = explain(error, form)
    return Response(body, status, {"allow": allowed} if allowed else None, media_type="application/json")
