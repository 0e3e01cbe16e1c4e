"""The file behind a spool: one SQLite database in WAL mode, in which every group commit is one row.

A row holds the numbers of its first and last entry and a MessagePack array of `(kind, CRC-32, entry)`, so that a
flipped bit costs one entry and not its neighbours. Beside `api-0.db` lie `api-0.lock` (held by the process that
appends) and `api-0.mark` (the number of the last commit, by which a file that went back in time is found out).
"""

import contextlib
import fcntl
import os
import sqlite3
import time
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from noria.domain.errors import AlreadyRunning, StorageCorrupted
from noria.domain.inference import Entry, Feedback, Intent, Outcome
from noria.ports import Poison

Packed = tuple[int, int, bytes]
"""Kind, CRC-32 and MessagePack of one entry."""

QUARANTINE: Final = "quarantine"
"""Folder beside the spools for files that were found damaged."""

_FORMAT: Final = 1
_KINDS: Final = (Intent, Outcome, Feedback)
_KIND_OF: Final = {kind: number for number, kind in enumerate(_KINDS)}
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODERS: Final[tuple[msgspec.msgpack.Decoder[Entry], ...]] = tuple(msgspec.msgpack.Decoder(kind) for kind in _KINDS)
_GROUP: Final = msgspec.msgpack.Decoder(list[Packed])
_BUSY_S: Final = 5.0
_LOCK_POLL_S: Final = 0.05
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def pack(entry: Entry) -> Packed:
    """An entry as bytes with their checksum."""
    body = _ENCODER.encode(entry)
    return _KIND_OF[type(entry)], zlib.crc32(body), body


def unpack(first: int, last: int, blob: bytes) -> list[tuple[int, Entry | Poison]]:
    """The entries of one group commit with their numbers; what can't be read back is Poison in its place."""
    try:
        group = _GROUP.decode(blob)
        if len(group) != last - first + 1:
            raise msgspec.ValidationError(f"{len(group)} entries instead of {last - first + 1}")
    except msgspec.MsgspecError as error:
        return [(last, Poison(first, last, f"undecodable group: {error}", blob))]
    return [(number, _entry(number, *item)) for number, item in enumerate(group, first)]


def _entry(number: int, kind: int, checksum: int, body: bytes) -> Entry | Poison:
    try:
        if zlib.crc32(body) == checksum:
            return _DECODERS[kind].decode(body)
        return Poison(number, number, "checksum mismatch", body)
    except (msgspec.MsgspecError, IndexError, ValueError) as error:
        return Poison(number, number, f"undecodable entry: {error}", body)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file itself is broken, not that it could not be reached or written."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def connect(path: Path, *, readonly: bool = False) -> sqlite3.Connection:
    """Open an existing spool file, in autocommit mode, from any thread."""
    uri = f"{path.absolute().as_uri()}?mode={'ro' if readonly else 'rw'}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_BUSY_S, check_same_thread=False)


