"""The tables, as Delta Lake on a local disk or an object store; implements ports.RecordStore.

Exactly once: an append names its writer and its version in the table's transaction log. It is skipped when that
version is there already, and the very handle that was asked is the one that writes, so that a second writer who
slipped in between makes the commit fail instead of doubling rows.
"""

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    QueryBuilder,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from noria.domain.errors import Conflict, InvalidRequest, LogUnavailable, StorageCorrupted
from noria.tables import PARTITION, SCHEMAS, TIME_COLUMN

_ZSTD: Final = WriterProperties(compression="ZSTD", compression_level=3)
_TRIES: Final = 5
_TIDY_EVERY: Final = 32
"""Versions after which a table's small files are put together: every reader and writer pays for each file."""
_SMALL_BYTES: Final = 16 << 20
_CROWD: Final = 16
"""Fewer small files than this aren't worth putting together."""
_RETENTION: Final = timedelta(hours=6)
_CONFIGURATION: Final = {"delta.logRetentionDuration": "interval 6 hours"}
_NO_HOOKS: Final = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
"""delta-rs would look at every file of the log after every commit; `_tidy` and `optimize` do so now and then."""

_QUOTED: Final = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)
_READS: Final = re.compile(r"\s*(?:select|with|explain|describe|show)\b", re.IGNORECASE)
_WRITES: Final = re.compile(
    r"\b(?:insert|update|delete|copy|create|drop|alter|truncate|merge|set|load|unload|call|grant|analyze)\b|;\s*\S",
    re.I,
)


