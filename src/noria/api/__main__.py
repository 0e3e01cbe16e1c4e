"""One API process: `python -m noria.api --project DIR --fd N --slot api-0`.

It serves on a listening socket that the supervisor owns, so that nobody is refused while a process is replaced. On
SIGTERM it takes no more connections, finishes what it is answering, and closes its spool. It ends by itself when the
supervisor is gone.
"""

import argparse
import logging
import os
import socket
import sys
from ipaddress import ip_address
from pathlib import Path

from noria import bootstrap
from noria.adapters.logs import log_json
from noria.adapters.processes import settle_memory
from noria.api.app import create_app
from noria.api.connection import Bounds
from noria.api.pool import Pool
from noria.api.process import listener, server, stop_with_parent, tune
from noria.api.readiness import Siblings
from noria.domain.errors import NoriaError
from noria.settings import Server

log = logging.getLogger("noria.api")


def main() -> int:
    """Serve until told to stop."""
    parent = os.getppid()
    options = _options()
    log_json()
    try:
        sock = listener(options.host, options.port) if options.fd is None else socket.socket(fileno=options.fd)
        settings = bootstrap.opened(options.project.resolve())[0]
        parts = bootstrap.api(settings, options.slot)
    except (NoriaError, OSError) as error:
        log.error("%s", error)
        return 1
    counts = settings.run_dir / "counts"
    app = create_app(
        router=parts.router,
        upstream=parts.upstream,
        frames=parts.frames,
        reachable=parts.upstream.reachable,
        recorder=parts.recorder,
        state=parts.state,
        clock=parts.clock,
        meters=parts.meters,
        read_drift=parts.read_drift,
        trace=parts.trace,
        spool_bytes=parts.spool_bytes,
        on_close=parts.close,
        loopback=ip_address(sock.getsockname()[0]).is_loopback,
        pool=Pool(counts, options.slot) if options.pool else None,
        siblings=Siblings(counts, options.slot, options.pool) if options.pool else None,
    )
    tune(sock, parts.router.project.server.slow_client.total_seconds())
    limits = parts.router.project.server
    serving = server(app, lambda: _bounds(parts.router.project.server), limits.drain.total_seconds(), limits.access_log)
    if options.fd is not None:
        stop_with_parent(serving, parent)
    settle_memory()
    serving.run([sock])
    return 0


def _bounds(limits: Server) -> Bounds:
    return Bounds(limits.max_header_bytes, limits.slow_client.total_seconds())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m noria.api", description=__doc__)
    parser.add_argument("--project", type=Path, required=True, help="folder that holds noria.yaml")
    parser.add_argument("--slot", default="api-0", help="name of the spool that this process alone writes")
    parser.add_argument("--pool", type=int, default=0, help="how many processes there are that count together")
    parser.add_argument("--fd", type=int, help="listening socket to serve on, inherited from the supervisor")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on without --fd")
    parser.add_argument("--port", type=int, default=8480, help="port to listen on without --fd")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
