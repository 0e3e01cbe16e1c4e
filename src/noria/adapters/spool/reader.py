"""The worker's side of the spools: read on, trim what is shipped, and save what can be saved of a damaged file."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from noria.adapters.spool.file import (
    LOOK,
    QUARANTINE,
    STILL,
    connect,
    damage_flag,
    discover,
    highest,
    identity,
    is_blank,
    is_damage,
    read_mark,
    trimmed,
)
from noria.adapters.spool.groups import MISSING, Numbered, ends_of, entries, is_sound
from noria.adapters.spool.salvage import salvaged
from noria.domain.errors import StorageCorrupted
from noria.ports import Poison

_READ_BYTES: Final = 16 << 20
"""A read ends early after this many bytes, so that a few huge bodies don't fill the worker's memory."""
_TRIM_ROWS: Final = 64
"""Rows dropped in one transaction: an API process waits for its turn to append meanwhile."""
_CHECKPOINT_BYTES: Final = 4 << 20
_TRUNCATE_BYTES: Final = 64 << 20
_VACUUM_BYTES: Final = 64 << 20

_FROM: Final = """SELECT first, last, blob FROM commits
    WHERE first >= coalesce((SELECT max(first) FROM commits WHERE first <= ?1 + 1), 0) AND last > ?1 ORDER BY first"""


class SpoolReader:
    """Reads and trims one spool file while another process appends to it; implements ports.SpoolReader.

    Args:
        path: The spool file.
        sealed: Whether it is damaged and nobody appends to it: then what could be salvaged of it is read. By
            default, whether it lies in quarantine.
        look: Whether nothing may be changed.

    Raises:
        StorageCorrupted: Neither the file nor the mark beside it says which spool this is.
    """

    def __init__(self, path: Path, *, sealed: bool | None = None, look: bool = False) -> None:
        self.path = path
        self._sealed = path.parent.name == QUARANTINE if sealed is None else sealed
        if self._sealed:
            self._connection = connect(salvaged(path), STILL)
        else:
            self._connection = connect(path, LOOK) if look else connect(path)
        self._id = self._read_id()
        self._tells = not (self._sealed or look)
        self.damaged = False
        """Whether anything of the file turned out to be unreadable."""

    def _read_id(self) -> str:
        known = ""
        try:
            if not self._sealed:
                self._connection.execute("PRAGMA synchronous=NORMAL")  # a trim that is forgotten is done again
            known = identity(self._connection)
        except sqlite3.Error as error:
            if not is_damage(error) and not self._sealed:
                self._connection.close()
                raise
        known = known or read_mark(self.path)[0]
        if not known:
            self._connection.close()
            raise StorageCorrupted(f"{self.path} is no spool that can be read.", "Move it away; it stays untouched.")
        return known

    @property
    def id(self) -> str:
        return self._id

    @property
    def sealed(self) -> bool:
        return self._sealed

    def written(self) -> int:
        try:
            return max(highest(self._connection), self._marked())
        except sqlite3.Error as error:
            if self._sealed:
                return self._marked()
            if is_damage(error):
                self._found_damage()
            raise self._unreadable(error) from error

    def _marked(self) -> int:
        """The highest number that was committed, as noted beside a sealed file; 0 for one that is alive."""
        spool, last = read_mark(self.path) if self._sealed else ("", 0)
        return last if spool == self._id else 0

    def read(self, after: int, limit: int) -> list[Numbered]:
        try:
            found = self._collect(self._connection.execute(_FROM, (after,)), after, limit)
        except sqlite3.Error as error:
            if not is_damage(error) and not self._sealed:
                raise self._unreadable(error) from error
            self._found_damage()
            found = self._collect(self._salvaged(after), after, limit)
        return found or self._lost_end(after)

    def _found_damage(self) -> None:
        """Remember that the file is damaged, and tell the process that appends to it."""
        self.damaged = True
        if self._tells:
            with contextlib.suppress(OSError):
                damage_flag(self.path).touch()

    def _collect(self, rows: Iterable[Sequence[Any]], after: int, limit: int) -> list[Numbered]:
        """Entries of the rows up to a limit."""
        found: list[Numbered] = []
        size = 0
        for some, bytes_ in entries(rows, self._beginning(after)):
            found += some
            size += bytes_
            if isinstance(some[0][1], Poison) and some[0][1].reason == MISSING:
                self._found_damage()
            if len(found) >= limit or size >= _READ_BYTES:
                break
        return found[:limit]

    def _beginning(self, after: int) -> int:
        """The number after which something should be there."""
        try:
            oldest = self._connection.execute("SELECT min(first) FROM commits").fetchone()[0]
            gone = trimmed(self._connection)
        except sqlite3.Error:
            return after
        return max(after, gone) if isinstance(oldest, int) and gone < oldest else after

    def _lost_end(self, after: int) -> list[Numbered]:
        """What was committed after the last readable row of a damaged file, by the mark beside it."""
        last = self._marked()
        if last <= after:
            return []
        return [(last, Poison(after + 1, last, "lost from the end of a damaged spool"))]

    def _salvaged(self, after: int) -> Iterator[Sequence[Any]]:
        """Row by row what a damaged file still yields after a number."""
        number, end = after + 1, self.written()
        while number <= end:
            row = self._seek(number)
            if row is not None and is_sound(row) and row[1] >= number:
                yield row
                number = row[1]
            number += 1

    def _seek(self, number: int) -> Sequence[Any] | None:
        """The last row that doesn't begin after an entry, if it can be read."""
        query = "SELECT first, last, blob FROM commits WHERE first <= ? ORDER BY first DESC LIMIT 1"
        with contextlib.suppress(sqlite3.Error):
            row: Sequence[Any] | None = self._connection.execute(query, (number,)).fetchone()
            return row
        return None

    def trim(self, upto: int) -> None:
        if self._sealed:
            return
        try:
            while self._trim_some(upto):
                pass
            self._tidy()
        except sqlite3.Error as error:
            if is_damage(error):
                self._found_damage()
            raise self._unreadable(error) from error

    def _trim_some(self, upto: int) -> bool:
        """Drop some whole rows; False when none is left to drop."""
        execute = self._connection.execute
        rows = execute("SELECT first, last FROM commits ORDER BY first LIMIT ?", (_TRIM_ROWS,)).fetchall()
        ends = takewhile(lambda end: end is not None and end <= upto, ends_of(rows))
        done = [(row[0], end) for row, end in zip(rows, ends, strict=False)]
        if not done:
            return False
        execute("BEGIN IMMEDIATE")
        try:
            execute("DELETE FROM commits WHERE first <= ?", (done[-1][0],))
            execute("UPDATE meta SET value = ? WHERE key = 'trimmed'", (done[-1][1],))
            execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise
        return len(done) == _TRIM_ROWS

    def _tidy(self) -> None:
        """Fold the write-ahead log into the file, and give a file that has become nearly empty its space back."""
        log = self.path.with_name(f"{self.path.name}-wal")
        size = log.stat().st_size if log.exists() else 0
        if size < _CHECKPOINT_BYTES:
            return
        execute = self._connection.execute
        execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if size >= _TRUNCATE_BYTES:
            execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        free = execute("PRAGMA freelist_count").fetchone()[0]
        pages, page_size = execute("PRAGMA page_count").fetchone()[0], execute("PRAGMA page_size").fetchone()[0]
        if free * page_size > _VACUUM_BYTES and free > 0.9 * pages:
            execute("VACUUM")

    def retire(self) -> None:
        self.close()
        self.path.with_suffix(".salvaged").unlink()
        folder = self.path.parent / "shipped"
        folder.mkdir(exist_ok=True)
        for file in self.path.parent.glob(f"{self.path.stem}.*"):
            file.rename(folder / file.name)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _unreadable(self, error: sqlite3.Error) -> StorageCorrupted:
        return StorageCorrupted(f"The spool {self.path} could not be read: {error}.", "The worker tries again.")


