"""GGUF models through xllamacpp, which embeds llama.cpp's own server: the OpenAI wire, streaming, continuous batching.

Runs inside a model server process of its own (`python -m noria.modelserver --gguf …`).
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from noria.domain.errors import MissingExtra, UnknownModel, UpstreamFailed

CACHE_MIB = 256
"""Memory for prompts that may come again."""
DRAIN_S = 30
"""Longest time that answers under way may take after SIGTERM."""


@dataclass(frozen=True, slots=True)
class GgufOptions:
    """How a GGUF file is served.

    Attributes:
        file: The model file.
        listen: `unix:/path/to.sock` or `tcp:host:port`.
        name: What the model is called in answers.
        context: Tokens of context for each slot.
        threads: CPU threads; more than there are idle cores makes decoding several times slower.
        slots: Requests that are decoded together.
        adapter: A LoRA adapter in GGUF that the model is loaded with.
    """

    file: Path
    listen: str
    name: str
    context: int = 2048
    threads: int = 1
    slots: int = 4
    adapter: Path | None = None


def serve(options: GgufOptions, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT, then let answers under way finish; calls `ready` when it listens.

    Raises:
        MissingExtra: xllamacpp isn't installed.
        UnknownModel: There is no such file.
        UpstreamFailed: llama.cpp can't load it, or can't listen there.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server = start(options)
    ready()
    stop.wait()
    _forget_address(options.listen)  # no new callers
    deadline = time.monotonic() + DRAIN_S
    while busy(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.1)  # the last bytes are on their way
    os._exit(0)  # the embedded server has threads that nothing joins


def start(options: GgufOptions) -> Any:
    """Load the file and listen; returns the running `xllamacpp.Server`.

    Raises:
        NoriaError: See `serve`.
    """
    library = _library()
    if not options.file.is_file():
        raise UnknownModel(f"There is no file {options.file}.", "Register the model again.")
    _forget_address(options.listen)
    try:
        return library.Server(_parameters(library, options))
    except Exception as error:  # it says why in the log, and not in what it raises
        raise UpstreamFailed(
            f"llama.cpp can't serve {options.file.name} on {options.listen}.",
            "Its log has the reason: no GGUF file, an architecture it doesn't know, or an address that is taken.",
        ) from error


def busy(server: Any) -> bool:
    """Whether any request is being answered or waits for a slot."""
    return any(
        float(line.split()[-1]) > 0
        for line in server.handle_metrics().splitlines()
        if line.startswith(("llamacpp:requests_processing", "llamacpp:requests_deferred"))
    )


def _library() -> ModuleType:
    try:
        import xllamacpp
    except ImportError as error:
        raise MissingExtra("Serving GGUF files needs xllamacpp.", "Run pip install 'noria[llama]'.") from error
    module: ModuleType = xllamacpp
    return module


def _parameters(library: ModuleType, options: GgufOptions) -> Any:
    parameters = library.CommonParams()
    parameters.model.path = str(options.file)
    parameters.model_alias = {options.name}
    wire, _, address = options.listen.partition(":")
    host, _, port = (address, "", "0") if wire == "unix" else address.rpartition(":")
    parameters.hostnames = [host]  # llama.cpp takes a name that ends in .sock for a unix socket
    parameters.port = int(port)
    if options.adapter is not None:
        parameters.lora_adapters = [library.CommonAdapterLoraInfo(str(options.adapter), 1.0)]
    parameters.n_parallel = options.slots
    parameters.n_ctx = options.context * options.slots
    for threads in (parameters.cpuparams, parameters.cpuparams_batch):
        threads.n_threads = options.threads
        threads.poll = 0  # sleep, don't spin, between tokens
    parameters.n_threads_http = options.slots + 4
    parameters.cache_ram_mib = CACHE_MIB
    parameters.endpoint_metrics = True
    parameters.ui = False
    parameters.offline = True
    parameters.cors_origins = ""
    return parameters


def _forget_address(listen: str) -> None:
    if listen.startswith("unix:"):
        Path(listen.removeprefix("unix:")).unlink(missing_ok=True)
