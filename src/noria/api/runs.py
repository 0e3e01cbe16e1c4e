"""Runs of the training pipeline: `GET /api/runs`, `GET /api/runs/{id}`, `POST /api/retrain/{endpoint}`,
`POST /api/cancel/{id}`.

What changes something has a name on it: the API key's, or without keys `local`, which only this machine can be.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from noria.api.auth import KEY
from noria.api.status import run_status
from noria.domain.errors import InvalidRequest, UnknownTrace
from noria.domain.key import ApiKey
from noria.domain.run import Run
from noria.ports import Clock, StateStore
from noria.settings import Project
from noria.training.asking import ask
from noria.training.cancelling import cancel

LOCAL = "local"
"""Who asks where no key was ever made: only this machine may ask then."""
NEWEST = 100
"""Runs that are listed."""
LONGEST = 10_000
"""Bytes of a body."""


class Runs:
    """The handlers, and the routes that lead to them.

    Args:
        state: Where runs are.
        clock: For durations, and for the account.
        project: The project in service.
    """

    def __init__(self, state: StateStore, clock: Clock, project: Callable[[], Project]) -> None:
        self._state = state
        self._clock = clock
        self._project = project

    def routes(self) -> list[Route]:
        """Address → handler."""
        return [
            Route("/api/runs", self.list),
            Route("/api/runs/{id}", self.one),
            Route("/api/retrain/{endpoint}", self.retrain, methods=["POST"]),
            Route("/api/cancel/{id}", self.cancel, methods=["POST"]),
        ]

    async def list(self, _request: Request) -> Response:
        """The newest runs."""
        found = await asyncio.to_thread(self._state.find, Run, limit=NEWEST)
        return _json({"runs": [run_status(run, self._clock.now()) for run in found]})

    async def one(self, request: Request) -> Response:
        """One run; 404 if there is none of that id."""
        found = await asyncio.to_thread(self._state.get, Run, request.path_params["id"])
        if found is None:
            raise UnknownTrace("There is no such run.", "GET /api/runs lists them.")
        return _json(run_status(found, self._clock.now()))

    async def retrain(self, request: Request) -> Response:
        """Ask for a run; whether it is granted is on record a moment later."""
        reason, endpoint = await _reason(request), request.path_params["endpoint"]
        event = await asyncio.to_thread(ask, self._state, self._clock, self._project(), endpoint, _who(request), reason)
        return _json({"asked": event.id}, 202)

    async def cancel(self, request: Request) -> Response:
        """Stop a run."""
        reason, run_id = await _reason(request), request.path_params["id"]
        ended = await asyncio.to_thread(cancel, self._state, self._clock, run_id, _who(request), reason)
        return _json(run_status(ended, self._clock.now()))


def _who(request: Request) -> str:
    key: ApiKey | None = request.scope.get(KEY)
    return LOCAL if key is None else key.name


async def _reason(request: Request) -> str:
    """Why, from a body `{"reason": "…"}`.

    Raises:
        InvalidRequest: There is none.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST:
            raise InvalidRequest(f"The body is longer than {LONGEST} bytes.", 'Send {"reason": "…"}.')
    try:
        said: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        said = None
    reason = said.get("reason") if isinstance(said, dict) else None
    if not isinstance(reason, str) or not reason.strip():
        raise InvalidRequest("A reason is missing.", 'Send {"reason": "…"}: it stands in the audit trail.')
    return reason.strip()


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
