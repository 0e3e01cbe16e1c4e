"""The control plane's memory on SQLite with nothing but SQLite: read ten times a second by an API process, and changed
by commands that a person waits for. SQLAlchemy (`adapters/state/sql.py`: PostgreSQL, migrations) would take 20 MB and
longer than all the rest of `noria rollback`.
"""

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from noria.adapters.codec import decode, decode_event
from noria.adapters.state.account import AUDIT, audited, drafted
from noria.adapters.state.trouble import BUSY_MS, explain
from noria.adapters.state.writing import SqliteChange, prepare, stored
from noria.domain.audit import AuditEvent
from noria.domain.events import Event
from noria.ports import Clock

T = TypeVar("T")

URL = "sqlite:///"
"""What the URL of a state on SQLite begins with."""
HEAD = "0001"
"""The newest migration, so that a database that is up to date is opened without loading alembic."""


def file_of(url: str) -> Path | None:
    """The file that a plain SQLite URL means; None for every other URL."""
    path = url.removeprefix(URL)
    plain = url.startswith(URL) and path and "?" not in path and not path.startswith((":", "file:"))
    return Path(path) if plain else None


def is_current(file: Path) -> bool:
    """Whether a database has the schema of this version of Noria. Nothing is made or changed."""
    try:
        connection = _connect(file)
        try:
            found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        finally:
            connection.close()
    except sqlite3.Error:
        return False
    return found == [(HEAD,)]


class SqliteState:
    """StateStore on a SQLite file whose schema is there. Threads may share it.

    Args:
        file: The database.
        clock: Where the times of audit events come from.

    Raises:
        StateUnavailable: From every method: it can't be reached, or has no tables yet.
        StorageCorrupted: From every method: what is stored can't be read back.
        Conflict: From every writing method: another process kept it locked for too long.
    """

    def __init__(self, file: Path, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._turn = threading.Lock()
        """Whoever writes; other threads wait for him."""
        self._writer: sqlite3.Connection | None = None
        self._thread = threading.local()

    def get(self, kind: type[T], id: str) -> T | None:
        rows = self._rows("SELECT body FROM nouns WHERE kind = ? AND id = ?", kind.__name__, id)
        return decode(kind, rows[0][0]) if rows else None

    def find(self, kind: type[T], *, endpoint: str | None = None, limit: int = 1000) -> list[T]:
        of_endpoint = "" if endpoint is None else " AND endpoint = ?"
        query = f"SELECT body FROM nouns WHERE kind = ?{of_endpoint} ORDER BY changed DESC LIMIT ?"  # noqa: S608
        values = (kind.__name__, limit) if endpoint is None else (kind.__name__, endpoint, limit)
        return [decode(kind, body) for (body,) in self._rows(query, *values)]

    @contextmanager
    def change(
        self,
        actor: str,
        action: str,
        subject: str,
        *,
        reason: str = "",
        evidence: Mapping[str, object] | None = None,
    ) -> Iterator[SqliteChange]:
        entry = drafted(self._clock.now(), actor, action, subject, reason, evidence)
        with self.note() as change:
            yield change
            change.seal(entry)

    @contextmanager
    def note(self) -> Iterator[SqliteChange]:
        with self._writing() as connection:
            change = SqliteChange(connection, self._clock.now())
            yield change
            change.finish()

    def revision(self) -> int:
        return int(self._rows("SELECT value FROM meta WHERE name = 'revision'")[0][0])

    def pending_events(self, limit: int = 100) -> list[Event]:
        query = "SELECT kind, body FROM events WHERE handled_at IS NULL ORDER BY sequence LIMIT ?"
        return [decode_event(kind, body) for kind, body in self._rows(query, limit)]

    def mark_handled(self, event_id: str) -> None:
        query = "UPDATE events SET handled_at = ? WHERE id = ? AND handled_at IS NULL"
        with self._writing() as connection:
            connection.execute(query, (stored(self._clock.now()), event_id))

    def audit_trail(self, *, after: int = 0, limit: int | None = None) -> Iterator[AuditEvent]:
        query = f"SELECT {', '.join(AUDIT)} FROM audit WHERE sequence > ? ORDER BY sequence LIMIT ?"  # noqa: S608

        def page(after: int, size: int) -> list[Mapping[str, Any]]:
            return [dict(zip(AUDIT, row, strict=True)) for row in self._rows(query, after, size)]

        return audited(page, after, limit)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            self._let_go()
        with self._turn:
            self._let_go_of_writer()

    def _rows(self, query: str, *values: object) -> Sequence[Any]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = _connect(self._file)
                return self._connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                self._let_go()
                raise explain(f"{URL}{self._file}", str(error), error) from error

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that holds the write lock from its first moment."""
        if getattr(self._thread, "changing", False):
            raise RuntimeError("a change of state can't begin inside another one: it would wait for itself")
        with self._turn:
            self._thread.changing = True
            try:
                if self._writer is None:
                    self._writer = _connect(self._file)
                    prepare(self._writer)
                self._writer.execute("BEGIN IMMEDIATE")
                yield self._writer
                self._writer.execute("COMMIT")
            except sqlite3.Error as error:
                self._let_go_of_writer()  # which takes back what isn't committed
                raise explain(f"{URL}{self._file}", str(error), error) from error
            except BaseException:
                if self._writer is not None:
                    with suppress(sqlite3.Error):
                        self._writer.execute("ROLLBACK")
                raise
            finally:
                self._thread.changing = False

    def _let_go_of_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _connect(file: Path) -> sqlite3.Connection:
    """A connection that makes no file; each of its reads sees what was committed last."""
    uri = f"{file.absolute().as_uri()}?mode=rw"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_MS / 1000, check_same_thread=False)
