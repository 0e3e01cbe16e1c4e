"""The log on this machine that an API process appends to: on disk before the caller goes on, whatever dies next.

One thread writes, one group at a time with one fsync; what comes meanwhile is the next group, so that waking the thread
and being woken costs something once a group and not once an entry. Only what a request writes that is alone in this
process goes to the disk without the thread, as long as the disk is quick: the wake-ups take as long as a commit, and
there is nobody else to keep waiting. A group that can't be written is refused to all who wait for it, and the next one
is tried afresh, so the spool is back when the disk is. A damaged file goes to quarantine, from where the worker ships
what can be read, and a fresh one takes over the open intents.
"""

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from noria.adapters.spool.file import SlotLock, SpoolFile, discover, is_damage
from noria.adapters.spool.groups import Packed, pack
from noria.adapters.spool.quarantine import exchange, finish_exchange
from noria.adapters.spool.reader import SpoolFolder, SpoolReader
from noria.adapters.spool.recovery import close_orphans, recovered, unavailable
from noria.domain.errors import LogUnavailable, NoriaError, StorageCorrupted
from noria.domain.inference import Entry, Intent, Outcome
from noria.ports import Poison

__all__ = ["SpoolFolder", "SpoolReader", "SqliteSpool", "close_orphans", "discover"]

_GROUP_ENTRIES: Final = 1024
_GROUP_BYTES: Final = 8 << 20
_LOCK_WAIT_S: Final = 5.0
_QUICK_S: Final = 0.005
"""A commit that took longer shows a disk that isn't waited for on the event loop …"""
_WARY: Final = 10
"""… for so many times as long: so the loop stands still for a tenth of the time at most, however slow the disk is."""
_CLOSED: Final = LogUnavailable("The spool is closed.", "Send the request to a process that is running.")


def _wall_clock_us() -> int:
    return time.time_ns() // 1000


class _Written(asyncio.Future[int]):
    """The number of an entry that is on its way to the disk, from where nobody can call it back: whoever is cancelled
    while he waits for it goes on waiting, and is cancelled then."""

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002
        """Not possible."""
        return False


@dataclass(slots=True)
class _Waiting:
    """An entry on its way to the disk, and who waits for it."""

    item: Packed
    done: _Written
    entry: Entry


_Told = tuple[list[_Waiting], int | LogUnavailable]
"""A group, and the number of its first entry or why it isn't on the disk."""


