"""Spools and tables read as one: what was answered a moment ago shows, shipped or not, and each request once.

The spools are read first and the tables looked at afterwards. So what is shipped meanwhile is in both, and is left out
of one of them: a table's transaction log says up to which number it has a spool's entries. Nothing is written anywhere
but in a scratch folder, and it makes no difference whether the worker runs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from noria.domain.errors import StorageCorrupted
from noria.domain.inference import Feedback, Intent, Outcome, OutcomeKind
from noria.ports import RecordStore, RecordView, SpoolReader
from noria.serving.log import rows
from noria.serving.log.rows import Answered, Said
from noria.serving.log.shipping import application

_AT_ONCE: Final = 4096
"""Entries read at a time."""
TABLES: Final = ("inference", "feedback")
"""What is on its way from the spools."""
Readers = Callable[[], AbstractContextManager[Iterable[SpoolReader]]]
"""Opens the spools that are there now, to look at only."""


@dataclass(slots=True)
class Place:
    """How far a spool has been looked through.

    Attributes:
        read: Last number read.
        open: Intents without an outcome so far.
    """

    read: int = 0
    open: dict[str, Intent] = field(default_factory=dict)


class Log:
    """The log as people read it.

    Args:
        readers: The spools.
        store: The tables.
        waiting: How many damaged spool files can't be looked at before the worker has saved what can be saved.
    """

    def __init__(self, readers: Readers, store: RecordStore, waiting: Callable[[], int] = int) -> None:
        self._readers = readers
        self._waiting = waiting
        self._store = store
        self.problems: tuple[str, ...] = ()
        """What of the spools could not be read at the last look, in words."""

    def query(self, sql: str) -> pa.Table:
        """Run a read-only SQL query over both.

        Raises:
            InvalidRequest: It can't be run, or would change something.
        """
        with self._looked() as (view, also):
            return view.query(sql, also)

    @contextmanager
    def stream(self, *queries: str) -> Iterator[Sequence[Iterator[pa.Table]]]:
        """Run queries over the same rows; each answer comes piece by piece, in bounded memory."""
        with self._looked() as (view, also):
            streams = [view.stream(sql, {table: _read(rows_) for table, rows_ in also.items()}) for sql in queries]
            with ExitStack() as stack:
                for stream in streams:
                    stack.enter_context(closing(stream))
                yield streams

    @contextmanager
    def _looked(self) -> Iterator[tuple[RecordView, dict[str, "_Unshipped"]]]:
        """The tables, and what is in the spools and not in them."""
        with TemporaryDirectory(prefix="noria-") as folder:
            found = {table: _Unshipped(table, Path(folder) / table) for table in TABLES}
            problems = []
            with self._readers() as readers:
                for reader in readers:
                    try:
                        for table, piece in pieces(reader, Place()):
                            found[table].add(piece)
                    except StorageCorrupted as error:
                        problems.append(str(error))
            if damaged := self._waiting():
                problems.append(
                    f"{damaged} damaged spool files wait in quarantine, and what is in them doesn't show yet; "
                    "noria up saves and ships it."
                )
            self.problems = tuple(problems)
            view = self._store.view()
            for unshipped in found.values():
                unshipped.close(view)
            yield view, {table: unshipped for table, unshipped in found.items() if unshipped.any}


class _Unshipped:
    """Rows of one table from the spools, on disk, without those that a view of the table has; can be read again."""

    def __init__(self, table: str, path: Path) -> None:
        self._table = table
        self._path = path
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self._shipped: dict[str, int] = {}
        self._spools: set[str] = set()
        self._known: set[str] = set()
        self._lost: list[tuple[str, datetime]] = []

    @property
    def any(self) -> bool:
        """Whether there were rows at all."""
        return self._writer is not None

    def add(self, piece: pa.Table) -> None:
        """Take rows of one spool along."""
        if self._writer is None:
            self._writer = pa.ipc.new_stream(str(self._path), piece.schema)
        self._writer.write_table(piece)
        self._spools.update(piece["spool"].unique().to_pylist())
        if self._table == "inference":
            lost = piece.filter(pc.field("outcome") == OutcomeKind.INTERRUPTED.value)
            ids, times = lost["databricks_request_id"].to_pylist(), lost["request_time"].to_pylist()
            self._lost += zip(ids, times, strict=True)

    def close(self, view: RecordView) -> None:
        """All rows are there; leave out what the view has."""
        if self._writer is None:
            return
        self._writer.close()
        self._shipped = {
            spool: view.last_version(self._table, application(spool, self._table)) for spool in self._spools
        }
        if self._lost:  # looks interrupted, but its true end may have been shipped before it was lost on disk
            times = sorted(time for _, time in self._lost)
            found = view.scan(
                "inference",
                columns=["databricks_request_id"],
                since=times[0],
                until=times[-1] + timedelta(microseconds=1),
            )
            self._known = {name for name, _ in self._lost}.intersection(found["databricks_request_id"].to_pylist())

    def __iter__(self) -> Iterator[pa.Table]:
        with pa.ipc.open_stream(str(self._path)) as reader:
            for batch in reader:
                piece = pa.Table.from_batches([batch])
                fresh = [
                    number > self._shipped[spool]
                    for spool, number in zip(piece["spool"].to_pylist(), piece["sequence"].to_pylist(), strict=True)
                ]
                piece = piece.filter(pa.array(fresh, pa.bool_()))
                if self._known:
                    again = pc.is_in(piece["databricks_request_id"], pa.array(self._known, pa.string()))
                    piece = piece.filter(pc.invert(pc.and_(again, pc.equal(piece["outcome"], "interrupted"))))
                if piece.num_rows:
                    yield piece


def _read(found: Iterable[pa.Table]) -> Iterator[pa.Table]:
    yield from found


def pieces(reader: SpoolReader, place: Place) -> Iterator[tuple[str, pa.Table]]:
    """Rows of the tables from a spool, from a place on, which moves along."""
    while found := reader.read(place.read, _AT_ONCE):
        answered, said = list[Answered](), list[Said]()
        for number, entry in found:
            if isinstance(entry, Intent):
                place.open[entry.request_id] = entry
            elif isinstance(entry, Outcome):
                if (intent := place.open.pop(entry.request_id, None)) is not None:
                    answered.append((number, intent, entry))
            elif isinstance(entry, Feedback):
                said.append((number, entry))
        place.read = found[-1][0]
        if answered:
            yield "inference", rows.inference(reader.id, answered)[0]
        if said:
            yield "feedback", rows.feedback(reader.id, said)[0]
