"""A base behind one of the project's upstreams: the same questions over OpenAI's wire.

How probable a label is, is known where the upstream tells the log-probabilities of what it might have said instead;
where it doesn't, the label alone is.
"""

import asyncio
import difflib
import math
import threading
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from noria.adapters.prompts.filling import Message
from noria.adapters.upstreams.both import ProjectUpstream
from noria.adapters.upstreams.credentials import UpstreamCredentials
from noria.adapters.upstreams.own import HttpUpstream
from noria.adapters.upstreams.places import address_of
from noria.domain.errors import InvalidRequest, UpstreamFailed
from noria.domain.prompt import Base
from noria.settings import Upstream, secret

PATH = "/v1/chat/completions"
TRIES = 4
"""How often a request is sent that the upstream has no time for."""
_BUSY = (408, 429, 500, 502, 503, 504)
_HEADERS = {"content-type": "application/json"}
_TIMEOUT_S = 60.0
_LIKELIEST = 20
"""Log-probabilities asked for: as many as OpenAI gives."""

T = TypeVar("T")


class UpstreamBase:
    """A model of an upstream, asked from a thread that may block.

    Args:
        base: Its name and that of the model.
        upstream: Where that is.
    """

    def __init__(self, base: Base, upstream: Upstream) -> None:
        self.url = address_of(base.upstream, base.model)
        self._client = client(base, upstream)
        self._slots = base.slots
        self._tells = True
        self.input_tokens = self.output_tokens = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self._thread.start()

    def classify(self, chats: Sequence[Sequence[Message]], labels: Sequence[str]) -> list[dict[str, float]]:
        """Label → probability for each chat; the label alone, as certain as can be, where the upstream tells no more.

        Raises:
            UpstreamFailed: It failed, or is too busy.
        """
        return self._run(self._all([self._label(chat, labels) for chat in chats]))

    def complete(self, chats: Sequence[Sequence[Message]], parameters: Mapping[str, Any]) -> list[str]:
        """The answer to each chat, in words.

        Raises:
            InvalidRequest: The upstream can't do what is asked.
            UpstreamFailed: It failed, or is too busy.
        """

        async def one(chat: Sequence[Message]) -> str:
            choice = await self._ask({"temperature": 0, **parameters, "messages": list(chat)})
            return str(choice["message"].get("content") or "")

        return self._run(self._all([one(chat) for chat in chats]))

    @property
    def knows_probabilities(self) -> bool:
        """Whether the upstream has told them so far."""
        return self._tells

    def close(self) -> None:
        """Close its connections."""
        self._run(self._client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _all(self, works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        places = asyncio.Semaphore(self._slots)

        async def placed(work: Coroutine[Any, Any, T]) -> T:
            async with places:
                return await work

        return await asyncio.gather(*map(placed, works))

    async def _label(self, chat: Sequence[Message], labels: Sequence[str]) -> dict[str, float]:
        asked: dict[str, Any] = {"messages": list(chat), "temperature": 0, "max_tokens": 24}
        if self._tells:
            try:
                choice = await self._ask({**asked, "logprobs": True, "top_logprobs": _LIKELIEST})
            except InvalidRequest:
                self._tells = False
        if not self._tells:
            choice = await self._ask(asked)
        told = _told(choice, labels) if self._tells else None
        if told is not None:
            return told
        self._tells = False
        said = likest(str(choice["message"].get("content") or ""), labels)
        return {label: float(label == said) for label in labels}

    async def _ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The first choice of a completion; what the upstream has no time for is sent again, later each time."""
        sent = msgspec.json.encode(body)
        for attempt in range(1, TRIES + 1):
            reply = await self._client.post(self.url, PATH, sent, _HEADERS, _TIMEOUT_S)
            answer = b"".join([chunk async for chunk in reply.chunks])
            if reply.status in _BUSY and attempt < TRIES:
                await asyncio.sleep(_pause_s(reply.headers.get("retry-after", ""), attempt))
                continue
            break
        if reply.status != 200:
            said = answer[:300].decode(errors="replace")
            kind = InvalidRequest if reply.status in (400, 404, 422) else UpstreamFailed
            raise kind(f"{self.url} answered {reply.status}: {said}", "See what the upstream says.")
        try:
            whole = msgspec.json.decode(answer)
            usage = whole.get("usage") or {}
            self.input_tokens += int(usage.get("prompt_tokens") or 0)
            self.output_tokens += int(usage.get("completion_tokens") or 0)
            choice: dict[str, Any] = whole["choices"][0]
            choice["message"].get("content")
        except (msgspec.DecodeError, LookupError, TypeError, AttributeError) as error:
            raise UpstreamFailed(f"{self.url} answered no completion.", "See what is at its address.") from error
        return choice


def client(base: Base, upstream: Upstream) -> ProjectUpstream:
    """What calls that upstream, and no other."""
    known = {base.upstream: upstream}
    return ProjectUpstream(HttpUpstream(), lambda: known, UpstreamCredentials(secret))


def likest(said: str, labels: Sequence[str]) -> str:
    """The label that an answer means: itself, the one that it names first, else the one that looks most like it."""
    plain = said.strip().strip(".\"'*` ").casefold()
    for label in labels:
        if plain == label.casefold():
            return label
    places = [(place, -len(label), label) for label in labels if (place := plain.find(label.casefold())) >= 0]
    if places:
        return min(places)[2]
    return max(labels, key=lambda label: difflib.SequenceMatcher(None, plain, label.casefold()).ratio())


def _told(choice: Mapping[str, Any], labels: Sequence[str]) -> dict[str, float] | None:
    """Label → probability from what might have been the first token instead; None if that isn't told, or says nothing
    because no token belongs to one label only."""
    content = (choice.get("logprobs") or {}).get("content") or []
    mass = dict.fromkeys(labels, 0.0)
    for each in (content[0].get("top_logprobs") or []) if content else []:
        token = str(each.get("token", "")).strip().casefold()
        meant = [label for label in labels if token and label.casefold().startswith(token)]
        if len(meant) == 1:
            mass[meant[0]] += math.exp(float(each["logprob"]))
    total = sum(mass.values())
    if total < 1e-6:
        return None
    floor = 1e-6
    return {label: (p + floor) / (total + floor * len(labels)) for label, p in mass.items()}


def _pause_s(asked: str, attempt: int) -> float:
    """Seconds to wait: as long as the upstream asks for, at most half a minute, else twice as long each time."""
    try:
        return min(max(float(asked), 0.0), 30.0)
    except ValueError:
        return min(0.5 * 2.0**attempt, 30.0)