class DeltaStore:
    """All tables under one root, each made at its first append.

    Args:
        root: Folder or URL that holds the tables.
        storage_options: Credentials and the like of an object store.
    """

    def __init__(self, root: str | Path, storage_options: Mapping[str, str] | None = None) -> None:
        self._root = str(root).rstrip("/")
        self._options = dict(storage_options or {})

    def append(self, table: str, rows: pa.Table, app_id: str, version: int) -> bool:
        once = CommitProperties(app_transactions=[Transaction(app_id, version)])
        for _ in range(_TRIES):
            try:
                handle = self._open(table) or _create(self._uri(table), table, self._options)
                if (handle.transaction_version(app_id) or 0) >= version:
                    return False
                write_deltalake(
                    handle,
                    rows,
                    mode="append",
                    schema_mode="merge" if _absent(handle, table) else None,
                    writer_properties=_ZSTD,
                    commit_properties=once,
                    post_commithook_properties=_NO_HOOKS,
                )
            except CommitFailedError:  # another writer was faster: look again at what is there
                continue
            except (DeltaError, OSError) as error:
                raise _unwritable(table, error) from error
            self._tidy(handle)
            return True
        raise Conflict(f"The table {table} is written by others all the time.", "The worker tries again.")

    def last_version(self, table: str, app_id: str) -> int:
        handle = self._open(table)
        return 0 if handle is None else handle.transaction_version(app_id) or 0

    def scan(
        self,
        table: str,
        *,
        columns: Sequence[str] | None = None,
        endpoint: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        snapshot: int | None = None,
    ) -> pa.Table:
        schema = SCHEMAS[table]
        wanted = list(columns) if columns is not None else schema.names
        handle = self._open(table, snapshot)
        if handle is None:
            return pa.schema([schema.field(name) for name in wanted]).empty_table()
        condition = None
        for part in _conditions(table, endpoint, since, until):
            condition = part if condition is None else condition & part
        absent = _absent(handle, table)
        found = handle.to_pyarrow_dataset().to_table(
            columns=[name for name in wanted if name not in absent], filter=condition
        )
        for name in absent.intersection(wanted):
            found = found.append_column(schema.field(name), pa.nulls(found.num_rows, schema.field(name).type))
        return found.select(wanted).cast(pa.schema([schema.field(name) for name in wanted]))

    def query(self, sql: str) -> pa.Table:
        """Run a read-only SQL query (DataFusion's dialect) in which the tables have their own names.

        Raises:
            InvalidRequest: It can't be run, or would change something.
        """
        bare = _QUOTED.sub(" '' ", sql)
        if not _READS.match(bare) or _WRITES.search(bare):
            raise InvalidRequest("Only one query that reads can be run.", "Begin it with SELECT or WITH.")
        named = [table for table in SCHEMAS if re.search(rf"\b{table}\b", sql, re.IGNORECASE)]
        builder = QueryBuilder()
        with tempfile.TemporaryDirectory(prefix="noria-") as nothing:
            for table in named:
                _register(builder, table, self._open(table), _create(f"{nothing}/{table}", table, {}))
            try:
                result = pa.table(builder.execute(sql).read_all())
            except Exception as error:  # DataFusion's errors have no type of their own
                raise InvalidRequest(f"The query can't be run: {error}", "Check its tables and columns.") from error
        return result.cast(pa.schema([pa.field(f.name, _plain(f.type), f.nullable) for f in result.schema]))

    def snapshot(self, table: str) -> int:
        handle = self._open(table)
        return -1 if handle is None else int(handle.version())

    def optimize(self, table: str, retention: timedelta = _RETENTION) -> Mapping[str, int]:
        """Put small files together, and delete log entries and files that no snapshot younger than that needs.

        Safe beside writers and readers: if a writer is faster, nothing is put together until the next call.

        Args:
            table: Table to look after.
            retention: How long an older snapshot can still be read; shorter than a reader or writer takes is unsafe.

        Returns:
            `files`: files in the table before; `compacted`: files replaced by larger ones; `deleted`: files deleted.
        """
        handle = self._open(table)
        if handle is None:
            return {"files": 0, "compacted": 0, "deleted": 0}
        files = len(handle.file_uris())
        try:
            compacted = _compacted(handle, None) if _crowded(handle) else 0
            handle.create_checkpoint()
            handle.cleanup_metadata()
            hours = int(retention.total_seconds() // 3600)
            deleted = handle.vacuum(hours, dry_run=False, enforce_retention_duration=False)
        except CommitFailedError:
            return {"files": files, "compacted": 0, "deleted": 0}
        except (DeltaError, OSError) as error:
            raise _unwritable(table, error) from error
        return {"files": files, "compacted": compacted, "deleted": len(deleted)}

    @staticmethod
    def _tidy(handle: DeltaTable) -> None:
        """Every so many versions, put small files together. Best done now, but the rows are safe without it."""
        if handle.version() % _TIDY_EVERY == 0:
            with contextlib.suppress(DeltaError, OSError):
                if _crowded(handle):
                    _compacted(handle, _SMALL_BYTES)
                handle.create_checkpoint()

    def _uri(self, table: str) -> str:
        return f"{self._root}/{table}"

    def _open(self, table: str, snapshot: int | None = None) -> DeltaTable | None:
        """The table at its newest version or an older one; None if it does not exist."""
        if table not in SCHEMAS:
            raise InvalidRequest(f"There is no table {table}.", f"The tables are {', '.join(SCHEMAS)}.")
        try:
            return DeltaTable(self._uri(table), version=snapshot, storage_options=self._options)
        except TableNotFoundError:
            return None
        except DeltaError as error:
            if snapshot is not None:
                problem = f"The table {table} has no readable version {snapshot}."
                raise InvalidRequest(problem, "Name one that optimize has left.") from error
            problem = f"The table {table} can't be opened: {error}"
            raise StorageCorrupted(problem, "Restore its _delta_log from a copy.") from error


def _create(uri: str, table: str, options: dict[str, str]) -> DeltaTable:
    """Make an empty table, unless somebody else has done so this moment."""
    return DeltaTable.create(
        uri,
        schema=SCHEMAS[table],
        mode="ignore",
        partition_by=PARTITION.get(table),
        configuration=_CONFIGURATION,
        storage_options=options,
    )


def _absent(handle: DeltaTable, table: str) -> set[str]:
    """Columns that a table made by an older version of Noria doesn't have yet; the next append adds them."""
    return set(SCHEMAS[table].names).difference(field.name for field in handle.schema().fields)


def _register(builder: QueryBuilder, table: str, handle: DeltaTable | None, empty: DeltaTable) -> None:
    """Give a query a table under its own name, with all columns that it has today."""
    if handle is None or not (absent := _absent(handle, table)):
        builder.register(table, handle or empty)
        return
    builder.register(f"{table}__empty", empty)
    builder.register(f"{table}__old", handle)
    columns = [f'"{name}"' for name in SCHEMAS[table].names]
    known = [f'NULL AS "{name}"' if name in absent else f'"{name}"' for name in SCHEMAS[table].names]
    builder.execute(
        f"CREATE VIEW {table} AS SELECT {', '.join(columns)} FROM {table}__empty"  # noqa: S608 (names from the schema)
        f" UNION ALL SELECT {', '.join(known)} FROM {table}__old"
    )


def _unwritable(table: str, error: Exception) -> LogUnavailable:
    remedy = "Free space or let Noria write there; the worker tries again."
    return LogUnavailable(f"The table {table} can't be written: {error}", remedy)


def _crowded(handle: DeltaTable) -> bool:
    """Whether any folder of a table holds many small files."""
    files = pa.table(handle.get_add_actions(flatten=True))
    columns = [name for name in files.column_names if name.startswith("partition.")]
    small = files.filter(pc.field("size_bytes") < _SMALL_BYTES).group_by(columns).aggregate([([], "count_all")])
    return any(count >= _CROWD for count in small["count_all"].to_pylist())


def _compacted(handle: DeltaTable, target_bytes: int | None) -> int:
    """Put small files together into files of about that size; how many there were."""
    done = handle.optimize.compact(
        target_size=target_bytes, writer_properties=_ZSTD, post_commithook_properties=_NO_HOOKS
    )
    return int(done["numFilesRemoved"])


def _conditions(
    table: str, endpoint: str | None, since: datetime | None, until: datetime | None
) -> Iterator[pc.Expression]:
    """The filters of a scan; those on a partition let whole folders be skipped."""
    time = pc.field(*TIME_COLUMN[table].split("."))
    day = next((pc.field(name) for name in PARTITION.get(table, ())), None)
    if endpoint is not None:
        yield pc.field("endpoint") == endpoint
    if since is not None:
        yield time >= _instant(since)
        if day is not None:
            yield day >= since.astimezone(UTC).date()
    if until is not None:
        yield time < _instant(until)
        if day is not None:
            yield day <= until.astimezone(UTC).date()


def _instant(moment: datetime) -> pa.Scalar:
    return pa.scalar(moment, pa.timestamp("us", tz="UTC"))


def _plain(kind: Any) -> pa.DataType:
    """The ordinary type for one of DataFusion's view types, which few libraries read."""
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, _plain(f.type), f.nullable) for f in kind])
    return kind
