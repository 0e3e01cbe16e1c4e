"""One request's passage through the gateway: its intent, its one outcome, and what the metrics hear of it."""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Protocol

from noria.domain.errors import LogUnavailable
from noria.domain.inference import Intent, Outcome, OutcomeKind
from noria.ports import Clock
from noria.serving.replies import Reply

log = logging.getLogger(__name__)

UNRECORDED = 503
"""The status in the metrics for an answer that could not be recorded and so was not given."""


class Recorder(Protocol):
    """What the gateway needs of the log: both return once the entry is on disk, or raise LogUnavailable."""

    async def intent(self, intent: Intent) -> None:
        """Write an intent."""
        ...

    async def outcome(self, outcome: Outcome) -> None:
        """Write an outcome."""
        ...


class Observer(Protocol):
    """Who counts requests: `started` once for each, `finished` exactly once for each `started`."""

    def started(self, endpoint: str) -> None:
        """A request was taken."""
        ...

    def finished(
        self,
        endpoint: str,
        model: str,
        version: str,
        role: str,
        outcome: str,
        status: int,
        duration_s: float,
        ttft_s: float | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
    ) -> None:
        """A request ended."""
        ...

    def shadow_dropped(self, endpoint: str) -> None:
        """A shadow copy was not made."""
        ...


class Passages:
    """Opens passages and knows how many are open."""

    def __init__(self, recorder: Recorder, observer: Observer, clock: Clock) -> None:
        self.recorder = recorder
        self.observer = observer
        self.clock = clock
        self.under_way = 0

    def begin(self, intent: Intent) -> "Passage":
        """A passage for an intent that isn't on disk yet."""
        self.under_way += 1
        self.observer.started(intent.endpoint)
        return Passage(self, intent)


class Passage:
    """The life of one record. `end` may be called again, and from more than one place: the first call counts."""

    def __init__(self, passages: Passages, intent: Intent) -> None:
        self._all = passages
        self._on_disk = False
        self._ended = False
        self.intent = intent
        self.ttft_us: int | None = None

    @property
    def version(self) -> str:
        """`model/version`."""
        return f"{self.intent.model}/{self.intent.version}"

    async def open(self) -> None:
        """Put the intent on disk.

        Raises:
            LogUnavailable: It could not be written.
        """
        await _to_the_end(self._open())

    async def end(self, kind: OutcomeKind, status: int, reply: Reply, errors: tuple[str, ...] = ()) -> None:
        """Put the outcome on disk, even if the task that asks for it is cancelled meanwhile.

        Args:
            kind: How the request ended.
            status: HTTP status given to the caller.
            reply: What the caller got.
            errors: Reasons, as codes.

        Raises:
            LogUnavailable: It could not be written; the metrics hear of a failure.
        """
        if self._ended:
            return
        self._ended = True
        self._all.under_way -= 1
        now_us = self._all.clock.now_us()
        outcome = Outcome(
            request_id=self.intent.request_id,
            kind=kind,
            status=status,
            finished_us=now_us,
            duration_us=max(0, now_us - self.intent.received_us),
            response=reply.body,
            ttft_us=self.ttft_us,
            input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens,
            errors=errors,
        )
        try:
            if self._on_disk:
                await _to_the_end(self._all.recorder.outcome(outcome))
        except LogUnavailable:
            outcome = replace(outcome, kind=OutcomeKind.FAILED, status=UNRECORDED)
            raise
        finally:
            self._tell(outcome)

    async def leave(self, kind: OutcomeKind, status: int, reply: Reply, errors: tuple[str, ...] = ()) -> None:
        """End for a caller who hears of nothing any more: a log that is gone is only reported."""
        try:
            await self.end(kind, status, reply, errors)
        except LogUnavailable as error:
            log.error("the outcome of %s is not on disk: %s", self.intent.request_id, error)

    def first_content(self) -> None:
        """The first content of a stream is on its way to the caller."""
        if self.ttft_us is None:
            self.ttft_us = max(0, self._all.clock.now_us() - self.intent.received_us)

    async def _open(self) -> None:
        await self._all.recorder.intent(self.intent)
        self._on_disk = True

    def _tell(self, outcome: Outcome) -> None:
        intent = self.intent
        self._all.observer.finished(
            intent.endpoint,
            intent.model,
            intent.version,
            intent.role.value,
            outcome.kind.value,
            outcome.status,
            outcome.duration_us / 1e6,
            None if outcome.ttft_us is None else outcome.ttft_us / 1e6,
            outcome.input_tokens,
            outcome.output_tokens,
        )


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Await a write that a cancellation must not cut in two; the cancellation is raised when it is done."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            await asyncio.wait({task})
        task.exception()  # looked at, so that nobody logs it as never retrieved
        raise
