"""A trial: held-out rows sent to a version's real model server, over the wire that its callers will use.

What a gate judges is what was answered here, not what the training run remembered. Some rows go one by one, a few at a
time, for latency as a caller sees it; the rest go in batches.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from noria.domain.errors import InvalidData, InvalidRequest, UpstreamFailed
from noria.evaluation.payloads import outputs, probabilities
from noria.ports import Upstream

SINGLES = 60
"""Rows that are sent one by one."""
AT_ONCE = 2
"""How many of them wait for an answer at the same time: modest, because production traffic goes on meanwhile."""
WARM_UP = 3
"""Requests before the clock counts: a server's first answers load what later ones find loaded."""
BATCH = 64
"""Rows in one request of the rest."""
TIMEOUT_S = 60.0
"""For one request."""
PROMPTS = (
    "Write one friendly sentence that thanks a customer for waiting.",
    "A parcel arrived two days late. Write a short apology.",
    "Name three colours.",
    "Say in one sentence what an invoice is.",
)
"""What a chat version is asked."""
MAX_TOKENS = 32
MAX_THOUGHT = 1024
"""Tokens for a model that thinks before it answers: what it thought counts, too."""
_OTHERWISE = (b"max_completion_tokens", b"temperature")
"""What a refusal names that is about how we asked."""
_HEADERS = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What one version answered.

    Attributes:
        predictions: One for each row, in the rows' order; what was written, for a chat version.
        probabilities: Class → probability for each row, empty where the server gives none.
        latencies_ms: Of the requests that held a single row, milliseconds.
    """

    predictions: tuple[str, ...]
    probabilities: tuple[Mapping[str, float], ...] = ()
    latencies_ms: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """Asks model servers and notes what they say. Each trial has its own connections and event loop.

    Attributes:
        upstream: Makes a client of model servers.
    """

    upstream: Callable[[], Upstream]

    def classify(self, url: str, texts: Sequence[str]) -> Answers:
        """Send texts to `/invocations`.

        Raises:
            UpstreamFailed: The server failed, or answered something else than one prediction for each text.
            InvalidData: There are no texts.
        """
        if not texts:
            raise InvalidData("There are no held-out rows to try a version on.", "Keep some rows out of training.")
        return asyncio.run(self._classify(url, texts))

    def chat(self, url: str, prompts: Sequence[str] = PROMPTS) -> Answers:
        """Send prompts to `/v1/chat/completions`, one at a time.

        Raises:
            UpstreamFailed: The server failed, or answered something else than a completion.
        """
        return asyncio.run(self._chat(url, prompts))

    async def _classify(self, url: str, texts: Sequence[str]) -> Answers:
        async with aclosing(self.upstream()) as client:
            for text in texts[:WARM_UP]:
                await _invoke(client, url, [text])
            places = asyncio.Semaphore(AT_ONCE)

            async def single(text: str) -> tuple[bytes, float]:
                async with places:
                    begun = time.perf_counter()
                    return await _invoke(client, url, [text]), (time.perf_counter() - begun) * 1000

            singles = await asyncio.gather(*map(single, texts[:SINGLES]))
            replies = [reply for reply, _ in singles]
            for first in range(SINGLES, len(texts), BATCH):
                replies.append(await _invoke(client, url, texts[first : first + BATCH]))
        predictions = tuple(answer for reply in replies for answer in outputs(reply))
        chances = tuple(row for reply in replies for row in probabilities(reply))
        return Answers(
            predictions=predictions,
            probabilities=chances if len(chances) == len(predictions) else (),
            latencies_ms=tuple(latency for _, latency in singles),
        )

    async def _chat(self, url: str, prompts: Sequence[str]) -> Answers:
        said, latencies = [], []
        async with aclosing(self.upstream()) as client:
            for prompt in prompts:
                begun = time.perf_counter()
                reply = await _complete(client, url, [{"role": "user", "content": prompt}])
                latencies.append((time.perf_counter() - begun) * 1000)
                if len(answer := outputs(reply)) != 1:
                    raise _garbage(url, reply)
                said.append(answer[0])
        return Answers(predictions=tuple(said), latencies_ms=tuple(latencies))


async def _invoke(client: Upstream, url: str, texts: Sequence[str]) -> bytes:
    reply = await _post(client, url, "/invocations", {"inputs": list(texts)})
    if len(outputs(reply)) != len(texts):
        raise _garbage(url, reply)
    return reply


async def _complete(client: Upstream, url: str, messages: list[dict[str, str]]) -> bytes:
    """A chat's answer. A model that thinks before it answers takes neither `max_tokens` nor a temperature, and says
    so with a 400; it is asked again as it wants to be."""
    path, body = "/v1/chat/completions", {"messages": messages, "max_tokens": MAX_TOKENS, "temperature": 0}
    try:
        return await _post(client, url, path, body)
    except InvalidRequest:
        return await _post(client, url, path, {"messages": messages, "max_completion_tokens": MAX_THOUGHT})


async def _post(client: Upstream, url: str, path: str, body: Mapping[str, object]) -> bytes:
    reply = await client.post(url, path, msgspec.json.encode(body), _HEADERS, TIMEOUT_S)
    answer = b"".join([chunk async for chunk in reply.chunks])
    if reply.status != 200:
        said = f"The model server at {url} answered {path} with {reply.status}: {answer[:300].decode(errors='replace')}"
        if reply.status == 400 and "max_tokens" in body and any(hint in answer for hint in _OTHERWISE):
            raise InvalidRequest(said)
        raise UpstreamFailed(said, "See its log in .noria/run.")
    return answer


def _garbage(url: str, reply: bytes) -> UpstreamFailed:
    return UpstreamFailed(
        f"The model server at {url} did not give one answer for each row: {reply[:300].decode(errors='replace')}",
        "See its log in .noria/run.",
    )
