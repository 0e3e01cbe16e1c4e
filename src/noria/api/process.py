"""How one process serves an app: on a socket that may be somebody else's, with a clean end and a log of JSON lines."""

import asyncio
import logging
import signal
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import msgspec
import uvicorn

from noria.adapters.processes import when_parent_is_gone

log = logging.getLogger("noria.api")

DRAIN_S = 20
"""How long answers that are under way may take at the end, in seconds."""
KEEP_ALIVE_S = 75
"""How long an idle connection is kept, in seconds."""
BACKLOG = 2048
"""Connections that may wait to be accepted."""


class Server(uvicorn.Server):
    """uvicorn, which ends with status 0 when it is told to stop."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop at SIGTERM or SIGINT, without dying of it afterwards as uvicorn does."""
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)
        yield

    def stop(self) -> None:
        """Take no more connections, finish what is under way, then end."""
        self.should_exit = True


def server(app: Any) -> Server:
    """A server for an ASGI app, ready to `run` on listening sockets."""
    return Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S,
        )
    )


def stop_with_parent(serving: Server, parent: int) -> None:
    """Stop the server when the process's parent is gone.

    Args:
        serving: The server.
        parent: Process id that the parent had when this process began.
    """

    def stop() -> None:
        log.warning("the supervisor is gone, stopping")
        serving.stop()

    when_parent_is_gone(parent, stop)


def listener(host: str, port: int) -> socket.socket:
    """A listening socket of our own, for a process that runs without a supervisor."""
    return socket.create_server((host, port), backlog=BACKLOG)


class JsonLines(logging.Formatter):
    """A line of JSON for each event. Nothing logs what callers send or get."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        event = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(event).decode()


def log_json() -> None:
    """Log to stderr, in JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
