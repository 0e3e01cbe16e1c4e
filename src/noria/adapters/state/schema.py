"""The state's tables, its migrations, and what its database's errors mean."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, Engine, Index, MetaData, String, Table, Text, create_engine, event
from sqlalchemy import inspect as inspector
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError

from noria.adapters.state.sqlite import HEAD
from noria.adapters.state.trouble import explain
from noria.adapters.state.writing import prepare
from noria.domain.errors import StateUnavailable

metadata = MetaData()
nouns = Table(
    "nouns",
    metadata,
    Column("kind", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("endpoint", String, nullable=False),
    Column("changed", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index("nouns_by_change", "kind", "changed"),
    Index("nouns_by_endpoint", "kind", "endpoint", "changed"),
)
"""Each noun as JSON; `changed` is the revision that last put it."""
events = Table(
    "events",
    metadata,
    Column("id", String, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("kind", String, nullable=False),
    Column("body", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("handled_at", DateTime(timezone=True)),
    Index("events_pending", "handled_at", "sequence"),
)
"""What the loop is told. Handled events stay, so that the same happening isn't told again."""
audit = Table(
    "audit",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at", String, nullable=False),
    Column("actor", String, nullable=False),
    Column("action", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("previous_hash", String, nullable=False),
    Column("hash", String, nullable=False),
)
"""The hash chain, one column for each field, so that any SQL client can read it."""
meta = Table(
    "meta",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""The revision. Writers on PostgreSQL queue up on its row."""


def migrate(url: str) -> None:
    """Bring the database's schema to this version of Noria, making the database first if there is none.

    Args:
        url: SQLAlchemy URL.

    Raises:
        StateUnavailable: It can't be opened, or a newer version of Noria made it.
        StorageCorrupted: The file can't be read.
    """
    parsed = make_url(url)
    _make_folder(parsed)
    engine = connect(parsed)
    try:
        with explained(parsed), engine.connect() as connection:
            up_to_date = _schema_of(connection) == HEAD
        if not up_to_date:
            with explained(parsed), writing(engine) as connection:
                _upgrade(connection)
    finally:
        engine.dispose()


PATIENCE = {"connect_timeout": 5, "tcp_user_timeout": 15_000}
"""How long PostgreSQL may not be heard of: seconds until a connection is there, milliseconds until what was sent has
arrived. Without it whoever reads the state would wait for ever for a machine that is gone, and not say that it is."""


def connect(url: URL) -> Engine:
    """An engine for the state; on SQLite its transactions begin as `writing` says, and reads have none."""
    if url.get_driver_name() in ("psycopg", "psycopg2"):  # what the URL itself says comes first
        return create_engine(url, connect_args={name: at for name, at in PATIENCE.items() if name not in url.query})
    engine = create_engine(url)
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that holds SQLite's write lock from its first moment."""
    with engine.connect().execution_options(noria_writes=True) as connection, connection.begin():
        yield connection


@contextmanager
def explained(url: URL) -> Iterator[None]:
    """Turn the database's errors into the domain's."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        cause = " ".join(str(getattr(error, "orig", None) or error).split())
        where = url.render_as_string(hide_password=True)
        raise explain(where, cause, error, corrupted=isinstance(error, IntegrityError)) from error


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", "noria.adapters.state:migrations")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StateUnavailable(
            f"The state's schema was made by another version of Noria: {error}.", "Run the newest Noria it was used by."
        ) from error


def _schema_of(connection: Connection) -> str:
    if not inspector(connection).has_table("alembic_version"):
        return ""
    return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() or "")


def _make_folder(url: URL) -> None:
    if url.get_backend_name() != "sqlite" or not url.database:
        return
    folder = Path(url.database).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateUnavailable(f"{folder} can't be made: {error.strerror}.", "Make its parent writable.") from error


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # Noria says when a transaction begins, not the driver
    prepare(connection)


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get("noria_writes"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
