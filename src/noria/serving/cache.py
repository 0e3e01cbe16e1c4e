"""Answers that are given again to the very same request, where an endpoint's `routing.cache` says so.

"The same" is the same version asked in the same form for the same JSON, whatever the order of its keys, but for what
changes no answer: who asks, and what is said about the request (`BESIDE`). Sampling is not looked at: an endpoint that
caches gives everybody the first answer, also at a temperature. Only whole answers and streams that came to their end
are kept, and only those of the version that was picked, never one that stood in. A caller may ask for a fresh answer
(`cache-control: no-cache`) or for nothing to be kept (`no-store`).

Kept in the memory of one API process, not redacted, least recently used first out.
"""

import json
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from noria.serving.replies import Reply
from noria.serving.wires import Call, Form

BESIDE = frozenset(
    {
        *("metadata", "model", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "store"),
        *("stream", "stream_options", "user"),
    }
)
"""Keys of a body that don't change what is answered. `model` names the endpoint; how it streams is told apart."""
OVERHEAD = 300
"""Bytes that an entry takes beside its answer, about."""


@dataclass(frozen=True, slots=True)
class CacheRules:
    """What of its answers an endpoint keeps.

    Attributes:
        ttl_us: How long, microseconds.
        entries: How many.
        max_bytes: How much.
    """

    ttl_us: int
    entries: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that was given: its body, and if it was a stream, its pieces before `[DONE]`."""

    body: bytes
    pieces: tuple[bytes, ...] | None
    kept_us: int

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return OVERHEAD + len(self.body) + sum(len(piece) + 40 for piece in self.pieces or ())

    @property
    def reply(self) -> Reply:
        """The answer once more, for which no model counted a token."""
        return Reply(body=self.body, input_tokens=0, output_tokens=0)


def _canonical(body: bytes) -> bytes:
    """A JSON object without what stands beside the question, its keys in order.

    Raises:
        ValueError: A key is there twice. Nobody can say which one a model server takes, and what it answers to the one
            must not be given to a caller who asked the other.
    """
    value = json.loads(body, object_pairs_hook=_each_once)
    same = {name: item for name, item in value.items() if name not in BESIDE}
    return json.dumps(same, sort_keys=True, separators=(",", ":")).encode()


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


class AnswerCache:
    """One endpoint's answers.

    Args:
        rules: How long, how many, how much.
    """

    def __init__(self, rules: CacheRules) -> None:
        self.rules = rules
        self.bytes = 0
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: bytes, now_us: int) -> Kept | None:
        """The answer to that request, if it isn't too old; it counts as used."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if now_us - kept.kept_us >= self.rules.ttl_us:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept

    def keep(self, key: bytes, kept: Kept) -> None:
        """Keep an answer; those used longest ago make room for it. One that is larger than everything isn't kept."""
        if key in self._kept:
            self._drop(key)
        if kept.size > self.rules.max_bytes:
            return
        self._kept[key] = kept
        self.bytes += kept.size
        while len(self._kept) > self.rules.entries or self.bytes > self.rules.max_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: bytes) -> None:
        self.bytes -= self._kept.pop(key).size


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller's request means for its endpoint's cache.

    Attributes:
        cache: The cache.
        key: The request's identity.
        look: Whether a kept answer will do.
    """

    cache: AnswerCache
    key: bytes
    look: bool

    def find(self, now_us: int) -> Kept | None:
        """The answer that was kept, if one will do."""
        return self.cache.find(self.key, now_us) if self.look else None

    def keep(self, kept: Kept) -> None:
        """Keep the answer that was given."""
        self.cache.keep(self.key, kept)


def wish(cache: AnswerCache, ref: str, form: Form, call: Call, cache_control: str) -> Wish | None:
    """What a request means for a cache; None if nothing of it is to be kept.

    Args:
        cache: The cache.
        ref: The version that answers, `model/version`.
        form: How it is put.
        call: The request, understood.
        cache_control: The header, empty if there was none.
    """
    asked = {part.strip().lower() for part in cache_control.split(",")} if cache_control else frozenset[str]()
    if "no-store" in asked:
        return None
    try:
        same = _canonical(call.record)
    except (ValueError, RecursionError):
        return None
    head = f"{ref}\n{form.value}\n{call.content_type}\n{call.stream:d}{call.shows_usage:d}\n".encode()
    return Wish(cache, blake2b(head + same, digest_size=24).digest(), not asked & {"no-cache", "max-age=0"})
