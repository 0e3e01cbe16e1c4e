"""A bounded queue with a thread behind it: hands records on in batches, and never makes whoever fills it wait.

What can't be handed on is tried again with growing pauses, then dropped and counted. What comes while the queue is full
is dropped and counted, too.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from noria.domain.inference import Intent, Outcome
from noria.domain.status import OutletStatus

log = logging.getLogger("noria.telemetry")

Record = tuple[Intent, Outcome]
"""A request that has ended."""
CAPACITY: Final = 20_000
"""Records that may wait."""
CAPACITY_BYTES: Final = 64 << 20
"""Bytes that they may take, about."""
BATCH, BATCH_BYTES = 512, 4 << 20
"""Most records, and about most bytes, that are handed on in one go."""
TRIES: Final = 5
"""How often a batch is handed on before it is dropped."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
_OVERHEAD: Final = 1000
"""Bytes that a record takes beside its bodies, about."""


class Outlet:
    """One way out for records.

    Args:
        name: What it is called in the heartbeat and the metrics.
        send: Hands a batch on; returns why it was not taken, empty if it was. Called by one thread. It should not
            raise: a batch that makes it raise is dropped at once.
        wants: Which records it takes; None for all.
        capacity: Records that may wait.
        first_pause_s: Pause after the first failure, seconds; each further one is twice as long.
        rate: Most records a second that are handed on; 0 for no limit. What is more than the queue holds is dropped.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[list[Record]], str],
        wants: Callable[[Intent, Outcome], bool] | None = None,
        *,
        capacity: int = CAPACITY,
        first_pause_s: float = FIRST_PAUSE_S,
        rate: float = 0.0,
    ) -> None:
        self.name = name
        self.problem = ""
        """Why nothing is taken at the moment; empty if all is well."""
        self._send, self._wants, self._capacity = send, wants, capacity
        self._first_pause_s, self._rate = first_pause_s, rate
        self._waiting: deque[Record] = deque()
        self._bytes = self._sent = self._dropped = 0
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"telemetry-{name}", daemon=True)
        self._thread.start()

    def offer(self, records: Iterable[tuple[int, Intent, Outcome]]) -> None:
        """Take records as they were shipped. Returns at once; what there is no room for is dropped."""
        with self._changed:
            for _, intent, outcome in records:
                if self._wants is not None and not self._wants(intent, outcome):
                    continue
                if len(self._waiting) >= self._capacity or self._bytes >= CAPACITY_BYTES:
                    self._dropped += 1
                    continue
                self._waiting.append((intent, outcome))
                self._bytes += _weight(intent, outcome)
            self._changed.notify()

    def status(self) -> OutletStatus:
        """What became of the records since the start."""
        with self._changed:
            return OutletStatus(sent=self._sent, dropped=self._dropped, waiting=len(self._waiting))

    def close(self, deadline: float) -> None:
        """Hand on what waits, each batch once, until the moment `deadline` of the monotonic clock; drop the rest."""
        self._closing.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            self._dropped += len(self._waiting)
            self._waiting.clear()
            if self._dropped:
                log.warning("%s: %d records were not exported", self.name, self._dropped)

    def _run(self) -> None:
        while batch := self._take():
            taken = self._deliver(batch)
            with self._changed:
                self._sent += len(batch) * taken
                self._dropped += len(batch) * (not taken)
            if self._rate:
                self._closing.wait(len(batch) / self._rate)

    def _take(self) -> list[Record]:
        """The next batch; empty at the end."""
        with self._changed:
            while not self._waiting and not self._closing.is_set():
                self._changed.wait()
            batch: list[Record] = []
            size = 0
            most = min(BATCH, max(1, int(self._rate))) if self._rate else BATCH
            while self._waiting and len(batch) < most and size < BATCH_BYTES:
                batch.append(self._waiting.popleft())
                size += _weight(*batch[-1])
            self._bytes -= size
            return batch

    def _deliver(self, batch: list[Record]) -> bool:
        pause_s = self._first_pause_s
        for last in (*[False] * (TRIES - 1), True):
            try:
                self.problem = self._send(batch)
            except Exception as error:  # one strange record must not end the thread
                log.exception("%s can't export a batch", self.name)
                self.problem = f"{type(error).__name__}: {error}"
                return False
            if not self.problem:
                return True
            if last or self._closing.is_set():
                break
            self._closing.wait(pause_s * random.uniform(0.8, 1.2))  # noqa: S311 (no secret)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        return False


def _weight(intent: Intent, outcome: Outcome) -> int:
    return len(intent.request) + len(outcome.response) + _OVERHEAD
