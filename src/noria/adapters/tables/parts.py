"""Parts of a table: lists of its Parquet files at one version, which any machine can read without the table's log.

A part is read in bounded memory: file after file, row group after row group, some megabytes of rows at a time. Files
and row groups whose statistics say that they hold none of the rows are not touched.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileSystem, LocalFileSystem, PyFileSystem, SubTreeFileSystem

from noria.adapters.tables.view import conditions
from noria.domain.errors import Conflict, InvalidRequest, StorageCorrupted
from noria.ports import Part, PartFile
from noria.tables import PARTITION, SCHEMAS, TIME_COLUMN

BATCH_BYTES: Final = 8 << 20
"""About so many bytes of rows are in memory at a time."""
MOST_ROWS: Final = 1 << 16
FEWEST_ROWS: Final = 64
_BUFFER: Final = 1 << 20
"""Bytes read of a column at a time."""
_TRUNCATED: Final = timedelta(milliseconds=1)
"""The log may have cut off what a file's newest time has beyond milliseconds."""
_UNREADABLE: Final = {"deletionVectors", "columnMapping"}


def cut(
    handle: DeltaTable, table: str, root: str, endpoint: str, since: datetime, until: datetime, most_bytes: int
) -> list[Part]:
    """The parts of a table at the version of that handle; see `ports.RecordStore.parts`."""
    _check_plain(handle, table)
    groups: list[list[PartFile]] = []
    room = 0
    for file in _files(handle, table, endpoint, since, until):
        if not groups or file.size > room:
            groups.append([])
            room = most_bytes
        groups[-1].append(file)
        room -= file.size
    return [
        Part(
            table=table,
            root=root,
            snapshot=handle.version(),
            files=tuple(group),
            endpoint=endpoint,
            since=since,
            until=until,
        )
        for group in groups
    ]


def read_part(
    part: Part,
    columns: Sequence[str] | None = None,
    *,
    batch_bytes: int = BATCH_BYTES,
    options: Mapping[str, str] | None = None,
) -> Iterator[pa.Table]:
    """The rows of a part, some at a time; never an empty table.

    Args:
        part: What `ports.RecordStore.parts` gave.
        columns: Columns of the table that are wanted; all by default.
        batch_bytes: About so many bytes of rows are given at a time, by the average of their row group.
        options: Of an object store, as DeltaStore takes them; what isn't said comes from the environment.

    Raises:
        Conflict: A file is gone: the table was tidied since the part was cut.
        StorageCorrupted: A file can't be read.
    """
    schema = SCHEMAS[part.table]
    wanted = pa.schema([schema.field(name) for name in (columns if columns is not None else schema.names)])
    condition = _all(conditions(part.table, part.endpoint, part.since, part.until))
    source = _source(part.root, options)
    for file in part.files:
        try:
            for rows in _rows(source, file, part, wanted, batch_bytes):
                found = rows.filter(condition)
                if found.num_rows:
                    yield found.select(wanted.names)
        except FileNotFoundError as error:
            problem = f"A file of {part.table} at version {part.snapshot} is gone: {file.path}."
            raise Conflict(problem, "The table was tidied meanwhile; cut it into parts anew.") from error
        except (pa.ArrowException, OSError) as error:
            problem = f"A file of {part.table} can't be read: {file.path}: {error}"
            raise StorageCorrupted(problem, "Restore it from a copy, or remove it from the table.") from error


def _check_plain(handle: DeltaTable, table: str) -> None:
    """Refuse a table whose files don't hold its rows as they are.

    Raises:
        InvalidRequest: It is one.
    """
    protocol, settings = handle.protocol(), handle.metadata().configuration
    found = _UNREADABLE.intersection(protocol.reader_features or ())
    if settings.get("delta.columnMapping.mode", "none") != "none":
        found.add("columnMapping")
    if found:
        raise InvalidRequest(
            f"The files of {table} don't hold its rows as they are: it uses {' and '.join(sorted(found))}.",
            "Write the table anew without these features (Spark: REORG TABLE … APPLY (PURGE), then drop the feature).",
        )


def _files(handle: DeltaTable, table: str, endpoint: str, since: datetime, until: datetime) -> Iterator[PartFile]:
    """The files that may hold such rows, oldest first."""
    found = pa.table(handle.get_add_actions(flatten=True))
    folders = PARTITION.get(table, [])
    days = [f"partition.{name}" for name in folders]
    for row in found.sort_by([(name, "ascending") for name in (*days, "modification_time", "path")]).to_pylist():
        held = {name: row[day] for name, day in zip(folders, days, strict=True)}
        if _may_hold(row, held, table, endpoint, since, until):
            values = {name: None if value is None else str(value) for name, value in held.items()}
            yield PartFile(path=row["path"], size=row["size_bytes"], partition=values)


