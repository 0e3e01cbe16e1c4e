"""How one process serves an app: on a socket that may be somebody else's and with a clean end."""

import asyncio
import logging
import math
import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn

from noria.adapters.processes import when_parent_is_gone
from noria.api.access import AccessLog
from noria.api.app import App
from noria.api.connection import Bounds, bounded

log = logging.getLogger("noria.api")

DRAIN_S = 20.0
"""How long answers that are under way may take at the end, in seconds."""
KEEP_ALIVE_S = 75
"""How long an idle connection is kept, in seconds."""
UNSENT_BYTES = 128 * 1024
"""What the system holds for a connection beyond what is on the wire; the more, the later a slow caller is noticed."""
BACKLOG = 2048
"""Connections that may wait to be accepted."""


class Server(uvicorn.Server):
    """uvicorn, which ends with status 0 when it is told to stop.

    Args:
        config: uvicorn's.
        on_stop: Told when the end begins.
    """

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

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
        self._on_stop()
        self.should_exit = True


def server(
    app: App, bounds: Callable[[], Bounds] = Bounds, drain_s: float = DRAIN_S, access_log: bool = False
) -> Server:
    """A server for an ASGI app, ready to `run` on listening sockets.

    Args:
        app: The app.
        bounds: What each new connection goes by.
        drain_s: How long answers that are under way may take at the end, in seconds.
        access_log: Whether each request is logged.
    """
    return Server(
        uvicorn.Config(
            AccessLog(app, app.addresses) if access_log else app,
            loop="uvloop",
            http=bounded(bounds, None if access_log else app.answer),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(drain_s),
        ),
        app.drain,
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


def tune(listener: socket.socket, slow_client_s: float) -> None:
    """Have the system end connections whose caller takes nothing, and keep little that is written but not sent.

    Every connection that is accepted inherits it. Where the system doesn't know these options (they are Linux's), our
    own timers have to do.

    Args:
        listener: A listening socket.
        slow_client_s: How long a caller may take nothing, in seconds.
    """
    options = (("TCP_USER_TIMEOUT", int(slow_client_s * 1000)), ("TCP_NOTSENT_LOWAT", UNSENT_BYTES))
    for name, value in options:
        if hasattr(socket, name) and listener.family in (socket.AF_INET, socket.AF_INET6):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def listener(host: str, port: int) -> socket.socket:
    """A listening socket of our own, for a process that runs without a supervisor."""
    return socket.create_server((host, port), backlog=BACKLOG)
