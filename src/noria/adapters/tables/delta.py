"""The tables, as Delta Lake on a local disk or an object store; implements ports.RecordStore.

Exactly once: an append names its writer and its version in the table's transaction log. It is skipped when that
version is there already, and the very handle that was asked is the one that writes, so that a second writer who
slipped in between makes the commit fail instead of doubling rows.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from noria.adapters.tables.parts import cut, read_part
from noria.adapters.tables.view import DeltaView, absent, conditions, meant, predicate, scanned
from noria.domain.errors import Conflict, InvalidRequest, LogUnavailable, StorageCorrupted
from noria.ports import Part, Where
from noria.tables import PARTITION, SCHEMAS, TIME_COLUMN

_LONG: Final = {
    "inference": ("request", "response"),
    "feedback": ("comment",),
    "dead_letter": ("payload", "reason"),
    "monitor_states": ("state",),
}
"""Columns that may be long. Statistics of them would put whole bodies into the transaction log, where every reader of
the table would load them and no retention would find them."""
_PLAIN: Final = ColumnProperties(statistics_enabled="NONE", dictionary_enabled=False)
_TRIES: Final = 5
_TIDY_EVERY: Final = 32
"""Versions after which a table's small files are put together: every reader and writer pays for each file."""
_CHECKPOINT_EVERY: Final = 8
"""Versions after which the log is put together: a window of monitors opens tables eleven times, and each opening reads
every version since. It then costs a sixth less."""
_SMALL_BYTES: Final = 16 << 20
_CROWD: Final = 16
"""Fewer small files than this aren't worth putting together."""
_RETENTION: Final = timedelta(hours=6)
_CONFIGURATION: Final = {"delta.logRetentionDuration": "interval 6 hours"}
_NO_HOOKS: Final = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
"""delta-rs would look at every file of the log after every commit; `_tidy` and `optimize` do so now and then."""


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
        return self._write(table, rows, None, app_id, version)

    def replace(self, table: str, rows: pa.Table, where: Where, app_id: str, version: int) -> bool:
        if rows.filter(meant(table, where)).num_rows != rows.num_rows:
            raise InvalidRequest(
                f"Rows of {table} lie outside what they replace.", "Replace the span that they are of."
            )
        return self._write(table, rows, predicate(table, where), app_id, version)

    def _write(self, table: str, rows: pa.Table, instead_of: str | None, app_id: str, version: int) -> bool:
        """Append rows, or put them in the place of those that a predicate names; once for this version.

        A writer that was faster makes the commit fail if it wrote under the same name or added rows that the
        predicate means; what others append to the rest of the table meanwhile stays.
        """
        once = CommitProperties(app_transactions=[Transaction(app_id, version)])
        how: dict[str, Any] = {"mode": "append"}
        if instead_of is not None:
            how = {"mode": "overwrite", "predicate": instead_of}
        for _ in range(_TRIES):
            try:
                handle = self._open(table) or _create(self._uri(table), table, self._options)
                if (handle.transaction_version(app_id) or 0) >= version:
                    return False
                write_deltalake(
                    handle,
                    rows,
                    **how,
                    schema_mode="merge" if absent(handle, table) else None,
                    writer_properties=_writing(table),
                    commit_properties=once,
                    post_commithook_properties=_NO_HOOKS,
                )
            except CommitFailedError:  # another writer was faster: look again at what is there
                continue
            except (DeltaError, OSError) as error:
                raise _unwritable(table, error) from error
            self._tidy(handle, table)
            return True
        raise Conflict(f"The table {table} is written by others all the time.", "The worker tries again.")

    def last_version(self, table: str, app_id: str) -> int:
        return self.view().last_version(table, app_id)

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
        handle = self._open(table, snapshot)
        return scanned(table, handle, columns, *conditions(table, endpoint, since, until))

    def parts(self, table: str, endpoint: str, since: datetime, until: datetime, most_bytes: int) -> Sequence[Part]:
        handle = self._open(table)
        return [] if handle is None else cut(handle, table, self._uri(table), endpoint, since, until, most_bytes)

    def read(self, part: Part, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        return read_part(part, columns, options=self._options)

    def view(self) -> DeltaView:
        return DeltaView(self._open)

    def query(self, sql: str) -> pa.Table:
        """Run a read-only SQL query (DataFusion's dialect) in which the tables have their own names.

        Raises:
            InvalidRequest: It can't be run, or would change something.
        """
        return self.view().query(sql)

    def snapshot(self, table: str) -> int:
        handle = self._open(table)
        return -1 if handle is None else int(handle.version())

    def expire(self, table: str, endpoint: str, before: datetime) -> int:
        time, quoted = TIME_COLUMN[table], endpoint.replace("'", "''")
        moment = before.astimezone(UTC)
        parts = [
            f"endpoint = '{quoted}'",
            f"{time} < arrow_cast('{moment:%Y-%m-%dT%H:%M:%S.%fZ}', 'Timestamp(Microsecond, Some(\"UTC\"))')",
            *(f"{day} <= DATE '{moment:%Y-%m-%d}'" for day in PARTITION.get(table, ())),  # leaves later folders alone
        ]
        for _ in range(_TRIES):
            try:
                if (handle := self._open(table)) is None:
                    return 0
                done = handle.delete(
                    " AND ".join(parts), writer_properties=_writing(table), post_commithook_properties=_NO_HOOKS
                )
                return int(done["num_deleted_rows"] or 0)
            except CommitFailedError:  # another writer was faster: look again at what is there
                continue
            except (DeltaError, OSError) as error:
                raise _unwritable(table, error) from error
        raise Conflict(f"The table {table} is written by others all the time.", "The worker tries again.")

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
            compacted = _compacted(handle, table, None) if _crowded(handle) else 0
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
    def _tidy(handle: DeltaTable, table: str) -> None:
        """Now and then put small files together, and the log more often. The rows are safe without it."""
        due = handle.version() % _TIDY_EVERY == 0
        if due or handle.version() % _CHECKPOINT_EVERY == 0:
            with contextlib.suppress(DeltaError, OSError):
                if due and _crowded(handle):
                    _compacted(handle, table, _SMALL_BYTES)
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


def _unwritable(table: str, error: Exception) -> LogUnavailable:
    remedy = "Free space or let Noria write there; the worker tries again."
    return LogUnavailable(f"The table {table} can't be written: {error}", remedy)


def _crowded(handle: DeltaTable) -> bool:
    """Whether any folder of a table holds many small files."""
    files = pa.table(handle.get_add_actions(flatten=True))
    columns = [name for name in files.column_names if name.startswith("partition.")]
    small = files.filter(pc.field("size_bytes") < _SMALL_BYTES).group_by(columns).aggregate([([], "count_all")])
    return any(count >= _CROWD for count in small["count_all"].to_pylist())


def _writing(table: str) -> WriterProperties:
    """How a table's files are written."""
    plain = dict.fromkeys(_LONG.get(table, ()), _PLAIN)
    return WriterProperties(compression="ZSTD", compression_level=3, column_properties=plain or None)


def _compacted(handle: DeltaTable, table: str, target_bytes: int | None) -> int:
    """Put small files together into files of about that size; how many there were."""
    done = handle.optimize.compact(
        target_size=target_bytes,
        max_concurrent_tasks=1,  # each holds the files that it puts together in memory
        writer_properties=_writing(table),
        post_commithook_properties=_NO_HOOKS,
    )
    return int(done["numFilesRemoved"])
