"""The model server's command line; `adapters/hosts/local.py` builds it."""

import argparse
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path

from noria.adapters.hosts.local import failure_line
from noria.domain.errors import NoriaError
from noria.modelserver.guard import OrphanGuard

log = logging.getLogger("noria.modelserver")


def main() -> int:
    """Serve until SIGTERM, then finish what is under way. The last line of the log says why a start failed."""
    options = _arguments().parse_args()
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s {options.name}/{options.version} %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    try:
        if options.command:
            return _serve_command(options)
        if options.gguf:
            _serve_gguf(options)
        elif options.prompt:
            _serve_prompt(options)
        else:
            _serve_mlflow(options)
    except NoriaError as error:
        print(failure_line(error), file=sys.stderr, flush=True)
        return 1
    return 0


def _serve_mlflow(options: argparse.Namespace) -> None:
    import uvloop

    from noria.modelserver.server import serve

    ready = partial(_watch, options)
    batches = (options.max_batch, options.max_queue)
    uvloop.run(serve(options.path, options.listen, *batches, trust=options.trust, ready=ready))


def _serve_gguf(options: argparse.Namespace) -> None:
    from noria.adapters.hosts.llamacpp import GgufOptions, serve

    gguf = GgufOptions(
        file=options.gguf,
        listen=options.listen,
        name=options.name,
        context=options.context,
        threads=options.threads,
        slots=options.slots,
    )
    serve(gguf, partial(_watch, options))


def _serve_prompt(options: argparse.Namespace) -> None:
    import uvloop

    from noria.modelserver.prompted import serve

    ready = partial(_watch, options)
    uvloop.run(serve(options.prompt, options.listen, options.max_batch, options.max_queue, ready=ready))


def _serve_command(options: argparse.Namespace) -> int:
    from noria.modelserver.command import serve

    return serve(options.command, partial(_watch, options))


def _watch(options: argparse.Namespace) -> None:
    """End when the project has no worker for a while."""
    if options.project_lock:
        OrphanGuard(options.project_lock, _drain, note=options.note, after_s=options.orphan_after).start()


def _drain() -> None:
    log.warning("no worker has claimed this server for a while; it ends")
    os.kill(os.getpid(), signal.SIGTERM)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m noria.modelserver", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--path", type=Path, help="folder of an MLflow model")
    what.add_argument("--gguf", type=Path, help="llama.cpp model file")
    what.add_argument("--prompt", type=Path, help="folder of a prompt version")
    what.add_argument("--command", nargs=argparse.REMAINDER, help="command that listens by itself; comes last")
    parser.add_argument("--listen", default="", help="unix:/path/to.sock or tcp:127.0.0.1:PORT")
    parser.add_argument("--name", required=True, help="registered model")
    parser.add_argument("--version", required=True, help="its version")
    parser.add_argument("--trust", action="store_true", help="load files that could run code")
    parser.add_argument("--max-batch", type=int, default=64, help="most rows put to the model together")
    parser.add_argument("--max-queue", type=int, default=512, help="most requests that wait")
    parser.add_argument("--context", type=int, default=2048, help="tokens of context for each slot (GGUF)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads for decoding (GGUF)")
    parser.add_argument("--slots", type=int, default=4, help="requests that are decoded together (GGUF)")
    parser.add_argument("--project-lock", type=Path, help="the worker's lock; the server ends when it stays free")
    parser.add_argument("--note", type=Path, help="the host's note of its server; one that it doesn't name ends")
    parser.add_argument("--orphan-after", type=float, default=60, help="seconds that it may stay free")
    return parser


if __name__ == "__main__":
    sys.exit(main())
