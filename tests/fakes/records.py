"""The tables in memory."""

from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, mkdtemp
from weakref import finalize

import pyarrow as pa
import pyarrow.compute as pc

from noria.adapters.tables.delta import DeltaStore
from noria.adapters.tables.parts import read_part
from noria.adapters.tables.view import meant
from noria.domain.errors import InvalidRequest
from noria.ports import Where
from noria.tables import SCHEMAS, TIME_COLUMN


class MemoryRecords:
    """Implements ports.RecordStore. `fail` names tables whose next append fails."""

    def __init__(self) -> None:
        self.fail: set[str] = set()
        self._versions: dict[str, list[pa.Table]] = {name: [] for name in SCHEMAS}
        self._applications: dict[tuple[str, str], int] = {}

    def append(self, table: str, rows: pa.Table, app_id: str, version: int) -> bool:
        if table in self.fail:
            self.fail.discard(table)
            raise InvalidRequest(f"{table} refuses.", "Try again.")
        if self.last_version(table, app_id) >= version:
            return False
        assert rows.schema.equals(SCHEMAS[table])
        self._versions[table].append(pa.concat_tables([self._at(table, None), rows]))
        self._applications[table, app_id] = version
        return True

    def replace(self, table: str, rows: pa.Table, where: Where, app_id: str, version: int) -> bool:
        if table in self.fail:
            self.fail.discard(table)
            raise InvalidRequest(f"{table} refuses.", "Try again.")
        if rows.filter(meant(table, where)).num_rows != rows.num_rows:
            raise InvalidRequest(f"Rows of {table} lie outside what they replace.", "Replace the span they are of.")
        if self.last_version(table, app_id) >= version:
            return False
        assert rows.schema.equals(SCHEMAS[table])
        kept = self._at(table, None)
        kept = kept.filter(pc.invert(pc.coalesce(meant(table, where), pc.scalar(False))))
        self._versions[table].append(pa.concat_tables([kept, rows]))
        self._applications[table, app_id] = version
        return True

    def last_version(self, table: str, app_id: str) -> int:
        return self._applications.get((table, app_id), 0)

    def scan(self, table, *, columns=None, endpoint=None, since=None, until=None, snapshot=None) -> pa.Table:
        found = self._at(table, snapshot)
        if endpoint is not None:
            found = found.filter(pc.field("endpoint") == endpoint)
        time = pc.field(*TIME_COLUMN[table].split("."))
        if since is not None:
            found = found.filter(time >= _instant(since))
        if until is not None:
            found = found.filter(time < _instant(until))
        return found.select(columns) if columns is not None else found

    def parts(self, table, endpoint, since, until, most_bytes):
        """Of the rows as they are now, in files that are there as long as this store is."""
        rows = self._at(table, None)
        folder = mkdtemp(prefix="noria-")
        finalize(self, rmtree, folder, ignore_errors=True)
        store = DeltaStore(folder)
        if rows.num_rows:
            store.append(table, rows, "memory", 1)
        return store.parts(table, endpoint, since, until, most_bytes)

    def read(self, part, columns=None):
        return read_part(part, columns)

    def query(self, sql: str) -> pa.Table:
        return self.view().query(sql)

    def view(self) -> "MemoryView":
        return MemoryView({name: self._at(name, None) for name in SCHEMAS}, dict(self._applications))

    def expire(self, table: str, endpoint: str, before: datetime) -> int:
        rows = self._at(table, None)
        old = (pc.field("endpoint") == endpoint) & (pc.field(TIME_COLUMN[table]) < _instant(before))
        gone = rows.filter(old).num_rows
        if gone:
            self._versions[table].append(rows.filter(~old))
        return gone

    def snapshot(self, table: str) -> int:
        self._known(table)
        return len(self._versions[table]) - 1

    def _known(self, table: str) -> None:
        if table not in SCHEMAS:
            raise InvalidRequest(f"There is no table {table}.", "Name one that exists.")

    def _at(self, table: str, snapshot: int | None) -> pa.Table:
        self._known(table)
        versions = self._versions[table]
        if snapshot is not None and not 0 <= snapshot < len(versions):
            raise InvalidRequest(f"{table} has no version {snapshot}.", "Name one that exists.")
        return versions[-1 if snapshot is None else snapshot] if versions else SCHEMAS[table].empty_table()


class MemoryView:
    """Implements ports.RecordView."""

    def __init__(self, tables: dict[str, pa.Table], applications: dict[tuple[str, str], int]) -> None:
        self._tables = tables
        self._applications = applications

    def last_version(self, table: str, app_id: str) -> int:
        return self._applications.get((table, app_id), 0)

    def scan(self, table, **options) -> pa.Table:
        records = MemoryRecords()
        records.append(table, self._tables[table], "memory", 1)
        return records.scan(table, **options)

    def query(self, sql: str, also=None) -> pa.Table:
        return pa.concat_tables(self.stream(sql, also))

    def stream(self, sql: str, also=None):
        with TemporaryDirectory() as folder:
            store = DeltaStore(Path(folder))
            for table, rows in self._tables.items():
                if rows.num_rows:
                    store.append(table, rows, "memory", 1)
            yield from store.view().stream(sql, also)


def _instant(moment: datetime) -> pa.Scalar:
    return pa.scalar(moment.astimezone(UTC), pa.timestamp("us", tz="UTC"))
