"""The control plane's memory in a SQL database: SQLite beside the project, or PostgreSQL by URL.

A noun is one row that holds it as JSON, so a new field of a noun needs no migration. A change of state puts its nouns,
the events that it tells the loop and its sealed audit event into one transaction: all of it is there, or nothing is.
On SQLite a writer takes the lock at once (BEGIN IMMEDIATE), so that two processes queue up instead of failing half-way,
and a commit is on disk when it returns (synchronous=FULL).
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.engine import Connection, make_url

from noria.adapters.codec import decode, decode_event, encode, encode_event
from noria.adapters.state.account import audited, columns_of, drafted
from noria.adapters.state.schema import audit, connect, events, explained, meta, migrate, nouns, writing
from noria.adapters.state.writing import identity
from noria.domain.audit import AuditEvent, AuditHead
from noria.domain.events import Event
from noria.ports import Clock

__all__ = ["SqlState", "migrate"]

T = TypeVar("T")

_REVISION = select(meta.c.value).where(meta.c.name == "revision")


class SqlChange:
    """A transaction under way; every put and every new event takes the next revision."""

    def __init__(self, connection: Connection, now: datetime) -> None:
        self._connection = connection
        self._now = now
        self._began_at = self._revision = int(connection.execute(_REVISION.with_for_update()).scalar_one())

    def get(self, kind: type[T], id: str) -> T | None:
        return _get(self._connection, kind, id)

    def put(self, noun: object) -> None:
        self._revision += 1
        kind, key = type(noun).__name__, identity(noun)
        values = {"endpoint": getattr(noun, "endpoint", ""), "changed": self._revision, "body": encode(noun)}
        update = nouns.update().where((nouns.c.kind == kind) & (nouns.c.id == key)).values(values)
        if not self._connection.execute(update).rowcount:
            self._connection.execute(nouns.insert().values(values | {"kind": kind, "id": key}))

    def emit(self, event: Event) -> None:
        if self._connection.execute(select(events.c.id).where(events.c.id == event.id)).first() is not None:
            return
        self._revision += 1
        kind, body = encode_event(event)
        row = {"id": event.id, "sequence": self._revision, "kind": kind, "body": body, "at": self._now}
        self._connection.execute(events.insert().values(row))

    def seal(self, entry: AuditEvent) -> None:
        """Add an entry to the end of the audit chain."""
        sealed = (self.get(AuditHead, AuditHead().id) or AuditHead()).seal(entry)
        self._connection.execute(audit.insert().values(columns_of(sealed)))
        self.put(AuditHead(sequence=sealed.sequence, hash=sealed.hash))

    def finish(self) -> None:
        """Write the revision down, if anything was put or told."""
        if self._revision != self._began_at:
            self._connection.execute(meta.update().where(meta.c.name == "revision").values(value=self._revision))


class SqlState:
    """StateStore on SQLAlchemy Core. Threads may share it; the schema must be there (`migrate`).

    Args:
        url: SQLAlchemy URL, `sqlite:////path/state.db` or `postgresql+psycopg://…`.
        clock: Where the times of audit events come from.

    Raises:
        StateUnavailable: From every method: it can't be reached, or has no tables yet.
        StorageCorrupted: From every method: what is stored can't be read back.
        Conflict: From every writing method: another process kept it locked for too long.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        self._clock = clock
        self._url = make_url(url)
        self._engine = connect(self._url)
        self._thread = threading.local()

    def get(self, kind: type[T], id: str) -> T | None:
        with self._reading() as connection:
            return _get(connection, kind, id)

    def find(self, kind: type[T], *, endpoint: str | None = None, limit: int = 1000) -> list[T]:
        query = select(nouns.c.body).where(nouns.c.kind == kind.__name__)
        if endpoint is not None:
            query = query.where(nouns.c.endpoint == endpoint)
        with self._reading() as connection:
            bodies = connection.execute(query.order_by(nouns.c.changed.desc()).limit(limit)).scalars().all()
        return [decode(kind, body) for body in bodies]

    @contextmanager
    def change(
        self,
        actor: str,
        action: str,
        subject: str,
        *,
        reason: str = "",
        evidence: Mapping[str, object] | None = None,
    ) -> Iterator[SqlChange]:
        entry = drafted(self._clock.now(), actor, action, subject, reason, evidence)
        with self._writing() as change:
            yield change
            change.seal(entry)

    @contextmanager
    def note(self) -> Iterator[SqlChange]:
        with self._writing() as change:
            yield change

    def revision(self) -> int:
        with self._reading() as connection:
            return int(connection.execute(_REVISION).scalar_one())

    def pending_events(self, limit: int = 100) -> list[Event]:
        query = select(events.c.kind, events.c.body).where(events.c.handled_at.is_(None))
        with self._reading() as connection:
            rows = connection.execute(query.order_by(events.c.sequence).limit(limit)).all()
        return [decode_event(row.kind, row.body) for row in rows]

    def mark_handled(self, event_id: str) -> None:
        pending = (events.c.id == event_id) & events.c.handled_at.is_(None)
        with explained(self._url), writing(self._engine) as connection:
            connection.execute(events.update().where(pending).values(handled_at=self._clock.now()))

    def audit_trail(self, *, after: int = 0, limit: int | None = None) -> Iterator[AuditEvent]:
        def page(after: int, size: int) -> list[Mapping[str, Any]]:
            query = select(audit).where(audit.c.sequence > after).order_by(audit.c.sequence).limit(size)
            with self._reading() as connection:
                return [dict(row._mapping) for row in connection.execute(query).all()]

        return audited(page, after, limit)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with explained(self._url), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[SqlChange]:
        if getattr(self._thread, "changing", False):
            raise RuntimeError("a change of state can't begin inside another one: it would wait for itself")
        self._thread.changing = True
        try:
            with explained(self._url), writing(self._engine) as connection:
                change = SqlChange(connection, self._clock.now())
                yield change
                change.finish()
        finally:
            self._thread.changing = False


def _get(connection: Connection, kind: type[T], id: str) -> T | None:
    query = select(nouns.c.body).where((nouns.c.kind == kind.__name__) & (nouns.c.id == id))
    body = connection.execute(query).scalar()
    return None if body is None else decode(kind, body)
