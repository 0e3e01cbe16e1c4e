"""The tables as SQL sees them: at one version each, with all columns of today, and with rows that aren't there yet.

Feedback is shown as what was said: a repeat isn't a second statement, and of what was said anew under one id the newest
counts.
"""

import re
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, QueryBuilder, convert_to_deltalake

from noria.domain.errors import InvalidRequest
from noria.ports import Where
from noria.tables import PARTITION, SCHEMAS, TIME_COLUMN

_QUOTED: Final = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)
_READS: Final = re.compile(r"\s*(?:select|with|explain|describe|show)\b", re.IGNORECASE)
_WRITES: Final = re.compile(
    r"\b(?:insert|update|delete|copy|create|drop|alter|truncate|merge|set|load|unload|call|grant|analyze)\b|;\s*\S",
    re.I,
)
_SMALL_STEPS: Final = ("SET datafusion.execution.batch_size = 16", "SET datafusion.execution.target_partitions = 1")
"""A few huge bodies at a time, not thousands."""
_ONE_ID: Final = "OVER (PARTITION BY request_id, feedback_id ORDER BY feedback_time, spool, sequence)"
_SAME: Final = " AND ".join(
    [
        f"((lag(feedback_id) {_ONE_ID}) IS NOT NULL)",
        *(f"({column} IS NOT DISTINCT FROM (lag({column}) {_ONE_ID}))" for column in ("label", "score", "comment")),
    ]
)
_NEWEST: Final = (
    "row_number() OVER (PARTITION BY request_id, feedback_id ORDER BY feedback_time DESC, spool DESC, sequence DESC)"
)
Also = Mapping[str, Iterable[pa.Table]]
"""Rows of tables that are not in them yet."""