def is_blank(path: Path) -> bool:
    """Whether a file was begun and nothing was ever put into it: its process died while making it."""
    connection = connect(path)
    try:
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
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_S, check_same_thread=False)
        try:
            self._prepare()
            self.id: str = self._meta("id")
            self.last: int = self._highest()
        except BaseException:
            self._connection.close()
            raise
        if fresh:
            _sync_folder(path.parent)
        self._inode = path.stat().st_ino
        self._mark = os.open(path.with_suffix(".mark"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _prepare(self) -> None:
        execute = self._connection.execute
        if execute("PRAGMA user_version").fetchone()[0] > _FORMAT:
            raise StorageCorrupted(f"A newer version of Noria wrote {self.path}.", "Upgrade Noria.")
        execute("PRAGMA journal_mode=WAL")
        execute("PRAGMA synchronous=FULL")
        execute("PRAGMA wal_autocheckpoint=0")
        execute("PRAGMA cache_size=-512")
        if execute("PRAGMA user_version").fetchone()[0] == _FORMAT:
            return
        execute("BEGIN IMMEDIATE")
        execute("CREATE TABLE commits (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, blob BLOB NOT NULL)")
        execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID")
        execute("INSERT INTO meta VALUES ('id', ?), ('trimmed', 0)", (uuid.uuid4().hex,))
        execute(f"PRAGMA user_version={_FORMAT}")
        execute("COMMIT")

    def _meta(self, key: str) -> str:
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise StorageCorrupted(f"{self.path} has lost its {key}.")
        return str(row[0])

    def _highest(self) -> int:
        newest = self._connection.execute("SELECT last FROM commits ORDER BY first DESC LIMIT 1").fetchone()
        return max(int(self._meta("trimmed")), newest[0] if newest else 0)

    def append(self, items: Sequence[Packed]) -> int:
        """Commit a group and return its first entry's number. When it returns the group is on the disk.

        Raises:
            sqlite3.Error: Nothing was recorded.
        """
        first, last = self.last + 1, self.last + len(items)
        self._connection.execute("INSERT INTO commits VALUES (?, ?, ?)", (first, last, _ENCODER.encode(items)))
        self.last = last
        self.mark()
        return first

    def mark(self) -> None:
        """Note the number of the last commit beside the file. It only ever serves to find damage out."""
        with contextlib.suppress(OSError):
            os.pwrite(self._mark, f"{self.id} {self.last:020d}\n".encode(), 0)

    @property
    def gone(self) -> bool:
        """Whether somebody has deleted or replaced the file."""
        try:
            return self.path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def close(self) -> None:
        """Let go of the file; the last one who does folds its write-ahead log in."""
        os.close(self._mark)
        self._connection.close()


def read_mark(path: Path) -> tuple[str, int]:
    """Spool id and highest number that were committed to a file, as noted beside it; empty and 0 if unknown."""
    try:
        spool, last = path.with_suffix(".mark").read_text().split()
        return spool, int(last)
    except (OSError, ValueError):
        return "", 0


def finish_exchange(path: Path) -> None:
    """Finish an exchange of a damaged file for a fresh one that a crash has cut short."""
    fresh = _fresh(path)
    if path.exists() and _aside(path, "-wal").exists():
        _put_aside(path)
    if not path.exists() and fresh.exists():
        fresh.rename(path)
        _sync_folder(path.parent)


def exchange(path: Path, items: Sequence[Packed]) -> SpoolFile:
    """Put a damaged file into quarantine and begin a fresh one that holds `items` already."""
    fresh = _fresh(path)
    for leftover in path.parent.glob(f"{fresh.name}*"):
        leftover.unlink()
    file = SpoolFile(fresh)
    if items:
        file.append(items)
    file.close()
    if path.exists():
        _put_aside(path)
    fresh.rename(path)
    _sync_folder(path.parent)
    fresh.with_suffix(".mark").unlink()
    file = SpoolFile(path)
    file.mark()
    return file


def _fresh(path: Path) -> Path:
    """Where the successor of a damaged file is made ready."""
    return path.with_name(f"{path.name}.new")


def _aside(path: Path, suffix: str = "") -> Path:
    """Where a damaged file goes. The inode in the name lets a cut-short move find its own half."""
    return path.parent / QUARANTINE / f"{path.stem}-{path.stat().st_ino}.db{suffix}"


def _put_aside(path: Path) -> None:
    """Move a spool file with its write-ahead log, the log first: without it, the file would pass for a whole one."""
    target = _aside(path)
    target.parent.mkdir(exist_ok=True)
    moves = [(f"{path}{suffix}", f"{target}{suffix}") for suffix in ("-wal", "-shm")]
    moves += [(str(path.with_suffix(".mark")), str(target.with_suffix(".mark"))), (str(path), str(target))]
    for source, destination in moves:
        if os.path.exists(source):  # noqa: PTH110 - names with suffixes that pathlib would take apart
            os.replace(source, destination)  # noqa: PTH105
    _sync_folder(target.parent)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
