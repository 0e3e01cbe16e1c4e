"""A line of JSON for each request, if the project wants it: which address was asked, and what came of it.

Never what was sent: no query, no body, no header, and of the path only what the table of addresses knows.
"""

import logging
import re
import time
from collections.abc import Iterable
from typing import Any

from noria.api.addresses import address, template
from noria.api.messages import Message, Receive, Scope, Send
from noria.settings.basics import NAME_PATTERN

log = logging.getLogger("noria.access")

OTHER = "other"
"""Stands for every address that nobody knows."""
_NAME = re.compile(NAME_PATTERN)


class AccessLog:
    """The app, with a line for each request.

    Args:
        app: What answers.
        pages: Paths of its pages, as Starlette writes them.
    """

    def __init__(self, app: Any, pages: Iterable[str]) -> None:
        log.setLevel(logging.INFO)  # the project asked for it, however quiet the rest is
        self._app = app
        self._fixed = {page for page in pages if "{" not in page} | {"/feedback"}
        self._below = [(page.partition("{")[0], page) for page in pages if "{" in page]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, then write the line; also if the caller left before."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, start = time.perf_counter(), {"status": 0, "headers": ()}

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(status=message["status"], headers=message["headers"])
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._write(scope, start, time.perf_counter() - began)

    def _write(self, scope: Scope, start: dict[str, Any], seconds: float) -> None:
        said, path = dict(start["headers"]), scope["path"]
        found = address(path)
        line = {
            "request_id": said.get(b"x-request-id", b"").decode(),
            "method": scope["method"],
            "path": self._template(path),
            "endpoint": found[1] if found is not None and _NAME.match(found[1]) else "",
            "version": said.get(b"x-noria-version", b"").decode("latin-1"),
            "status": start["status"],
            "ms": round(seconds * 1000, 2),
        }
        log.info("request", extra={"fields": line})

    def _template(self, path: str) -> str:
        """The address without the names in it."""
        if path in self._fixed:
            return path
        return template(path) or next((page for before, page in self._below if path.startswith(before)), OTHER)
