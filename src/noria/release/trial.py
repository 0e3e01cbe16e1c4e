"""A trial: held-out rows sent to a version's real model server, over the wire that its callers will use.

What a gate judges is what was answered here, not what the training run remembered. Some rows go one by one, a few at a
time, for latency as a caller sees it; of the rest as many are under way as keep the server busy.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import msgspec

from noria.domain.errors import InvalidData, InvalidRequest, UpstreamFailed
from noria.evaluation.payloads import outputs, probabilities
from noria.ports import Upstream

T = TypeVar("T")
SINGLES = 60
"""Rows that are sent one by one."""
AT_ONCE = 2
"""How many of them wait for an answer at the same time: modest, because production traffic goes on meanwhile."""
WARM_UP = 3
"""Requests before the clock counts: a server's first answers load what later ones find loaded."""
BATCH = 64
"""Rows in one request of the rest."""
BATCHES = 2
"""Such requests that are under way at the same time: the next one waits at the server when it is done with one."""
CHATS = 8
"""Conversations of the rest that are under way at the same time: as many as a server has slots, and some that wait."""
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
ANSWER_TOKENS = 128
"""For a question that has a wanted answer, or is a probe."""
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
        input_tokens: Of all requests, as the server counted them; 0 if it doesn't count.
        output_tokens: Of all answers, likewise.
        asked: Requests whose tokens were counted, or rows where the server counts none.
        usd: What all of it cost, US dollars; None if nobody knows.
    """

    predictions: tuple[str, ...]
    probabilities: tuple[Mapping[str, float], ...] = ()
    latencies_ms: tuple[float, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    asked: int = 0
    usd: float | None = None


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

    def chat(self, url: str, prompts: Sequence[str] = PROMPTS, max_tokens: int = MAX_TOKENS) -> Answers:
        """Send prompts to `/v1/chat/completions`.

        Raises:
            UpstreamFailed: The server failed, or answered something else than a completion.
        """
        return asyncio.run(self._chat(url, prompts, max_tokens))

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
            rest = [texts[first : first + BATCH] for first in range(SINGLES, len(texts), BATCH)]
            replies = [reply for reply, _ in singles]
            replies += await _together(BATCHES, [partial(_invoke, client, url, batch) for batch in rest])
        predictions = tuple(answer for reply in replies for answer in outputs(reply))
        chances = tuple(row for reply in replies for row in probabilities(reply))
        return Answers(
            predictions=predictions,
            probabilities=chances if len(chances) == len(predictions) else (),
            latencies_ms=tuple(latency for _, latency in singles),
            asked=len(texts),
        )

    async def _chat(self, url: str, prompts: Sequence[str], max_tokens: int) -> Answers:
        async with aclosing(self.upstream()) as client:

            async def one(prompt: str) -> tuple[bytes, float]:
                begun = time.perf_counter()
                return await complete(client, url, prompt, max_tokens), (time.perf_counter() - begun) * 1000

            timed = await _together(1, [partial(one, prompt) for prompt in prompts[:SINGLES]])
            rest = await _together(CHATS, [partial(one, prompt) for prompt in prompts[SINGLES:]])
        said, used = [], [0, 0]
        for reply, _ in (*timed, *rest):
            if len(answer := outputs(reply)) != 1:
                raise _garbage(url, reply)
            said.append(answer[0])
            for place, count in enumerate(tokens(reply)):
                used[place] += count
        return Answers(
            predictions=tuple(said),
            latencies_ms=tuple(latency for _, latency in timed),
            input_tokens=used[0],
            output_tokens=used[1],
            asked=len(said),
        )


async def _together(at_once: int, calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """What calls return, in order, so many of them under way at the same time; the first error ends them, as itself."""
    places = asyncio.Semaphore(at_once)

    async def call(one: Callable[[], Awaitable[T]]) -> T:
        async with places:
            return await one()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call(one)) for one in calls]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def tokens(reply: bytes) -> tuple[int, int]:
    """Tokens of the request and of the answer, as the server counted them; zeros where it counts none."""
    used = msgspec.json.decode(reply).get("usage") or {}
    return int(used.get("prompt_tokens") or 0), int(used.get("completion_tokens") or 0)


async def complete(client: Upstream, url: str, prompt: str, max_tokens: int, timeout_s: float = TIMEOUT_S) -> bytes:
    """A chat server's reply to one prompt. A model that thinks before it answers takes neither `max_tokens` nor a
    temperature, and says so with a 400; it is asked again as it wants to be.

    Raises:
        UpstreamFailed: The server failed.
    """
    path, asked = "/v1/chat/completions", {"messages": [{"role": "user", "content": prompt}]}
    try:
        return await _post(client, url, path, asked | {"max_tokens": max_tokens, "temperature": 0}, timeout_s)
    except InvalidRequest:
        return await _post(client, url, path, asked | {"max_completion_tokens": MAX_THOUGHT}, timeout_s)


async def _invoke(client: Upstream, url: str, texts: Sequence[str]) -> bytes:
    reply = await _post(client, url, "/invocations", {"inputs": list(texts)})
    if len(outputs(reply)) != len(texts):
        raise _garbage(url, reply)
    return reply


async def _post(
    client: Upstream, url: str, path: str, body: Mapping[str, object], timeout_s: float = TIMEOUT_S
) -> bytes:
    reply = await client.post(url, path, msgspec.json.encode(body), _HEADERS, timeout_s)
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