@contextlib.contextmanager
def looking(directory: Path) -> Iterator[list[SpoolReader]]:
    """Readers that change nothing, of the spools that are there now and sound enough to be opened.

    Of what lies in quarantine only the worker makes a copy that can be read; until then it is left out, see `waiting`.
    """
    with contextlib.ExitStack() as stack:
        found = []
        for path in discover(directory):
            if path.parent.name != QUARANTINE or _copied(path):
                with contextlib.suppress(StorageCorrupted, sqlite3.Error, FileNotFoundError):  # or shipped meanwhile
                    reader = SpoolReader(path, look=True)
                    stack.callback(reader.close)
                    found.append(reader)
        yield found


def waiting(directory: Path) -> int:
    """How many damaged files wait for the worker to save what can be saved of them."""
    return sum(path.parent.name == QUARANTINE and not _copied(path) for path in discover(directory))


def _copied(path: Path) -> bool:
    return path.with_suffix(".salvaged").exists()


class SpoolFolder:
    """All spools of a project, opened once each; a file that isn't one is named in `problems` and left alone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[tuple[Path, int], SpoolReader] = {}
        self.problems: tuple[str, ...] = ()
        """What was wrong at the last look, in words."""

    def readers(self) -> list[SpoolReader]:
        """Readers of the spools that are there now, those in quarantine first."""
        problems: list[str] = []
        present: dict[tuple[Path, int], None] = {}
        for path in discover(self._directory):
            with contextlib.suppress(FileNotFoundError):  # moved into quarantine this very moment
                present[path, path.stat().st_ino] = None
        for key in self._open.keys() - present.keys():
            self._open.pop(key).close()
        for key in present.keys() - self._open.keys():
            try:
                self._open[key] = SpoolReader(key[0])
            except StorageCorrupted as error:
                if not _being_made(key[0]):
                    problems.append(str(error))
        self.problems = tuple(problems)
        return [self._open[key] for key in present if key in self._open]

    def close(self) -> None:
        """Let go of all files."""
        while self._open:
            self._open.popitem()[1].close()


def _being_made(path: Path) -> bool:
    """Whether a process is making that file, or died while it did: the next one that takes the slot finishes it."""
    try:
        return is_blank(path)
    except (sqlite3.Error, StorageCorrupted):
        return False
