"""A model server that is as slow as a small language model: four slots, in each of which a row takes 4 ms.

`python -m benchmarks.loop.slots PORT`. What it answers is always the same; it computes nothing, so a busy machine makes
it no slower.
"""

import asyncio
import sys

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

SLOTS = 4
ROW_S = 0.004
_places = asyncio.Semaphore(SLOTS)


async def invocations(request: Request) -> Response:
    """MLflow's scoring wire."""
    rows = msgspec.json.decode(await request.body())["inputs"]

    async def row() -> None:
        async with _places:
            await asyncio.sleep(ROW_S)

    await asyncio.gather(*(row() for _ in rows))
    return Response(msgspec.json.encode({"predictions": ["neutral"] * len(rows)}), media_type="application/json")


async def ping(_request: Request) -> Response:
    """It is there."""
    return Response(b"\n")


if __name__ == "__main__":
    app = Starlette(routes=[Route("/invocations", invocations, methods=["POST"]), Route("/ping", ping)])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
