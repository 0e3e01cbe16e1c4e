"""The console's pages: each is a function of the state, rendered on the server, answered with an ETag.

A page that hasn't changed is answered with 304, so that asking every second costs next to nothing.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from noria.api.console import words
from noria.api.console.history import History, ReadDrift
from noria.api.console.wheel import stations
from noria.api.problems import NotFound, explain
from noria.api.status import audit_status, loop_status, rollout_status, run_status, verdict_status
from noria.domain.approval import Approval
from noria.domain.audit import AuditHead
from noria.domain.errors import UnknownTrace
from noria.domain.gate import Verdict
from noria.domain.lineage import Link
from noria.domain.rollout import Rollout
from noria.domain.run import Run
from noria.governance.audit import AuditReport, verify
from noria.monitoring import charts
from noria.ports import Clock, StateStore
from noria.settings import Project

log = logging.getLogger("noria.api.console")

SECURITY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""On every answer of the console."""
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_AUDIT_PAGE = 100
_DOWN = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5">
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark"><title>Noria</title>
</head><body><h1>This page can't be shown now</h1><p>The loop's state can't be read; the log of the API says why.
Requests are answered all the same. The page tries again by itself.</p></body></html>"""


def routes(
    state: StateStore,
    read_drift: ReadDrift,
    project: Callable[[], Project | None],
    clock: Clock,
    trace: Callable[[str], Link],
) -> list[Route]:
    """The console's routes, to be mounted at the root of an app.

    Args:
        state: What the pages show.
        read_drift: Endpoint → its rows of the table drift_metrics, oldest first; called in a thread and only for
            charts, so it may import what it needs.
        project: The project in service now; None where none was applied yet.
        clock: For ages.
        trace: Tells a lineage, see `noria trace`; called in a thread, too.
    """
    pages = Pages(state, History(read_drift), project, clock, trace)
    shown = {
        "/": pages.loop,
        "/endpoints/{name}": pages.endpoint,
        "/runs": pages.runs,
        "/runs/{id:path}": pages.run,
        "/verdicts/{id:path}": pages.verdict,
        "/trace/{id:path}": pages.trace,
        "/audit": pages.audit,
        "/console/{file}": pages.file,
    }
    return [Route(path, _guarded(page)) for path, page in shown.items()]


class Pages:
    """The pages. Its methods are plain functions, so that Starlette runs them in its threads: they read databases."""

    def __init__(
        self,
        state: StateStore,
        history: History,
        project: Callable[[], Project | None],
        clock: Clock,
        trace: Callable[[str], Link],
    ) -> None:
        self._trace = trace
        self._state, self._history, self._project, self._clock = state, history, project, clock
        self._files = dict(_static())
        self._checked: tuple[tuple[str, int], AuditReport] | None = None
        self._shared: tuple[tuple[int, int], dict[str, Any]] | None = None
        self._jinja = Environment(
            loader=PackageLoader("noria.api.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._jinja.filters |= words.FILTERS
        self._jinja.globals |= {"link": words.link, "draw": charts.draw, "asset": self._asset}

    def loop(self, request: Request) -> Response:
        """`/`: the loop at a glance."""
        status = self._status()
        return self._page(request, "loop.html.j2", here="loop", s=status, stations=stations(status))

    def endpoint(self, request: Request) -> Response:
        """`/endpoints/{name}`: who answers, and the evidence against the champion's baseline."""
        name, status = request.path_params["name"], self._status()
        endpoint = next((e for e in status["endpoints"] if e["name"] == name), None)
        if endpoint is None:
            return self._missing(request, f"No endpoint {name} is in service.")
        rows, problem = self._history.rows(name, endpoint["monitors"])
        return self._page(
            request,
            "endpoint.html.j2",
            here="loop",
            s=status,
            e=endpoint,
            drift=rows,
            drift_problem=problem,
            charts=charts,
            alerts=[a for a in status["alerts"] if a["endpoint"] == name],
            rollout=next((r for r in status["rollouts"] if r["endpoint"] == name), None),
            verdicts=[v for v in status["verdicts"] if v["endpoint"] == name],
        )

    def runs(self, request: Request) -> Response:
        """`/runs`: the newest runs."""
        now = self._clock.now()
        found = [run_status(r, now) for r in self._state.find(Run, limit=100)]
        return self._page(request, "runs.html.j2", here="runs", s=self._status(), runs=found)

    def run(self, request: Request) -> Response:
        """`/runs/{id}`: a run's steps with their durations and numbers."""
        run_id = request.path_params["id"]
        found = self._state.get(Run, run_id)
        if found is None:
            return self._missing(request, f"There is no run {run_id}.")
        run = run_status(found, self._clock.now())
        verdict = next((v for v in self._state.find(Verdict, endpoint=found.endpoint) if _of(v, found)), None)
        judged = None if verdict is None else verdict_status(verdict, self._state.get(Approval, verdict.id))
        return self._page(request, "run.html.j2", here="runs", s=self._status(), run=run, verdict=judged)

    def verdict(self, request: Request) -> Response:
        """`/verdicts/{id}`: every gate with its numbers and thresholds."""
        verdict_id = request.path_params["id"]
        found = self._state.get(Verdict, verdict_id)
        if found is None:
            return self._missing(request, f"There is no verdict {verdict_id}.")
        rollout = self._state.get(Rollout, verdict_id)
        shown = verdict_status(found, self._state.get(Approval, verdict_id))
        for result in shown["results"]:
            result["groups"], rest = words.grouped(result["numbers"])
            result["origins"], result["rest"] = words.by_origin(rest)
        return self._page(
            request,
            "verdict.html.j2",
            here="loop",
            s=self._status(),
            v=shown,
            rollout=rollout_status(rollout) if rollout else None,
        )

    def trace(self, request: Request) -> Response:
        """`/trace/{id}`: where an answer comes from, and what a version or a run made."""
        try:
            found = self._trace(request.path_params["id"])
        except UnknownTrace as error:
            return self._missing(request, str(error))
        return self._page(request, "trace.html.j2", here="loop", s=self._status(), t=found)

    def audit(self, request: Request) -> Response:
        """`/audit`: who changed what and why, newest first, and whether the chain holds."""
        trail = audit_status(self._state, newest=_AUDIT_PAGE)
        values = {"trail": trail, "account": self._account(), "most": _AUDIT_PAGE}
        return self._page(request, "audit.html.j2", here="audit", s=self._status(), **values)

    def file(self, request: Request) -> Response:
        """`/console/{file}`: style, script, icon; the address changes with the content."""
        found = self._files.get(request.path_params["file"])
        if found is None:
            status, problem = explain(NotFound("The console has no such file.", "Its pages name the ones that it has."))
            return Response(problem, status, SECURITY, media_type="application/json")
        body, media_type, _ = found
        headers = {**SECURITY, "Cache-Control": "public, max-age=31536000, immutable"}
        return Response(body, media_type=media_type, headers=headers)

    def _status(self) -> dict[str, Any]:
        """The loop's status; viewers who ask within the same second share one, as long as nothing changed."""
        key = (self._state.revision(), self._clock.now_us() // 1_000_000)
        kept = self._shared
        if kept is None or kept[0] != key:
            kept = self._shared = (key, loop_status(self._state, self._project(), self._clock))
        return kept[1]

    def _account(self) -> AuditReport:
        """Whether the audit chain holds; it is read from its beginning for each new head and once a minute."""
        head = self._state.get(AuditHead, "audit") or AuditHead()
        key = (head.hash, self._clock.now_us() // 60_000_000)
        if self._checked is None or self._checked[0] != key:
            self._checked = (key, verify(self._state))
        return self._checked[1]

    def _asset(self, name: str) -> str:
        return f"/console/{name}?{self._files[name][2]}"

    def _missing(self, request: Request, sentence: str) -> Response:
        """A page that says what there is not."""
        page = self._page(request, "missing.html.j2", here="", s=self._status(), sentence=sentence)
        page.status_code = 404
        return page

    def _page(self, request: Request, template: str, **values: Any) -> Response:
        """The page, or 304 if the caller has it already; the header tells the page's script what time it is here."""
        body = self._jinja.get_template(template).render(**values).encode()
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        now = str(self._clock.now_us() // 1000)
        headers = {**SECURITY, "ETag": etag, "Cache-Control": "no-cache", "X-Noria-Now": now}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="text/html", headers=headers)


def _guarded(page: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """The page; where it can't be shown (the state is gone), a page that says so and tries again."""

    def answer(request: Request) -> Response:
        try:
            return page(request)
        except Exception:  # a caller gets no traceback, the log does
            log.exception("%s can't be shown", request.url.path)
            return Response(_DOWN, 503, {**SECURITY, "Retry-After": "5"}, "text/html")

    return answer


def _of(verdict: Verdict, run: Run) -> bool:
    """Whether the verdict is about the run's candidate."""
    return bool(run.version) and (verdict.model, verdict.version) == (run.model, run.version)


def _static() -> Iterable[tuple[str, tuple[bytes, str, str]]]:
    """Name of each file → its bytes, its media type and a hash of its content."""
    for file in resources.files("noria.api.console").joinpath("static").iterdir():
        body = file.read_bytes()
        yield file.name, (body, _TYPES[file.name.rpartition(".")[2]], hashlib.sha256(body).hexdigest()[:12])
