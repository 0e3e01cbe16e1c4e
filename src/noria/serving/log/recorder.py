"""Writes the log: each entry redacted first, and on disk before the caller goes on.

When the log can't be written, whoever asks gets LogUnavailable and gives no answer: what isn't on record didn't happen.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from noria.domain.errors import LogUnavailable, RedactionUnavailable
from noria.domain.inference import Feedback, Intent, Outcome
from noria.ports import Clock, EntityReader, RecordSpool
from noria.serving.log.effort import Effort
from noria.serving.log.entities import marked, withheld, without_entities
from noria.serving.log.payload import DATABRICKS_BYTES, Side, kept
from noria.serving.log.redaction import Redactor
from noria.settings import SPELLED

_THREAD_BYTES: Final = 64 << 10
"""Longer bodies are redacted in a thread of their own, so that no other request waits for them."""
LONGEST_BYTES: Final = 10_000_000
"""Longest body that is kept whole, if nothing else is said."""


def _random_bytes(size: int, at_once: int = 512) -> Iterator[bytes]:
    """Random bytes of the system's, taken in stock: a system call for each request costs as much as all else of it."""
    while True:
        stock = os.urandom(size * at_once)
        yield from (stock[place : place + size] for place in range(0, len(stock), size))


_RANDOM: Final = _random_bytes(8)


def new_request_id(clock: Clock) -> str:
    """An identity of 32 hex digits that sorts by time to a quarter of a microsecond (UUID version 7, RFC 9562)."""
    milliseconds, rest = divmod(clock.now_us(), 1000)
    random = int.from_bytes(next(_RANDOM)) & (1 << 62) - 1
    number = (milliseconds & (1 << 48) - 1) << 80 | 7 << 76 | rest * 4096 // 1000 << 64 | 2 << 62 | random
    return f"{number:032x}"


