"""Serves a prompt version: its base in llama.cpp inside this process, or asked at its upstream.

A classifier answers MLflow's scoring wire with labels and how probable each is. A chat's requests go on to the base
with the version's messages in front, and what the base says comes back as it comes, stream or not.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from noria.adapters.processes import settle_memory
from noria.adapters.prompts.asking import Prompted, open_folder
from noria.adapters.prompts.base import upstream_of
from noria.adapters.upstreams.own import HttpUpstream
from noria.domain.errors import NoriaError, UpstreamFailed
from noria.modelserver import chat
from noria.modelserver.app import App
from noria.modelserver.batching import Answer, Batcher, Call
from noria.modelserver.rows import texts
from noria.modelserver.server import bind, listen_on
from noria.ports import Upstream, UpstreamReply

log = logging.getLogger("noria.modelserver")

WARM_UP = "It was better than I had thought it would be."
"""What the model is asked before anybody else asks: nobody's real message."""
_PATH = "/v1/chat/completions"
_HEADERS = {"content-type": "application/json"}
_TIMEOUT_S = 3600.0
"""The gateway's own limit is shorter, and hangs up."""


async def serve(folder: Path, listen: str, max_batch: int, max_queue: int, *, ready: Callable[[], None]) -> None:
    """Serve the prompt version in a folder until SIGTERM or SIGINT; calls `ready` when it listens.

    Raises:
        NoriaError: Its base can't be brought up or asked, or the address is taken.
    """
    begun = time.monotonic()
    prompted = open_folder(folder)
    _warm_up(prompted)
    batcher = Batcher(_classifier(prompted), max_batch=max_batch, max_queue=max_queue)
    passage = None if prompted.prompt.labels else Passage(prompted, _client(prompted))
    with bind(listen) as listener:
        log.info("ready on %s after %.1f s", listen, time.monotonic() - begun)
        ready()
        settle_memory()
        await listen_on(App(batcher, chats=passage is not None, passage=passage), listener)
    batcher.close()
    if prompted.prompt.base.upstream:
        prompted.close()
    else:
        os._exit(0)  # llama.cpp has threads that nothing joins


class Passage:
    """The way of a chat to the base: with the version's messages in front, and its parameters where the caller gave
    none.

    Args:
        prompted: The version.
        client: What asks the base.
    """

    def __init__(self, prompted: Prompted, client: Upstream) -> None:
        self._prompted = prompted
        self._client = client

    async def __call__(self, body: bytes) -> UpstreamReply:
        """Send a caller's chat to the base.

        Raises:
            InvalidRequest: It is none.
            UpstreamFailed: The base failed.
        """
        asked: Mapping[str, Any] = chat.read(body)
        base = self._prompted.prompt.base
        named = {"model": base.model} if base.upstream else {}
        sent = {**self._prompted.prompt.parameters, **asked, **named}
        sent["messages"] = self._prompted.chat(asked["messages"])
        return await self._client.post(self._prompted.base.url, _PATH, msgspec.json.encode(sent), _HEADERS, _TIMEOUT_S)


def _client(prompted: Prompted) -> Upstream:
    base = prompted.prompt.base
    if not base.upstream:
        return HttpUpstream()
    from noria.adapters.prompts.remote import client

    return client(base, upstream_of(base))


def _classifier(prompted: Prompted) -> Callable[[Call], Answer]:
    def predict(call: Call) -> Answer:
        likely = prompted.classify(texts(call, "text"))
        labels = [max(row, key=lambda label: row[label]) for row in likely]
        return Answer(labels, likely if prompted.base.knows_probabilities else None)

    return predict


def _warm_up(prompted: Prompted) -> None:
    """Let a base in this process answer once; one elsewhere costs money, and whoever asks it finds out.

    Raises:
        UpstreamFailed: It can't.
    """
    if prompted.prompt.base.upstream:
        return
    try:
        if prompted.prompt.labels:
            prompted.classify([WARM_UP])
        else:
            prompted.base.complete([prompted.chat([{"role": "user", "content": WARM_UP}])], {"max_tokens": 1})
    except NoriaError as error:
        raise UpstreamFailed(
            f"The base can't answer this prompt: {error.problem}", "Train the version again on a base that can."
        ) from error