class SqliteSpool:
    """The spool of one API process slot; implements ports.RecordSpool.

    Args:
        directory: Folder of all spools; made if it isn't there.
        slot: Name of the slot, held by one process at a time (`api-0`).
        now_us: Microseconds since the epoch.

    Raises:
        AlreadyRunning: Another process holds the slot.
        LogUnavailable: The folder can't be written.
        StorageCorrupted: A newer version of Noria wrote the slot's file.
    """

    def __init__(self, directory: Path, slot: str, now_us: Callable[[], int] = _wall_clock_us) -> None:
        self._path = directory / f"{slot}.db"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = SlotLock(self._path, _LOCK_WAIT_S)
        except OSError as error:
            raise unavailable(self._path, error) from error
        try:
            self._file: SpoolFile | None = recovered(self._path, now_us)
        except (OSError, sqlite3.Error) as error:
            self._lock.release()
            raise unavailable(self._path, error) from error
        except StorageCorrupted:
            self._lock.release()
            raise
        self._id = self._file.id
        self._open: dict[str, Packed] = {}
        self._closed = False
        self._turn = threading.Lock()
        self._slow_until = 0.0
        self._waiting: deque[_Waiting] = deque()
        self._is_writing = False
        self._orders: SimpleQueue[bool] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, name=f"spool-{slot}", daemon=True)
        self._thread.start()

    @property
    def id(self) -> str:
        return self._id

    async def append(self, entry: Entry) -> int:
        if self._closed:
            raise LogUnavailable(_CLOSED.problem, _CLOSED.remedy)
        item = pack(entry)
        if self._is_alone(entry) and (number := self._append_at_once(entry, item)):
            return number
        loop = asyncio.get_running_loop()
        done = _Written(loop=loop)
        self._waiting.append(_Waiting(item, done, entry))
        if not self._is_writing:
            self._is_writing = True
            loop.call_soon(self._hand_over)  # with whatever else is appended in this turn of the loop
        try:
            return await done
        except asyncio.CancelledError:
            if done.done() and (error := done.exception()) is not None:
                raise error from None
            raise

    def read(self, after: int, limit: int) -> list[tuple[int, Entry]]:
        reader = SpoolReader(self._path)
        try:
            return [(number, entry) for number, entry in reader.read(after, limit) if not isinstance(entry, Poison)]
        finally:
            reader.close()

    def trim(self, upto: int) -> None:
        reader = SpoolReader(self._path)
        try:
            reader.trim(upto)
        finally:
            reader.close()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._orders.put(False)
        self._thread.join()
        if late := self._taken():
            self._wake([(late, _CLOSED)])
        if self._file is not None:
            self._file.close()
        self._lock.release()

    # --- without the writer's thread ---

    def _is_alone(self, entry: Entry) -> bool:
        """Whether no request but the entry's own is under way."""
        if isinstance(entry, Intent):
            return not self._open
        return isinstance(entry, Outcome) and len(self._open) == 1 and entry.request_id in self._open

    def _append_at_once(self, entry: Entry, item: Packed) -> int:
        """The entry's number; 0 if it has to go the common way, because anything at all isn't as it should be."""
        begun = time.monotonic()
        if begun < self._slow_until or not self._turn.acquire(blocking=False):
            return 0
        try:
            file = self._file
            if file is None or file.gone or file.flagged:
                return 0
            number = file.append([item], wait=False)
            self._remember_open(entry, item)
        except (OSError, sqlite3.Error):
            return 0
        else:
            self._watch_disk(begun)
            return number
        finally:
            self._turn.release()

    # --- the writer's thread ---

    def _hand_over(self) -> None:
        """Have the thread write what waits, if anything does."""
        self._is_writing = bool(self._waiting)
        if self._is_writing:
            self._orders.put(True)

    def _write(self) -> None:
        """Write what waits, each time it is handed over, and a last time when the spool is closed."""
        goes_on = True
        while goes_on:
            goes_on = self._orders.get()
            if taken := self._taken():
                self._wake([(group, self._written(group)) for group in _groups(taken)])

    def _taken(self) -> list[_Waiting]:
        """All that waits, which is nobody else's then."""
        return [self._waiting.popleft() for _ in range(len(self._waiting))]

    def _wake(self, written: list[_Told]) -> None:
        """Have everybody told who waits for what was written, and the next group handed over."""
        try:
            written[0][0][0].done.get_loop().call_soon_threadsafe(self._tell, written)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._is_writing = False

    def _written(self, group: list[_Waiting]) -> int | LogUnavailable:
        """Put a group on the disk; the first entry's number, or why it isn't there."""
        with self._turn:
            begun = time.monotonic()
            try:
                first = self._commit([waiting.item for waiting in group])
                for waiting in group:
                    self._remember_open(waiting.entry, waiting.item)
            except (OSError, sqlite3.Error, NoriaError) as error:
                self._let_go()
                return unavailable(self._path, error)
            finally:
                self._watch_disk(begun)
        return first

    def _tell(self, written: list[_Told]) -> None:
        for group, outcome in written:
            for index, waiting in enumerate(group):
                if isinstance(outcome, LogUnavailable):
                    waiting.done.set_exception(LogUnavailable(outcome.problem, outcome.remedy))
                else:
                    waiting.done.set_result(outcome + index)
        self._hand_over()

    def _commit(self, items: list[Packed]) -> int:
        """Put a group on the disk, into a fresh file if this one is damaged; the first entry's number."""
        try:
            current = self._current()
            if not current.flagged:
                return current.append(items)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
        return self._fresh().append(items)

    def _current(self) -> SpoolFile:
        """The open file; opened again after a failure, or when somebody has deleted it."""
        if self._file is not None and self._file.gone:
            self._let_go()
        if self._file is not None:
            return self._file
        self._path.parent.mkdir(exist_ok=True)
        self._lock.renew()
        finish_exchange(self._path)
        if not self._path.exists():
            return self._fresh()
        self._file = SpoolFile(self._path)
        return self._file

    def _fresh(self) -> SpoolFile:
        """A new file in the place of this one, which begins with the intents that have no outcome yet."""
        self._let_go()
        self._file = exchange(self._path, list(self._open.values()))
        self._id = self._file.id
        return self._file

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _remember_open(self, entry: Entry, item: Packed) -> None:
        """Keep the intents without an outcome at hand: a file that takes over from a damaged one begins with them."""
        if isinstance(entry, Intent):
            self._open[entry.request_id] = item
        elif isinstance(entry, Outcome):
            self._open.pop(entry.request_id, None)

    def _watch_disk(self, begun: float) -> None:
        now = time.monotonic()
        if (took := now - begun) > _QUICK_S:
            self._slow_until = now + took * _WARY


def _groups(waiting: list[_Waiting]) -> Iterator[list[_Waiting]]:
    """What waits, in groups of the size that goes to the disk together."""
    group, size = list[_Waiting](), 0
    for entry in waiting:
        if group and (len(group) >= _GROUP_ENTRIES or size >= _GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(entry)
        size += len(entry.item[2])
    yield group
