"""Asking a judging model, over the project's own way to upstreams: its keys, where it may call, what it costs.

A request that gets no reply is tried again; what it cost is known only where the reply says how many tokens it took.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec

from noria.domain.errors import InvalidRequest, NoriaError, NotReady, UpstreamFailed
from noria.domain.price import Price
from noria.ports import Upstream

PATH = "/v1/chat/completions"
AT_ONCE = 4
"""Requests that wait for a reply at the same time."""
TRIES = 3
PAUSE_S = 0.5
"""Before a request is tried again, seconds; twice as long the next time."""
_HEADERS = {"content-type": "application/json"}
_AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504})
_OTHERWISE = (b"max_completion_tokens", b"temperature")
"""What a refusal names that is about how a model that thinks has to be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came of one request.

    Attributes:
        body: The reply as it came; empty if there is none.
        text: What the model wrote; None if there is no reply or it holds no text.
        usd: What it cost, US dollars.
        problem: Why there is no reply; empty if there is one.
    """

    body: bytes = b""
    text: str | None = None
    usd: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks judging models. Each call has its own connections and event loop.

    Attributes:
        upstream: Makes a client of model servers.
    """

    upstream: Callable[[], Upstream]

    def ask(self, url: str, bodies: Sequence[Mapping[str, Any]], price: Price | None, timeout_s: float) -> list[Reply]:
        """Send chat completions and wait for all replies, which are in the order of the requests.

        Args:
            url: Of the judging model, as the Upstream port takes it.
            bodies: The requests.
            price: Of its tokens; None if nobody knows.
            timeout_s: Longest time of one request, seconds.
        """
        return asyncio.run(self._ask(url, bodies, price, timeout_s))

    async def _ask(
        self, url: str, bodies: Sequence[Mapping[str, Any]], price: Price | None, timeout_s: float
    ) -> list[Reply]:
        places = asyncio.Semaphore(AT_ONCE)
        async with aclosing(self.upstream()) as client:

            async def one(body: Mapping[str, Any]) -> Reply:
                async with places:
                    return await _with_patience(client, url, body, price, timeout_s)

            return list(await asyncio.gather(*map(one, bodies)))


async def _with_patience(
    client: Upstream, url: str, body: Mapping[str, Any], price: Price | None, timeout_s: float
) -> Reply:
    problem = ""
    for number in range(TRIES):
        if number:
            await asyncio.sleep(PAUSE_S * 2 ** (number - 1))
        try:
            return _read(await _post(client, url, body, timeout_s), price)
        except (NotReady, InvalidRequest) as error:  # asking again won't help
            return Reply(problem=str(error))
        except NoriaError as error:
            problem = str(error)
    return Reply(problem=problem)


async def _post(client: Upstream, url: str, body: Mapping[str, Any], timeout_s: float) -> bytes:
    reply = await client.post(url, PATH, msgspec.json.encode(body), _HEADERS, timeout_s)
    raw = b"".join([chunk async for chunk in reply.chunks])
    if reply.status == 200:
        return raw
    if reply.status == 400 and "max_tokens" in body and any(hint in raw for hint in _OTHERWISE):
        thinking = {key: value for key, value in body.items() if key not in ("max_tokens", "temperature")}
        return await _post(client, url, {**thinking, "max_completion_tokens": body["max_tokens"] * 8}, timeout_s)
    said = f"The judging model answered with {reply.status}: {raw[:300].decode(errors='replace')}"
    if reply.status in _AGAIN:
        raise UpstreamFailed(said, "It is asked again for the next window.")
    raise InvalidRequest(said, "Correct the judge in noria.yaml; structured: false leaves response_format out.")


def _read(raw: bytes, price: Price | None) -> Reply:
    try:
        reply = msgspec.json.decode(raw)
        text = reply["choices"][0]["message"]["content"]
    except (msgspec.MsgspecError, UnicodeError, RecursionError, LookupError, TypeError):
        return Reply(body=raw)
    usage = reply.get("usage") if isinstance(reply.get("usage"), dict) else {}
    tokens = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    counted = [number if isinstance(number, int) and number > 0 else 0 for number in tokens]
    usd = price.cost(*counted) if price is not None else 0.0
    return Reply(body=raw, text=text if isinstance(text, str) else None, usd=usd)
