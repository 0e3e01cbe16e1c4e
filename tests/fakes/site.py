"""A whole API process inside a test: the real app on a real uvicorn and a real port, model servers on real sockets."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from fakes.lineage import EmptyLog
from fakes.meters import MemoryMeters
from fakes.plane import ASSISTANT, TRIAGE, PartlyFullSpool
from fakes.state import FakeState
from fakes.story import PROJECT
from fakes.upstream import Handler, listening
from noria.adapters.clock import SystemClock
from noria.adapters.tables.parquet import ParquetReader
from noria.adapters.upstreams.own import HttpUpstream
from noria.api.app import App, create_app
from noria.api.connection import Bounds
from noria.api.process import Server, server, tune
from noria.api.readiness import Siblings
from noria.domain.endpoint import Route
from noria.domain.inference import Feedback, Intent, Outcome
from noria.governance.lineage import Lineage
from noria.serving.log.recorder import Recorder
from noria.serving.router import Router
from noria.settings import Project


@dataclass
class Site:
    """Where it is, what it wrote, and a client that talks to it."""

    url: str
    http: aiohttp.ClientSession
    state: FakeState
    router: Router
    app: App
    meters: MemoryMeters
    spool: PartlyFullSpool
    serving: Server

    def put(self, *routes: Route) -> None:
        """Bring routes into service; the app finds them by itself."""
        with self.state.change("noria", "route.changed", "test") as change:
            for one in routes:
                change.put(one)

    async def post(self, path: str, json=None, **more) -> tuple[int, object, dict]:
        """Status, JSON body and headers."""
        async with self.http.post(self.url + path, json=json, **more) as response:
            return response.status, await response.json(content_type=None), response.headers

    async def get(self, path: str, **more) -> tuple[int, bytes, dict]:
        """Status, body and headers."""
        async with self.http.get(self.url + path, **more) as response:
            return response.status, await response.read(), response.headers

    def written(self, kind: type) -> list:
        """What is in the log."""
        return [e for e in self.spool.entries.values() if isinstance(e, kind)]

    @property
    def intents(self) -> list[Intent]:
        return self.written(Intent)

    @property
    def feedback(self) -> list[Feedback]:
        return self.written(Feedback)

    @property
    def endings(self) -> list[tuple[str, int]]:
        """Outcome and status of every record, in order."""
        return [(o.kind.value, o.status) for o in self.written(Outcome)]

    async def ended(self, count: int = 1) -> list[tuple[str, int]]:
        """The endings, once there are that many."""
        await until(lambda: len(self.endings) >= count)
        return self.endings


async def until(true: Callable[[], object], seconds: float = 10) -> None:
    """Wait for something that happens by itself and has no event to wait for."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110  (see above)
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(
    folder: Path,
    triage: Handler | None = None,
    assistant: Handler | None = None,
    project: Project = PROJECT,
    patience_s: float = 5.0,
    drain_s: float = 20.0,
    siblings: Siblings | None = None,
) -> AsyncIterator[Site]:
    """A site whose endpoints are served by these model servers; an endpoint without one has no route."""
    async with contextlib.AsyncExitStack() as stack:
        clock, meters = SystemClock(), MemoryMeters()
        state = FakeState(clock)
        for route, handler in ((TRIAGE, triage), (ASSISTANT, assistant)):
            if handler is not None:
                url = await stack.enter_async_context(listening(handler, folder))
                with state.change("noria", "route.changed", "test") as change:
                    change.put(replace(route, targets=(replace(route.champion, url=url),)))
        router, spool, upstream = Router(state, project, lambda _: project, clock), PartlyFullSpool(), HttpUpstream()
        app = create_app(
            router=router,
            upstream=upstream,
            frames=ParquetReader(),
            reachable=upstream.reachable,
            recorder=Recorder(spool, {}, clock),
            state=state,
            clock=clock,
            meters=meters,
            read_drift=lambda endpoint: [],
            trace=Lineage(state, EmptyLog()).trace,
            on_close=spool.close,
            jitter=lambda: 0.5,
            patience_s=patience_s,
            siblings=siblings,
        )
        listener = socket.create_server(("127.0.0.1", 0))
        limits = project.server
        bounds = Bounds(limits.max_header_bytes, limits.slow_client.total_seconds())
        tune(listener, bounds.slow_client_s)
        serving = server(app, lambda: bounds, drain_s, limits.access_log)
        serving.capture_signals = contextlib.nullcontext
        task = asyncio.create_task(serving.serve([listener]))
        http = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        await until(lambda: serving.started)
        try:
            yield Site(url, http, state, router, app, meters, spool, serving)
        finally:
            await http.close()
            serving.stop()
            await task
            assert spool.closed
