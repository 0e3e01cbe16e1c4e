"""Sends copies of answered requests to candidates, after the answer and never on the caller's time.

At most `MOST` copies wait or run; one more is not made, and counted. Each copy is a record of its own.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from noria.serving.orders import Order
from noria.serving.passage import Passages
from noria.serving.tracing import child_span

MOST = 256
"""Copies that may wait or run at one time."""
TOGETHER = 4
"""Copies that run at one time."""


class Shadows:
    """Copies under way.

    Args:
        run: Sends one copy and records how it ended.
        passages: Has the clock, and is told of each copy that was not made.
        new_request_id: Makes the copies' ids.
    """

    def __init__(
        self,
        run: Callable[[Order], Coroutine[Any, Any, None]],
        passages: Passages,
        new_request_id: Callable[[], str],
    ) -> None:
        self._run = run
        self._passages = passages
        self._new_request_id = new_request_id
        self._copies: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(TOGETHER)

    def copy(self, order: Order) -> None:
        """Send a request that was answered to each of its route's shadows, some time soon."""
        for target in order.route.shadows:
            if len(self._copies) >= MOST:
                self._passages.observer.shadow_dropped(order.route.endpoint)
                continue
            task = asyncio.create_task(self._in_turn(replace(order, target=target)))
            self._copies.add(task)
            task.add_done_callback(self._copies.discard)

    async def close(self, timeout_s: float) -> None:
        """Let copies finish for that long, then give up the rest."""
        if self._copies:
            _, late = await asyncio.wait(self._copies, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _in_turn(self, order: Order) -> None:
        try:
            await self._turns.acquire()
        except asyncio.CancelledError:
            self._passages.observer.shadow_dropped(order.route.endpoint)
            raise
        try:
            await self._run(self._shadowed(order))
        finally:
            self._turns.release()

    def _shadowed(self, order: Order) -> Order:
        """The order as one for a shadow: a record and a span of its own that point at what they copy."""
        intent = replace(
            order.intent,
            request_id=self._new_request_id(),
            shadow_of=order.intent.request_id,
            model=order.target.model,
            version=order.target.version,
            role=order.target.role,
            span_id=child_span(),
            parent_span_id=order.intent.span_id,
            received_us=self._passages.clock.now_us(),
        )
        return replace(order, intent=intent)
