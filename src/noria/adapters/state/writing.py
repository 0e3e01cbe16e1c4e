"""Changes of the state on SQLite with nothing but SQLite, so that whoever makes one waits for no library.

The same rules as in `adapters/state/sql.py`: a writer takes the lock at once (BEGIN IMMEDIATE), everything in a change
is there or nothing is, and a commit is on disk when it returns (synchronous=FULL).
"""

import sqlite3
from datetime import datetime
from typing import TypeVar

from noria.adapters.codec import decode, encode, encode_event
from noria.adapters.state.account import AUDIT, columns_of
from noria.adapters.state.trouble import BUSY_MS
from noria.domain.audit import AuditEvent, AuditHead
from noria.domain.events import Event

T = TypeVar("T")

_PUT = """
INSERT INTO nouns (kind, id, endpoint, changed, body) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (kind, id) DO UPDATE SET endpoint = excluded.endpoint, changed = excluded.changed, body = excluded.body
"""
_SEAL = f"INSERT INTO audit ({', '.join(AUDIT)}) VALUES ({', '.join('?' * len(AUDIT))})"  # noqa: S608 - our own names


class SqliteChange:
    """A transaction under way; every put and every new event takes the next revision."""

    def __init__(self, connection: sqlite3.Connection, now: datetime) -> None:
        self._connection = connection
        self._now = now
        found = connection.execute("SELECT value FROM meta WHERE name = 'revision'").fetchone()
        self._began_at = self._revision = int(found[0])

    def get(self, kind: type[T], id: str) -> T | None:
        query = "SELECT body FROM nouns WHERE kind = ? AND id = ?"
        found = self._connection.execute(query, (kind.__name__, id)).fetchone()
        return None if found is None else decode(kind, found[0])

    def put(self, noun: object) -> None:
        self._revision += 1
        values = (type(noun).__name__, identity(noun), getattr(noun, "endpoint", ""), self._revision, encode(noun))
        self._connection.execute(_PUT, values)

    def emit(self, event: Event) -> None:
        if self._connection.execute("SELECT id FROM events WHERE id = ?", (event.id,)).fetchone() is not None:
            return
        self._revision += 1
        row = (event.id, self._revision, *encode_event(event), stored(self._now))
        self._connection.execute("INSERT INTO events (id, sequence, kind, body, at) VALUES (?, ?, ?, ?, ?)", row)

    def seal(self, entry: AuditEvent) -> None:
        """Add an entry to the end of the audit chain."""
        sealed = (self.get(AuditHead, AuditHead().id) or AuditHead()).seal(entry)
        row = columns_of(sealed)
        self._connection.execute(_SEAL, tuple(row[name] for name in AUDIT))
        self.put(AuditHead(sequence=sealed.sequence, hash=sealed.hash))

    def finish(self) -> None:
        """Write the revision down, if anything was put or told."""
        if self._revision != self._began_at:
            self._connection.execute("UPDATE meta SET value = ? WHERE name = 'revision'", (self._revision,))


def prepare(connection: sqlite3.Connection) -> None:
    """Make a connection one that writes: readers go on meanwhile, and what is committed is on disk."""
    for pragma in (f"busy_timeout={BUSY_MS}", "journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def stored(moment: datetime) -> str:
    """A time as SQLAlchemy keeps it on SQLite; both may write to the same file."""
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")


def identity(noun: object) -> str:
    """A noun's id; the endpoint's name for what an endpoint has one of (its route)."""
    return str(getattr(noun, "id", "") or getattr(noun, "endpoint", ""))
