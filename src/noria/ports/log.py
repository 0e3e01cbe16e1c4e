"""The seams of the log: spools on this machine, and the tables that they are shipped to."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from noria.domain.inference import Entry

if TYPE_CHECKING:
    import pyarrow as pa


class RecordSpool(Protocol):
    """The durable log on this machine that an API process appends to and the worker ships from."""

    @property
    def id(self) -> str:
        """Identity of the spool, which is also its application id in the tables' transaction logs."""
        ...

    async def append(self, entry: Entry) -> int:
        """Write an entry and return its sequence number once it is on disk.

        It can't be cut in two: a cancellation is raised once the entry is on disk, and not if it can't be written.

        Raises:
            LogUnavailable: It could not be written; nothing was.
        """
        ...

    def read(self, after: int, limit: int) -> Sequence[tuple[int, Entry]]:
        """Entries with a sequence number greater than `after`, in order, at most `limit`."""
        ...

    def trim(self, upto: int) -> None:
        """Forget entries up to and including that sequence number."""
        ...

    def close(self) -> None:
        """Write what waits, then close."""
        ...


@dataclass(frozen=True, slots=True)
class Poison:
    """Entries of a spool that can't be read back: numbers `first` to `last`, why, and the bytes that are left."""

    first: int
    last: int
    reason: str
    payload: bytes = b""


class SpoolReader(Protocol):
    """A spool as the worker sees it, in a process of its own."""

    @property
    def id(self) -> str:
        """Identity of the spool."""
        ...

    @property
    def sealed(self) -> bool:
        """Whether it was put aside as damaged: nothing will be appended, and its open intents live on in the
        spool that took its place."""
        ...

    def written(self) -> int:
        """The highest sequence number that was ever appended; 0 if none was."""
        ...

    def read(self, after: int, limit: int) -> Sequence[tuple[int, Entry | Poison]]:
        """What follows `after`, in order, at most `limit`; empty only at the end. A Poison has its last number.

        Raises:
            StorageCorrupted: Nothing of the file can be read.
        """
        ...

    def trim(self, upto: int) -> None:
        """Forget entries up to and including that number, as far as they can be dropped in whole groups."""
        ...

    def retire(self) -> None:
        """Take a sealed spool whose entries are all shipped out of sight; its file is kept."""
        ...


class RecordView(Protocol):
    """The tables at one version each: as they were when each was first looked at."""

    def last_version(self, table: str, app_id: str) -> int:
        """The highest version that had been written for `app_id`; 0 if none."""
        ...

    def scan(
        self,
        table: str,
        *,
        columns: Sequence[str] | None = None,
        endpoint: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> "pa.Table":
        """Rows of a table, as in `RecordStore.scan`."""
        ...

    def query(self, sql: str, also: "Mapping[str, Iterable[pa.Table]] | None" = None) -> "pa.Table":
        """Run a read-only SQL query in which the tables have their own names.

        Feedback shows one row for each id: repeats left out, the newest of what was said.

        Args:
            sql: The query.
            also: Rows of tables that aren't in them yet; the query sees both as one.

        Raises:
            InvalidRequest: It can't be run, or would change something.
        """
        ...

    def stream(
        self, sql: str, also: "Mapping[str, Iterable[pa.Table]] | None" = None
    ) -> "Generator[pa.Table, None, None]":
        """The same piece by piece in bounded memory; the first piece is there even if nothing was found."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFile:
    """A Parquet file of a table.

    Attributes:
        path: Below the table's root.
        size: Bytes on disk.
        partition: Values of the columns that the file itself doesn't hold, as the table's log writes them.
    """

    path: str
    size: int
    partition: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some of a table's files at one version, and which of their rows are meant: what one task reads.

    Attributes:
        table: The table's name.
        root: Path or URL of its folder.
        snapshot: Version of the table.
        files: None is in two parts of the same call.
        endpoint: Whose rows.
        since: Their time, included.
        until: Their time, excluded.
    """

    table: str
    root: str
    snapshot: int
    files: tuple[PartFile, ...]
    endpoint: str
    since: datetime
    until: datetime

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.size for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        times = {"since": self.since.isoformat(), "until": self.until.isoformat()}
        return asdict(self) | times | {"files": [asdict(file) for file in self.files]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Part":
        """What `to_json` gave."""
        times = {name: datetime.fromisoformat(values[name]) for name in ("since", "until")}
        return cls(**{**values, **times, "files": tuple(PartFile(**file) for file in values["files"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Which rows of a table are meant: an endpoint's in a span of the table's time, and equal in some columns.

    Attributes:
        endpoint: Its name.
        since: Start of the span, included.
        until: End of the span, excluded.
        equal: Column → the value that a row has to have there.
    """

    endpoint: str
    since: datetime
    until: datetime
    equal: Mapping[str, str | int | bool] = field(default_factory=dict)


class RecordStore(Protocol):
    """The tables: inference, feedback, monitor_states, profile_metrics, drift_metrics, dead_letter."""

    def append(self, table: str, rows: "pa.Table", app_id: str, version: int) -> bool:
        """Append rows exactly once for this `(app_id, version)`; False if that version was written before."""
        ...

    def replace(self, table: str, rows: "pa.Table", where: Where, app_id: str, version: int) -> bool:
        """Put rows in the place of all that `where` means, in one transaction and once for this `(app_id, version)`.

        Returns:
            False if that version was written before; then nothing is changed.

        Raises:
            InvalidRequest: A row isn't one that `where` means: it would not be replaced the next time.
        """
        ...

    def last_version(self, table: str, app_id: str) -> int:
        """The highest version written for `app_id`; 0 if none."""
        ...

    def scan(
        self,
        table: str,
        *,
        columns: Sequence[str] | None = None,
        endpoint: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        snapshot: int | None = None,
    ) -> "pa.Table":
        """Rows of a table, filtered by endpoint and by its time column (`since` included, `until` excluded).

        An absent table is an empty one with the right columns. `snapshot` reads an older table version.
        """
        ...

    def parts(self, table: str, endpoint: str, since: datetime, until: datetime, most_bytes: int) -> Sequence[Part]:
        """What a scan would read, cut for many tasks: the files of the table's current version, oldest first.

        Files that hold none of the rows are left out as far as the table's log tells. What is appended or deleted
        later changes nothing, and the files stay until they are tidied away, hours later.

        Args:
            table: Which table.
            endpoint: Whose rows.
            since: From when, included.
            until: Until when, excluded.
            most_bytes: Bytes on disk that a part may have; a larger file is a part of its own.

        Raises:
            InvalidRequest: The table is not one whose files hold its rows as they are (deletion vectors, renamed
                columns).
        """
        ...

    def read(self, part: Part, columns: Sequence[str] | None = None) -> "Iterator[pa.Table]":
        """The rows of a part, some megabytes at a time; never an empty table.

        Raises:
            Conflict: A file is gone: the table was tidied since the part was cut.
            StorageCorrupted: A file can't be read.
        """
        ...

    def query(self, sql: str) -> "pa.Table":
        """Run a read-only SQL query in which the tables have their own names."""
        ...

    def view(self) -> RecordView:
        """The tables as they are now, for several looks at the same rows."""
        ...

    def expire(self, table: str, endpoint: str, before: datetime) -> int:
        """Delete an endpoint's rows whose time is earlier, and return how many they were.

        Who reads an older snapshot still sees them until its files are tidied away.
        """
        ...

    def snapshot(self, table: str) -> int:
        """The table's current version, for reproducible reads; -1 if it does not exist."""
        ...
