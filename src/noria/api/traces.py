"""`GET /api/trace/{id}`: where an answer comes from, and what a version or a run made, as `noria trace` says it."""

import asyncio
from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from noria.domain.lineage import Link

Trace = Callable[[str], Link]
"""A request's, version's, run's, alert's or verdict's name → its lineage. It reads tables, so it runs in a thread."""


class Traces:
    """The handler, and the route that leads to it.

    Args:
        trace: Tells a lineage; raises UnknownTrace.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def routes(self) -> list[Route]:
        """Address → handler."""
        return [Route("/api/trace/{id:path}", self.trace)]

    async def trace(self, request: Request) -> Response:
        """The lineage as JSON; 404 if nothing has that name."""
        link = await asyncio.to_thread(self._trace, request.path_params["id"])
        return Response(msgspec.json.encode(link), media_type="application/json")
