"""What an earlier life of a slot has left: requests that nobody will end any more, and damaged files.

The process that opens a slot next ends them; where none comes back, the worker does.
"""

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from noria.adapters.spool.file import QUARANTINE, SlotLock, SpoolFile, damage_flag, is_blank, is_damage, read_mark
from noria.adapters.spool.groups import Numbered, Packed, pack
from noria.adapters.spool.quarantine import exchange, finish_exchange
from noria.adapters.spool.reader import SpoolReader
from noria.domain.errors import AlreadyRunning, LogUnavailable, StorageCorrupted
from noria.domain.inference import Intent, Outcome, OutcomeKind
from noria.ports import Clock

PROCESS_DIED: Final = "PROCESS_DIED"
"""Error code of a request whose process died under it."""

_SCAN_ENTRIES: Final = 4096


def unavailable(path: Path, error: Exception) -> LogUnavailable:
    """What callers are told when a spool can't be written."""
    remedy = "Free space on its disk or let Noria write there; it tries again."
    return LogUnavailable(f"The spool {path} can't be written: {error}.", remedy)


def close_orphans(path: Path, clock: Clock) -> int:
    """Give every intent that a dead process has left in a spool its outcome.

    Args:
        path: Spool file; one whose process is alive is left alone.
        clock: For the time of the outcomes.

    Returns:
        How many requests were found interrupted.

    Raises:
        LogUnavailable: The file can't be written.
    """
    if path.parent.name == QUARANTINE or not path.exists():
        return 0
    try:
        lock = SlotLock(path, wait_s=0)
    except AlreadyRunning:
        return 0
    except OSError as error:
        raise unavailable(path, error) from error
    try:
        finish_exchange(path)
        orphans, damaged = _look(path)
        if orphans or damaged:
            _begin(path, orphans, damaged, clock.now_us()).close()
        return len(orphans)
    except (OSError, sqlite3.Error) as error:
        raise unavailable(path, error) from error
    finally:
        lock.release()


def recovered(path: Path, now_us: Callable[[], int]) -> SpoolFile:
    """Open a slot's file with every request of an earlier life ended; a damaged file is exchanged for a fresh one."""
    finish_exchange(path)
    orphans, damaged = _look(path) if path.exists() else ([], False)
    return _begin(path, orphans, damaged, now_us())


def _begin(path: Path, orphans: list[Intent], damaged: bool, now_us: int) -> SpoolFile:
    """Open a file with its orphans ended; what takes over from a damaged file begins with them."""
    if not damaged:
        try:
            return _opened(path, _endings(orphans, now_us))
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            orphans = _salvaged_orphans(path)
    return exchange(path, [*map(pack, orphans), *_endings(orphans, now_us)])


def _opened(path: Path, endings: list[Packed]) -> SpoolFile:
    file = SpoolFile(path)
    try:
        if endings:
            file.append(endings)
    except BaseException:
        file.close()
        raise
    return file


def _look(path: Path) -> tuple[list[Intent], bool]:
    """Intents without an outcome in a file that nobody appends to, and whether the file is damaged."""
    spool, noted = read_mark(path)
    if not spool and is_blank(path):
        return [], False
    try:
        with closing(SpoolReader(path, look=True)) as reader:
            orphans = _orphans(reader)
            if (
                not (reader.damaged or damage_flag(path).exists())
                and spool in ("", reader.id)
                and noted <= reader.written()
            ):
                return orphans, False
    except StorageCorrupted as error:
        if isinstance(error.__cause__, sqlite3.Error) and not is_damage(error.__cause__):
            raise error.__cause__ from error
    return _salvaged_orphans(path), True


def _salvaged_orphans(path: Path) -> list[Intent]:
    """Intents without an outcome in what can be salvaged of a damaged file."""
    path.with_suffix(".salvaged").unlink(missing_ok=True)
    try:
        with closing(SpoolReader(path, sealed=True)) as reader:
            return _orphans(reader)
    except StorageCorrupted:
        return []


def _orphans(reader: SpoolReader) -> list[Intent]:
    """Intents without an outcome, of all that can be read."""
    under_way: dict[str, Intent] = {}
    for _, entry in _entries(reader):
        if isinstance(entry, Intent):
            under_way[entry.request_id] = entry
        elif isinstance(entry, Outcome):
            under_way.pop(entry.request_id, None)
    return list(under_way.values())


def _entries(reader: SpoolReader) -> Iterable[Numbered]:
    position = 0
    while found := reader.read(position, _SCAN_ENTRIES):
        yield from found
        position = found[-1][0]


def _endings(orphans: Iterable[Intent], now_us: int) -> list[Packed]:
    return [pack(_interrupted(intent, now_us)) for intent in orphans]


def _interrupted(intent: Intent, now_us: int) -> Outcome:
    return Outcome(
        request_id=intent.request_id,
        kind=OutcomeKind.INTERRUPTED,
        status=500,
        finished_us=now_us,
        duration_us=max(0, now_us - intent.received_us),
        response=b"",
        errors=(PROCESS_DIED,),
    )