class Recorder:
    """The log as the gateway and the feedback route see it. A cancellation is raised after a write, never within one.

    Args:
        spool: Where entries go.
        redactors: Endpoint → what is taken out of its bodies; an endpoint that isn't in it gets the strictest.
        clock: For the times and ids of feedback.
        longest: Bytes of a body that are kept whole, as the project in service says at this moment.
        reader: Finds names, for endpoints that ask for it.
    """

    def __init__(
        self,
        spool: RecordSpool,
        redactors: Mapping[str, Redactor],
        clock: Clock,
        longest: Callable[[], int] = lambda: LONGEST_BYTES,
        reader: EntityReader | None = None,
    ) -> None:
        self._spool = spool
        self._redactors = redactors
        self._clock = clock
        self._longest = longest
        self._reader = reader
        self._strictest = Redactor(SPELLED)
        self._under_way: dict[str, Redactor] = {}

    def intent(self, intent: Intent) -> Coroutine[Any, Any, None]:
        """Put an intent on disk.

        Raises:
            LogUnavailable: It could not be written; the request must not be sent to a model.
        """
        redactor = self._redactors.get(intent.endpoint, self._strictest)
        if len(intent.request) > _THREAD_BYTES or redactor.asks:
            return _to_the_end(self._long_intent(redactor, intent))
        request, codes = _clear(redactor, intent.request, self._longest(), Side.REQUEST)
        return self._append_intent(redactor, intent, request, codes)

    def outcome(self, outcome: Outcome) -> Coroutine[Any, Any, None]:
        """Put an outcome on disk.

        Raises:
            LogUnavailable: It could not be written; the caller must not get the last byte.
        """
        redactor = self._under_way.get(outcome.request_id, self._strictest)
        if len(outcome.response) > _THREAD_BYTES or redactor.asks:
            return _to_the_end(self._long_outcome(redactor, outcome))
        response, codes = _clear(redactor, outcome.response, self._longest(), Side.RESPONSE)
        return self._append_outcome(outcome, response, codes)

    async def _long_intent(self, redactor: Redactor, intent: Intent) -> None:
        request, codes = await self._kept(redactor, intent.request, Side.REQUEST)
        await self._append_intent(redactor, intent, request, codes)

    async def _long_outcome(self, redactor: Redactor, outcome: Outcome) -> None:
        response, codes = await self._kept(redactor, outcome.response, Side.RESPONSE)
        await self._append_outcome(outcome, response, codes)

    async def _append_intent(self, redactor: Redactor, intent: Intent, request: bytes, codes: tuple[str, ...]) -> None:
        if request is not intent.request or intent.client_request_id or intent.metadata or codes:
            effort = Effort()
            intent = replace(
                intent,
                request=request,
                client_request_id=_clean(redactor, intent.client_request_id, effort),
                metadata={_storable(key): _clean(redactor, value, effort) for key, value in intent.metadata.items()},
                errors=_with(intent.errors, codes),
            )
        self._under_way[intent.request_id] = redactor
        try:
            await self._spool.append(intent)
        except LogUnavailable:
            del self._under_way[intent.request_id]
            raise

    async def _append_outcome(self, outcome: Outcome, response: bytes, codes: tuple[str, ...]) -> None:
        if response is not outcome.response or codes:
            outcome = replace(outcome, response=response, errors=_with(outcome.errors, codes))
        try:
            await self._spool.append(outcome)
        except asyncio.CancelledError:
            self._under_way.pop(outcome.request_id, None)
            raise
        self._under_way.pop(outcome.request_id, None)

    async def _kept(self, redactor: Redactor, body: bytes, side: Side) -> tuple[bytes, tuple[str, ...]]:
        """A body as the log keeps it. For an endpoint that asks for names, what can't be read for them is not kept.

        Raises:
            RedactionUnavailable: It can't, and the endpoint refuses such a request. An answer is given all the same.
        """
        if not redactor.asks:
            return await asyncio.to_thread(_clear, redactor, body, self._longest(), side)
        clean, codes = await asyncio.to_thread(redactor.body, body)
        try:
            clean, more = await without_entities(clean, self._names(), redactor.asks)
        except RedactionUnavailable:
            if redactor.refuses and side is Side.REQUEST:
                raise
            return withheld(len(body)), (f"{side}_WITHHELD",)
        rest, cut = kept(clean, self._longest(), side)
        return rest, (*codes, *(code for code in more if code not in codes), *cut)

    async def names_problem(self) -> str:
        """Why names can't be looked for now; empty if they can."""
        try:
            await self._names().find([], frozenset())
        except RedactionUnavailable as error:
            return error.problem
        return ""

    def _names(self) -> EntityReader:
        if self._reader is None:
            raise RedactionUnavailable("Nothing here looks for names.", "Leave name, location, organisation out.")
        return self._reader

    async def _said(self, redactor: Redactor, text: str) -> str:
        """A comment as the log keeps it."""
        clean = _clean(redactor, text)
        if not redactor.asks:
            return clean
        try:
            (found,) = await self._names().find([clean], redactor.asks)
        except RedactionUnavailable:
            if redactor.refuses:
                raise
            return "[withheld]"
        return marked(clean, found)[0]

    async def feedback(
        self,
        *,
        request_id: str,
        endpoint: str,
        label: str | None = None,
        score: float | None = None,
        comment: str | None = None,
        source: str = "human",
        feedback_id: str = "",
    ) -> Feedback:
        """Put what somebody said of an answer on disk.

        Args:
            request_id: The answer.
            endpoint: Endpoint that gave it.
            label: The right answer, for classifiers.
            score: Between 0 (bad) and 1 (good).
            comment: Free text.
            source: Who says so.
            feedback_id: The caller's own id for it, so that a repeat is known as one; made here if empty.

        Returns:
            The feedback as it was written.

        Raises:
            LogUnavailable: It could not be written.
        """
        redactor = self._redactors.get(endpoint, self._strictest)
        feedback = Feedback(
            feedback_id=feedback_id or new_request_id(self._clock),
            request_id=request_id,
            endpoint=endpoint,
            received_us=self._clock.now_us(),
            label=None if label is None else _clean(redactor, label),
            score=score,
            comment=None if comment is None else await self._said(redactor, comment),
            source=source,
        )
        await self._spool.append(feedback)
        return feedback


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Await a write that a cancellation must not cut in two; unless the write fails, that is raised afterwards."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            await asyncio.wait({task})
        if (error := task.exception()) is not None:
            raise error from None
        raise


def _clear(redactor: Redactor, body: bytes, longest: int, side: Side) -> tuple[bytes, tuple[str, ...]]:
    """A body as the log keeps it: redacted as a whole first, so that nothing is cut in two, then within its limit."""
    clean, codes = redactor.body(body)
    if len(clean) <= min(longest, DATABRICKS_BYTES):
        return clean, codes
    rest, more = kept(clean, longest, side)
    return rest, (*codes, *more)


def _clean(redactor: Redactor, text: str, effort: Effort | None = None) -> str:
    return _storable(redactor.text(text, "", effort)[0])


def _storable(text: str) -> str:
    """Text without lone surrogates, which JSON can name and UTF-8 can't hold."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _with(errors: tuple[str, ...], codes: tuple[str, ...]) -> tuple[str, ...]:
    return (*errors, *(code for code in codes if code not in errors))
