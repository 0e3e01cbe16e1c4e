"""The tables in memory."""

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc

from noria.adapters.delta import DeltaStore
from noria.domain.errors import InvalidRequest
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

    def query(self, sql: str) -> pa.Table:
        with TemporaryDirectory() as folder:
            store = DeltaStore(Path(folder))
            for table, versions in self._versions.items():
                if versions:
                    store.append(table, versions[-1], "memory", 1)
            return store.query(sql)

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


def _instant(moment: datetime) -> pa.Scalar:
    return pa.scalar(moment.astimezone(UTC), pa.timestamp("us", tz="UTC"))
