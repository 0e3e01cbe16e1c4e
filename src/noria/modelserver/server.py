"""Load, warm up, listen, drain."""

import logging
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import uvicorn

from noria.adapters.processes import settle_memory
from noria.adapters.uvicorn import LinedConnection
from noria.domain.errors import NoriaError, PortInUse, UpstreamFailed
from noria.modelserver.app import App
from noria.modelserver.batching import Batcher
from noria.modelserver.models import Model, load
from noria.modelserver.wire import parse_json

log = logging.getLogger("noria.modelserver")

DRAIN_S = 30
"""Longest time that requests under way may take after SIGTERM."""


async def serve(
    path: Path, listen: str, max_batch: int, max_queue: int, *, trust: bool, ready: Callable[[], None]
) -> None:
    """Serve the MLflow model in a folder until SIGTERM or SIGINT; calls `ready` when it listens.

    Raises:
        NoriaError: It can't be loaded, can't answer its own example, or the address is taken.
    """
    begun = time.monotonic()
    model = load(path, trust=trust)
    batcher = Batcher(model.predict, max_batch=max_batch, max_queue=max_queue)
    await warm_up(model, batcher)
    with bind(listen) as listener:
        log.info("ready on %s after %.1f s", listen, time.monotonic() - begun)
        ready()
        settle_memory()
        await listen_on(App(batcher, chats=model.chats), listener)
    batcher.close()


async def warm_up(model: Model, batcher: Batcher) -> None:
    """Let the model answer the example it was logged with.

    Raises:
        UpstreamFailed: It can't.
    """
    if model.example is None:
        return
    try:
        await batcher.submit(parse_json(model.example))
    except Exception as error:
        said = error.problem if isinstance(error, NoriaError) else f"{type(error).__name__}: {error}"
        raise UpstreamFailed(
            f"The model can't answer its own input example: {said}", "Log it again with an example that it can answer."
        ) from error


def bind(listen: str) -> socket.socket:
    """A listening socket at `unix:/path` (only for this user) or `tcp:host:port`.

    Raises:
        PortInUse: The address is taken or can't be had.
    """
    wire, _, address = listen.partition(":")
    try:
        if wire == "unix":
            return _bind_unix(Path(address))
        host, _, port = address.rpartition(":")
        return _bind_tcp(host, int(port))
    except OSError as error:
        raise PortInUse(f"{listen} can't be listened on: {error.strerror}.", "Choose another address.") from error


def _bind_tcp(host: str, port: int) -> socket.socket:
    # said to be TCP, or asyncio leaves out TCP_NODELAY and each answer waits 40 ms for the caller's acknowledgement
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


def _bind_unix(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


async def listen_on(app: App, listener: socket.socket) -> None:
    """Answer what comes there until SIGTERM or SIGINT, then finish what is under way."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn raises the signal again after it has drained
    config = uvicorn.Config(
        app,
        http=LinedConnection,
        ws="none",
        proxy_headers=False,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=DRAIN_S,
        timeout_keep_alive=75,
    )
    await uvicorn.Server(config).serve(sockets=[listener])
