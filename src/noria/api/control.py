"""Everything that isn't inference, feedback or the console: probes, metrics, the loop's state."""

import asyncio
from importlib.metadata import PackageNotFoundError, version

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from noria.api.metrics import CONTENT_TYPE, Metrics
from noria.api.problems import RETRY_AFTER_S, explain
from noria.api.readiness import Readiness
from noria.api.status import loop_status
from noria.domain.errors import NoriaError, NotReady
from noria.ports import Clock, StateStore
from noria.serving.router import Router

_BLANK = b"\n"
"""What MLflow's probes answer with."""


class Control:
    """Handlers, and the routes that lead to them.

    Args:
        router: What is in service.
        readiness: Whether it can answer.
        state: What `/api/status` shows.
        metrics: What `/metrics` shows.
        clock: For ages.
    """

    def __init__(
        self,
        router: Router,
        readiness: Readiness,
        state: StateStore,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._router = router
        self._readiness = readiness
        self._state = state
        self._metrics = metrics
        self._clock = clock

    def routes(self) -> list[Route]:
        """Address → handler."""
        return [
            Route("/livez", self.livez),
            Route("/readyz", self.readyz),
            Route("/ping", self.ping),
            Route("/health", self.ping),
            Route("/version", self.mlflow_version),
            Route("/metrics", self.metrics),
            Route("/api/status", self.status),
        ]

    async def livez(self, _request: Request) -> Response:
        """The process answers."""
        return _json({"status": "alive"})

    async def readyz(self, _request: Request) -> Response:
        """200 if every endpoint of the project can answer and be recorded now, else 503 and what is missing."""
        problems, facts = await self._readiness.look()
        if not problems:
            return _json({"status": "ready", **facts})
        error = NotReady("Not every endpoint is ready.", "noria status shows what the loop is doing about it.")
        shape = msgspec.json.decode(explain(error)[1])
        body = {"status": "not ready", **shape, "detail": " ".join(problems), "problems": problems, **facts}
        return _json(body, 503, {"retry-after": RETRY_AFTER_S})

    async def ping(self, _request: Request) -> Response:
        """MLflow's probe: whether the default endpoint answers."""
        ready = not await self._readiness.problem(self._router.project.default)
        return Response(_BLANK, 200 if ready else 404, media_type="text/plain")

    async def mlflow_version(self, _request: Request) -> Response:
        """MLflow's version, which its scoring clients ask for."""
        try:
            return Response(version("mlflow"), media_type="text/plain")
        except PackageNotFoundError:
            return Response("unknown", 404, media_type="text/plain")

    async def metrics(self, _request: Request) -> Response:
        """For Prometheus."""
        return Response(await asyncio.to_thread(self._metrics.render), headers={"content-type": CONTENT_TYPE})

    async def status(self, _request: Request) -> Response:
        """The loop at a glance; 503 if the state can't be read."""
        try:
            shown = await asyncio.to_thread(loop_status, self._state, self._router.project, self._clock)
        except NoriaError as error:
            status, body = explain(NotReady(error.problem, error.remedy))
            return Response(body, status, {"retry-after": RETRY_AFTER_S}, media_type="application/json")
        return _json(shown)


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")