class DeltaView:
    """The tables as they were when each was first looked at; implements ports.RecordView.

    Args:
        open_table: Opens a table at its newest version; None if it isn't there.
    """

    def __init__(self, open_table: Callable[[str], DeltaTable | None]) -> None:
        self._open = open_table
        self._handles: dict[str, DeltaTable | None] = {}

    def last_version(self, table: str, app_id: str) -> int:
        handle = self._handle(table)
        return 0 if handle is None else handle.transaction_version(app_id) or 0

    def scan(
        self,
        table: str,
        *,
        columns: Sequence[str] | None = None,
        endpoint: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> pa.Table:
        return scanned(table, self._handle(table), columns, *conditions(table, endpoint, since, until))

    def query(self, sql: str, also: Also | None = None) -> pa.Table:
        pieces = list(self._run(sql, also or {}, ()))
        return pa.concat_tables(pieces)

    def stream(self, sql: str, also: Also | None = None) -> Generator[pa.Table, None, None]:
        return self._run(sql, also or {}, _SMALL_STEPS)

    def _handle(self, table: str) -> DeltaTable | None:
        if table not in self._handles:
            self._handles[table] = self._open(table)
        return self._handles[table]

    def _run(self, sql: str, also: Also, settings: Sequence[str]) -> Generator[pa.Table, None, None]:
        """The answer piece by piece; the first one may be empty, so that its columns are known."""
        check(sql)
        named = [table for table in SCHEMAS if re.search(rf"\b{table}\b", sql, re.IGNORECASE)]
        builder = QueryBuilder()
        with tempfile.TemporaryDirectory(prefix="noria-") as folder:
            for table in named:
                _register(builder, table, self._handle(table), also.get(table, ()), f"{folder}/{table}")
            try:
                for setting in settings:
                    builder.execute(setting)
                reader = pa.RecordBatchReader.from_stream(builder.execute(sql))
                schema = pa.schema([pa.field(f.name, _plain(f.type), f.nullable) for f in reader.schema])
                yield schema.empty_table()
                for batch in reader:
                    yield pa.Table.from_batches([batch]).cast(schema)
            except Exception as error:  # DataFusion's errors have no type of their own
                raise InvalidRequest(f"The query can't be run: {error}", "Check its tables and columns.") from error


def check(sql: str) -> None:
    """Refuse what isn't one query that only reads.

    Raises:
        InvalidRequest: It isn't.
    """
    bare = _QUOTED.sub(" '' ", sql)
    if not _READS.match(bare) or _WRITES.search(bare):
        raise InvalidRequest("Only one query that reads can be run.", "Begin it with SELECT or WITH.")


def absent(handle: DeltaTable, table: str) -> set[str]:
    """Columns that a table made by an older version of Noria doesn't have yet; the next append adds them."""
    return set(SCHEMAS[table].names).difference(field.name for field in handle.schema().fields)


def scanned(table: str, handle: DeltaTable | None, columns: Sequence[str] | None, *parts: pc.Expression) -> pa.Table:
    """Rows of a table that meet all conditions, with nulls in the columns that it doesn't have yet."""
    schema = SCHEMAS[table]
    wanted = pa.schema([schema.field(name) for name in (columns if columns is not None else schema.names)])
    if handle is None:
        return wanted.empty_table()
    condition = None
    for part in parts:
        condition = part if condition is None else condition & part
    missing = absent(handle, table)
    found = handle.to_pyarrow_dataset().to_table(
        columns=[name for name in wanted.names if name not in missing], filter=condition
    )
    for name in missing.intersection(wanted.names):
        found = found.append_column(schema.field(name), pa.nulls(found.num_rows, schema.field(name).type))
    return found.select(wanted.names).cast(wanted)


def conditions(
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


def meant(table: str, where: Where) -> pc.Expression:
    """The rows that are meant, for Arrow."""
    condition = pc.field("endpoint") == where.endpoint
    for part in conditions(table, None, where.since, where.until):
        condition = condition & part
    for name, value in where.equal.items():
        condition = condition & (pc.field(name) == value)
    return condition


def predicate(table: str, where: Where) -> str:
    """The rows that are meant, for DataFusion; a field of a window is fetched, for a qualified name is no field."""
    column, _, member = TIME_COLUMN[table].partition(".")
    time = f"get_field({column}, '{member}')" if member else column
    parts = [
        f"endpoint = {_literal(where.endpoint)}",
        f"{time} >= {_moment(where.since)}",
        f"{time} < {_moment(where.until)}",
        *(f"{name} = {_literal(value)}" for name, value in where.equal.items()),
    ]
    for day in PARTITION.get(table, ()):  # leaves other folders alone
        parts.append(f"{day} BETWEEN DATE '{_utc(where.since):%Y-%m-%d}' AND DATE '{_utc(where.until):%Y-%m-%d}'")
    return " AND ".join(parts)


def _literal(value: str | int | bool) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value).lower()


def _moment(moment: datetime) -> str:
    return f"arrow_cast('{_utc(moment):%Y-%m-%dT%H:%M:%S.%fZ}', 'Timestamp(Microsecond, Some(\"UTC\"))')"


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def _register(
    builder: QueryBuilder, table: str, handle: DeltaTable | None, also: Iterable[pa.Table], scratch: str
) -> None:
    """Give a query a table under its own name, with all columns of today and the rows that aren't there yet."""
    schema, rows = SCHEMAS[table], iter(also)
    first = next(rows, None)
    missing = absent(handle, table) if handle is not None else set()
    if handle is not None and first is None and not missing and table != "feedback":
        builder.register(table, handle)
        return
    if first is None:
        rest = DeltaTable.create(scratch, schema=schema)
    else:
        rest = _written(scratch, schema, _chained(first, rows))
    names = [f'"{name}"' for name in schema.names]
    source = f"SELECT {', '.join(names)} FROM {table}__rest"  # noqa: S608 (names from the schema)
    builder.register(f"{table}__rest", rest)
    if handle is not None:
        builder.register(f"{table}__shipped", handle)
        known = [f'NULL AS "{name}"' if name in missing else f'"{name}"' for name in schema.names]
        source += f" UNION ALL SELECT {', '.join(known)} FROM {table}__shipped"  # noqa: S608
    if table == "feedback":
        source = _said(source, ", ".join(names))
    builder.execute(f"CREATE VIEW {table} AS {source}")


def _written(scratch: str, schema: pa.Schema, pieces: Iterable[pa.Table]) -> DeltaTable:
    """Rows as a table on disk, a row group a piece: Delta's own writer would gather all of them in memory."""
    Path(scratch).mkdir()
    with pq.ParquetWriter(f"{scratch}/rest.parquet", schema, compression="zstd", use_dictionary=False) as writer:
        for piece in pieces:
            writer.write_table(piece)
    convert_to_deltalake(scratch)
    return DeltaTable(scratch)


def _said(source: str, names: str) -> str:
    """What was said: without repeats, and of what was said under one id the newest."""
    told = f"SELECT *, {_SAME} AS again FROM ({source})"  # noqa: S608 (names from the schema)
    newest = f"SELECT *, {_NEWEST} AS place FROM ({told}) WHERE NOT again"  # noqa: S608
    return f"SELECT {names} FROM ({newest}) WHERE place = 1"  # noqa: S608


def _chained(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from rest


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
