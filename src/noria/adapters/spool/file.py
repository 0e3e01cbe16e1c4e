"""The file behind a spool: one SQLite database in WAL mode, in which every group commit is one row.

Beside `api-0.db` lie `api-0.lock` (held by the process that appends) and `api-0.mark` (the spool's identity and the
number of the last commit, by which a file that went back in time is found out).
"""

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from noria.adapters.spool.groups import Packed, is_id, is_sound, new_id, pack_group
from noria.domain.errors import AlreadyRunning, StorageCorrupted

CREATE: Final = "mode=rwc"
LOOK: Final = "mode=ro"
STILL: Final = "mode=ro&immutable=1"
PAGE: Final = 4096
"""Bytes in a page of the file."""
QUARANTINE: Final = "quarantine"
"""Folder beside the spools for files that were found damaged."""

_FORMAT: Final = 1
_LATEST_FORMAT: Final = 999
"""A format beyond this is no newer one but a broken head."""
_BUSY_S: Final = 5.0
_LOCK_POLL_S: Final = 0.05
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Damaged(sqlite3.DatabaseError):
    """SQLite can read the file, but what it reads can't be true."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file itself is broken, not that it could not be reached or written."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED or "no such table" in str(error)


def connect(path: Path, mode: str = "mode=rw") -> sqlite3.Connection:
    """Open an existing spool file in autocommit mode, for any thread.

    With `LOOK` nothing is changed, not even the write-ahead log folded in at the end, which would wipe out what a
    damaged one still holds; with `STILL` there is no log, and nobody else who writes.
    """
    uri = f"{path.absolute().as_uri()}?{mode}"
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, timeout=_BUSY_S, check_same_thread=False, factory=_Connection
    )
    connection.text_factory = _lenient
    return connection


class _Connection(sqlite3.Connection):
    """A connection whose errors are SQLite's, even where they quote what a damaged file says."""

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        """See sqlite3.Connection."""
        try:
            return super().execute(*arguments)
        except UnicodeDecodeError as error:
            raise Damaged("the file's description of itself is garbled") from error


def _lenient(text: bytes) -> str:
    """Text of a damaged file is no reason to stop reading it."""
    return text.decode(errors="replace")


def identity(connection: sqlite3.Connection) -> str:
    """Identity of an open spool file.

    Raises:
        Damaged: It is lost.
    """
    row = connection.execute("SELECT value FROM meta WHERE key = 'id'").fetchone()
    if row is None or not is_id(row[0]):
        raise Damaged("the spool's identity is lost")
    return str(row[0])


def trimmed(connection: sqlite3.Connection) -> int:
    """The last number that an open spool file has forgotten.

    Raises:
        Damaged: It is lost.
    """
    row = connection.execute("SELECT value FROM meta WHERE key = 'trimmed'").fetchone()
    if row is None or not isinstance(row[0], int):
        raise Damaged("the number of the last trimmed entry is lost")
    return row[0]


def highest(connection: sqlite3.Connection) -> int:
    """The highest number that an open spool file has given.

    Raises:
        Damaged: It is lost.
    """
    newest = connection.execute("SELECT first, last FROM commits ORDER BY first DESC LIMIT 1").fetchone()
    if newest and not is_sound(newest):
        raise Damaged("the number of the last entry is lost")
    return max(trimmed(connection), newest[1] if newest else 0)


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    written = connection.execute("PRAGMA user_version").fetchone()[0]
    if _FORMAT < written <= _LATEST_FORMAT:
        raise StorageCorrupted(f"A newer version of Noria wrote {path}.", "Upgrade Noria.")


def is_blank(path: Path) -> bool:
    """Whether a file was begun and nothing was ever put into it: its process died while making it.

    Raises:
        sqlite3.Error: It can't be reached.
        StorageCorrupted: A newer version of Noria wrote it.
    """
    connection = connect(path, LOOK)
    try:
        _check_format(connection, path)
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        return bool(tables == 0)
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return False
        raise
    finally:
        connection.close()


def discover(directory: Path) -> list[Path]:
    """All spool files of a folder, those in quarantine first."""
    return sorted(directory.glob(f"{QUARANTINE}/*.db")) + sorted(directory.glob("*.db"))


