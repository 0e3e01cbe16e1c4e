"""Batching without waiting: while the model computes, requests gather; when it is done, it takes what is there.

An idle model answers a lone request at once, a busy one answers many together. Requests are taken in the order in which
they came; what belongs to one caller never reaches another; if a batch fails, each of its requests is tried alone, so
one bad input fails alone.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from noria.domain.errors import NotReady, Overloaded, UpstreamFailed


@dataclass(frozen=True, slots=True)
class Call:
    """What one request asks of the model.

    Attributes:
        rows: One item for each prediction wanted: a value, or a tuple of values if there are columns.
        columns: Names of the values in each row; empty if rows are plain values or lists of numbers.
        params: The request's parameters as JSON text.
    """

    rows: list[Any]
    columns: tuple[str, ...] = ()
    params: str = ""

    @property
    def shape(self) -> tuple[object, ...]:
        """Calls of one shape can be put to the model together."""
        return self.columns, self.params


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says: one prediction for each row, and class → probability for each row if it knows."""

    predictions: list[Any]
    probabilities: list[dict[str, float]] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Ticket:
    """A call that waits for its answer."""

    call: Call
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Answer]" = field(repr=False)


_Outcome = tuple[_Ticket, Answer | Exception]


class Batcher:
    """Puts calls to a model in batches, in a thread of its own.

    Args:
        predict: The model; called from one thread only.
        max_batch: Most rows that are put to the model together; a single call with more rows goes alone.
        max_queue: Most calls that wait.
    """

    def __init__(self, predict: Callable[[Call], Answer], *, max_batch: int = 64, max_queue: int = 512) -> None:
        self._predict = predict
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._waiting: deque[_Ticket] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="predict", daemon=True)
        self._thread.start()

    async def submit(self, call: Call) -> Answer:
        """The model's answer to a call. A caller that is cancelled leaves the queue.

        Raises:
            Overloaded: Too many calls wait.
            NotReady: The server is shutting down.
            Exception: What the model raised.
        """
        loop = asyncio.get_running_loop()
        ticket = _Ticket(call, loop, loop.create_future())
        self._enter(ticket)
        try:
            return await ticket.future
        except asyncio.CancelledError:
            self._leave(ticket)
            raise

    def close(self) -> None:
        """Answer what waits, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _enter(self, ticket: _Ticket) -> None:
        with self._changed:
            if self._closed:
                raise NotReady("The model server is shutting down.", "Ask again.")
            if len(self._waiting) >= self._max_queue:
                raise Overloaded(f"{self._max_queue} requests wait for this model already.", "Come back in a second.")
            self._waiting.append(ticket)
            self._changed.notify()

    def _leave(self, ticket: _Ticket) -> None:
        with self._changed:
            if ticket in self._waiting:
                self._waiting.remove(ticket)

    def _work(self) -> None:
        while batch := self._take():
            _deliver(self._answers(batch))

    def _take(self) -> list[_Ticket]:
        """The next calls of one shape, oldest first; empty when closed and nothing waits."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            batch: list[_Ticket] = []
            rows = 0
            while self._waiting:
                call = self._waiting[0].call
                rows += len(call.rows)
                if batch and (rows > self._max_batch or call.shape != batch[0].call.shape):
                    break
                batch.append(self._waiting.popleft())
            return batch

    def _answers(self, batch: list[_Ticket]) -> list[_Outcome]:
        """What each caller gets. A batch that fails is put to the model call by call."""
        first = batch[0].call
        together = Call([row for ticket in batch for row in ticket.call.rows], first.columns, first.params)
        try:
            return list(zip(batch, _split(self._checked(together), batch), strict=True))
        except Exception as error:
            if len(batch) == 1:
                return [(batch[0], error)]
            return [outcome for ticket in batch for outcome in self._answers([ticket])]

    def _checked(self, call: Call) -> Answer:
        answer = self._predict(call)
        if len(answer.predictions) != len(call.rows):
            raise UpstreamFailed(
                f"The model gave {len(answer.predictions)} predictions for {len(call.rows)} rows.",
                "Register a version that gives one prediction for each row.",
            )
        return answer


def _split(answer: Answer, batch: Iterable[_Ticket]) -> list[Answer]:
    """Each caller's own part of the answer."""
    parts, begin = [], 0
    for ticket in batch:
        end = begin + len(ticket.call.rows)
        likely = answer.probabilities[begin:end] if answer.probabilities is not None else None
        parts.append(Answer(answer.predictions[begin:end], likely))
        begin = end
    return parts


def _deliver(outcomes: list[_Outcome]) -> None:
    """Wake the callers, all of one event loop at once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for outcome in outcomes:
        by_loop.setdefault(outcome[0].loop, []).append(outcome)
    for loop, ours in by_loop.items():
        loop.call_soon_threadsafe(_settle, ours)


def _settle(outcomes: list[_Outcome]) -> None:
    for ticket, outcome in outcomes:
        if ticket.future.done():  # the caller left
            continue
        if isinstance(outcome, Exception):
            ticket.future.set_exception(outcome)
        else:
            ticket.future.set_result(outcome)