def _may_hold(
    row: Mapping[str, Any], held: Mapping[str, Any], table: str, endpoint: str, since: datetime, until: datetime
) -> bool:
    """Whether a file's statistics leave room for rows of an endpoint and a span of time."""
    time = TIME_COLUMN[table]
    days = (since.astimezone(UTC).date(), until.astimezone(UTC).date())
    if any(value is not None and not days[0] <= value <= days[1] for value in held.values()):
        return False
    newest = row.get(f"max.{time}")
    return _between(row.get("min.endpoint"), endpoint, row.get("max.endpoint")) and _meets(
        row.get(f"min.{time}"), newest and newest + _TRUNCATED, since, until
    )


def _between(lowest: Any, value: Any, highest: Any) -> bool:
    return (lowest is None or lowest <= value) and (highest is None or value <= highest)


def _meets(oldest: datetime | None, newest: datetime | None, since: datetime, until: datetime) -> bool:
    return (oldest is None or oldest < until) and (newest is None or newest >= since)


def _source(root: str, options: Mapping[str, str] | None) -> FileSystem:
    """Where the files of a table are."""
    if "://" in root:
        return PyFileSystem(DeltaStorageHandler(root, dict(options or {})))
    return SubTreeFileSystem(str(Path(root).absolute()), LocalFileSystem())


def _rows(source: FileSystem, file: PartFile, part: Part, wanted: pa.Schema, batch_bytes: int) -> Iterator[pa.Table]:
    """All rows of a file but for groups that hold none of those that are meant, with the columns wanted and those
    that the condition looks at."""
    schema = SCHEMAS[part.table]
    looked_at = ["endpoint", TIME_COLUMN[part.table].split(".")[0], *file.partition]
    needed = pa.schema(
        [*wanted, *(schema.field(name) for name in dict.fromkeys(looked_at) if name not in wanted.names)]
    )
    with (
        source.open_input_file(file.path) as opened,
        pq.ParquetFile(opened, pre_buffer=False, buffer_size=_BUFFER) as parquet,
    ):
        there = [name for name in needed.names if name in parquet.schema_arrow.names and name not in file.partition]
        for number in range(parquet.metadata.num_row_groups):
            group = parquet.metadata.row_group(number)
            if not _group_may_hold(group, part):
                continue
            size = _batch_rows(group, set(there), batch_bytes)
            for batch in parquet.iter_batches(size, row_groups=[number], columns=there, use_threads=False):
                yield _completed(batch, file, needed)


def _group_may_hold(group: Any, part: Part) -> bool:
    """Whether a row group's statistics leave room for rows of the part."""
    bounds: dict[str, tuple[Any, Any]] = {}
    for number in range(group.num_columns):
        column = group.column(number)
        if column.path_in_schema in ("endpoint", TIME_COLUMN[part.table]):
            stats = column.statistics
            if stats is not None and stats.has_min_max:
                bounds[column.path_in_schema] = (stats.min, stats.max)
    lowest, highest = bounds.get("endpoint", (None, None))
    oldest, newest = bounds.get(TIME_COLUMN[part.table], (None, None))
    return _between(lowest, part.endpoint, highest) and _meets(oldest, newest, part.since, part.until)


def _batch_rows(group: Any, columns: set[str], batch_bytes: int) -> int:
    """How many rows are about that many bytes."""
    found = (group.column(number) for number in range(group.num_columns))
    size: int = sum(c.total_uncompressed_size for c in found if c.path_in_schema.split(".")[0] in columns)
    rows: int = group.num_rows
    return min(MOST_ROWS, max(FEWEST_ROWS, batch_bytes * rows // max(1, size)))


def _completed(batch: pa.RecordBatch, file: PartFile, needed: pa.Schema) -> pa.Table:
    """A file's rows with the columns that are in the log only, and nulls for those that the file is too old to have."""
    columns = []
    for each in needed:
        if each.name in file.partition:
            value = pa.scalar(file.partition[each.name], pa.string()).cast(each.type)
            columns.append(pa.repeat(value, batch.num_rows))
        elif each.name in batch.schema.names:
            columns.append(batch.column(each.name).cast(each.type))
        else:
            columns.append(pa.nulls(batch.num_rows, each.type))
    return pa.table(columns, schema=needed)


def _all(parts: Iterator[pc.Expression]) -> pc.Expression:
    condition = next(parts)
    for part in parts:
        condition = condition & part
    return condition