class SlotLock:
    """The exclusive right to append to a slot, given back by the kernel when its process dies.

    Args:
        path: The slot's spool file.
        wait_s: How long to wait for another holder.

    Raises:
        AlreadyRunning: Another process has it still.
    """

    def __init__(self, path: Path, wait_s: float) -> None:
        self._path, self._wait_s = path, wait_s
        self._fd = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + wait_s
        while not self._taken():
            if time.monotonic() >= deadline:
                self.release()
                raise AlreadyRunning(f"Another process appends to the spool {path}.", "Stop it, or take another slot.")
            time.sleep(_LOCK_POLL_S)

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def renew(self) -> None:
        """Take the slot again if somebody has deleted the lock's file, with which the right to the slot was gone.

        Raises:
            AlreadyRunning: Another process has it now.
        """
        with contextlib.suppress(FileNotFoundError):
            if self._path.with_suffix(".lock").stat().st_ino == os.fstat(self._fd).st_ino:
                return
        fresh = SlotLock(self._path, self._wait_s)
        self.release()
        self._fd = fresh._fd

    def release(self) -> None:
        """Let another process have the slot."""
        os.close(self._fd)


class SpoolFile:
    """A spool file that is open for appending; created if it isn't there. For one thread at a time.

    Raises:
        sqlite3.Error: It can't be opened; `is_damage` tells whether it is broken.
        StorageCorrupted: A newer version of Noria wrote it.
    """

    def __init__(self, path: Path) -> None:
        fresh = not path.exists()
        self.path = path
        self._connection = connect(path, CREATE)
        try:
            self._prepare()
            self.id: str = identity(self._connection)
            self.last: int = highest(self._connection)
        except BaseException:
            self._connection.close()
            raise
        if fresh:
            sync_folder(path.parent)
        self._inode = path.stat().st_ino
        self._waits = True
        self._where, self._flag = str(path), str(damage_flag(path))
        self._mark = os.open(path.with_suffix(".mark"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _prepare(self) -> None:
        execute = self._connection.execute
        _check_format(self._connection, self.path)
        execute(f"PRAGMA page_size={PAGE}")
        execute("PRAGMA journal_mode=WAL")
        execute("PRAGMA synchronous=FULL")
        execute("PRAGMA wal_autocheckpoint=0")
        execute("PRAGMA cache_size=-512")
        if execute("PRAGMA user_version").fetchone()[0] == _FORMAT:
            return
        execute("BEGIN IMMEDIATE")
        execute("CREATE TABLE commits (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, blob BLOB NOT NULL)")
        execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID")
        execute("INSERT INTO meta VALUES ('id', ?), ('trimmed', 0)", (new_id(),))
        execute(f"PRAGMA user_version={_FORMAT}")
        execute("COMMIT")

    def append(self, items: Sequence[Packed], *, wait: bool = True) -> int:
        """Commit a group and return its first entry's number. When it returns the group is on the disk.

        Args:
            items: The group.
            wait: Whether to wait for somebody else who is writing, a worker that trims.

        Raises:
            sqlite3.Error: Nothing was recorded.
        """
        first, last = self.last + 1, self.last + len(items)
        row = (first, last, pack_group(first, items))
        if wait is not self._waits:
            self._connection.execute(f"PRAGMA busy_timeout={_BUSY_S * 1000 * wait:.0f}")
            self._waits = wait
        self._connection.execute("INSERT INTO commits VALUES (?, ?, ?)", row)
        self.last = last
        self.mark()
        return first

    def mark(self) -> None:
        """Note the number of the last commit beside the file. It only ever serves to find damage out."""
        with contextlib.suppress(OSError):
            os.pwrite(self._mark, f"{self.id} {self.last:020d}\n".encode(), 0)

    @property
    def flagged(self) -> bool:
        """Whether somebody has found the file damaged."""
        return os.path.exists(self._flag)  # noqa: PTH110 (asked at every commit)

    @property
    def gone(self) -> bool:
        """Whether somebody has deleted or replaced the file."""
        try:
            return os.stat(self._where).st_ino != self._inode  # noqa: PTH116 (asked at every commit)
        except FileNotFoundError:
            return True

    def close(self) -> None:
        """Let go of the file; the last one who does folds its write-ahead log in."""
        os.close(self._mark)
        self._connection.close()


def damage_flag(path: Path) -> Path:
    """The file by which a reader tells the process that appends to a spool that its file is damaged."""
    return path.with_suffix(".damaged")


def read_mark(path: Path) -> tuple[str, int]:
    """Spool id and highest number that were committed to a file, as noted beside it; empty and 0 if unknown."""
    try:
        spool, last = path.with_suffix(".mark").read_text().split()
        return (spool, int(last)) if is_id(spool) else ("", 0)
    except (OSError, ValueError):
        return "", 0


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
