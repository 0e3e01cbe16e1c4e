"""Carries the spools' entries into the tables: each exactly once, and none lost, whenever the worker dies.

A batch goes to the dead letters first, then to the feedback, then to the inference table, each time in one
transaction that holds the batch's last sequence number under the spool's own application id. After a crash the
tables say how far they are, and only what is beyond that is written. A spool is trimmed when the tables have it, and
never beyond the oldest request that is still under way: its outcome will need its intent.
"""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from noria.domain.errors import NoriaError
from noria.domain.inference import Entry, Feedback, Intent, Outcome, OutcomeKind
from noria.domain.status import SpoolStatus
from noria.ports import Clock, Poison, RecordStore, SpoolReader
from noria.serving.log import rows
from noria.serving.log.rows import Answered, Dead

if TYPE_CHECKING:
    import pyarrow as pa

_LATER: Final = bytes(bytearray(b"read again when its outcome comes"))
"""Stands for a long request's body while it is under way: whoever waits for thousands of them would fill the memory."""
_LONG_BYTES: Final = 64 << 10
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TABLES: Final = ("dead_letter", "feedback", "inference")
"""In the order in which a batch is written. An outcome at or before the inference table's version is therefore on
record for certain: in that table, or in the dead letters, which were written before it."""


@dataclass(slots=True)
class _Progress:
    """How far one spool is.

    Attributes:
        written: Table → last sequence number that its transaction log holds for this spool.
        read: Last sequence number read by this process.
        shipped: Last sequence number in the tables.
        open: Request id → number and intent of the requests under way, oldest first.
        event_us: When the last entry read was made, microseconds since the epoch.
        complete_until_us: Up to this moment everything in the spool is in the tables; None while that isn't known.
    """

    written: dict[str, int] = field(default_factory=dict)
    read: int = 0
    shipped: int = 0
    open: dict[str, tuple[int, Intent]] = field(default_factory=dict)
    event_us: int = 0
    complete_until_us: int | None = None


@dataclass(slots=True)
class _Batch:
    """What one read of a spool brings for the tables."""

    answered: list[Answered] = field(default_factory=list)
    feedback: list[tuple[int, Feedback]] = field(default_factory=list)
    dead: list[Dead] = field(default_factory=list)


class Shipper:
    """Ships all spools of a project. One per project, called by one thread.

    Args:
        readers: The spools that are there now.
        store: Where their entries go.
        clock: For the watermark and the time at which a dead letter was found.
        grace: Longest time between a request's arrival and its intent on disk.
        told: Hears of requests once they are in the tables; at most once of each, and it must not wait or raise.
        arriving: Hears of rows before they are in a table, by the table's name, so that whoever keeps sums of a table
            knows what will be missing in them even if the worker dies at this moment; maybe more than once of each.
    """

    def __init__(
        self,
        readers: Callable[[], Iterable[SpoolReader]],
        store: RecordStore,
        clock: Clock,
        grace: timedelta = timedelta(seconds=1),
        told: Callable[[Sequence[Answered]], None] | None = None,
        arriving: "Callable[[str, pa.Table], None] | None" = None,
    ) -> None:
        self._readers = readers
        self._store = store
        self._clock = clock
        self._told = told
        self._arriving = arriving
        self._grace_us = int(grace.total_seconds() * 1e6)
        self._progress: dict[str, _Progress] = {}
        self._turned = False
        self._alone_until_us = 0
        self.problems: tuple[str, ...] = ()
        """What could not be done at the last turn, in words; it is tried again at the next."""

    def turn(self, limit: int = 20_000) -> Mapping[str, SpoolStatus]:
        """Ship what is there, at most `limit` entries of each spool; returns how far each spool is.

        A spool that can't be read or a table that can't be written holds nobody else up: see `problems`.
        """
        problems: list[str] = []
        statuses: dict[str, SpoolStatus] = {}
        self._alone_until_us = self._clock.now_us() - self._grace_us
        seen: set[str] = set()
        for reader in self._readers():
            seen.add(reader.id)
            try:
                with _no_collection():
                    statuses[reader.id] = self._ship(reader, limit)
            except NoriaError as error:
                problems.append(str(error))
        for gone in self._progress.keys() - seen:
            del self._progress[gone]
        self.problems = tuple(problems)
        self._turned = True
        return statuses

    def watermark(self) -> datetime | None:
        """The moment up to which every request and every feedback is in the tables; None while that isn't known."""
        if not self._turned:
            return None
        moments = [progress.complete_until_us for progress in self._progress.values()]
        if any(moment is None for moment in moments):
            return None
        earliest = min((moment for moment in moments if moment is not None), default=self._alone_until_us)
        return _moment(earliest)

    def _ship(self, reader: SpoolReader, limit: int) -> SpoolStatus:
        """One spool's turn."""
        progress = self._progress.setdefault(reader.id, _Progress())
        if not progress.written:
            progress.written = {
                table: self._store.last_version(table, application(reader.id, table)) for table in _TABLES
            }
            progress.shipped = max(progress.written.values())
        now_us, room, drained = self._clock.now_us(), limit, False
        end = reader.written()  # what comes meanwhile is the next turn's, or a turn under steady load would never end
        while room > 0 and not drained:
            found = reader.read(progress.read, room)
            room -= len(found)
            if found:
                self._carry(reader, found, progress)
            drained = not found or (not reader.sealed and progress.read >= end)
        progress.complete_until_us = self._complete_until(progress, now_us if drained else progress.event_us)
        status = SpoolStatus(
            written=max(reader.written(), progress.shipped), shipped=progress.shipped, open_intents=len(progress.open)
        )
        self._trim(reader, progress, drained)
        return status

    def _carry(self, reader: SpoolReader, found: Sequence[tuple[int, Entry | Poison]], progress: _Progress) -> None:
        """Write a read's entries into the tables. If that fails, nothing is remembered and the read is repeated."""
        batch, opened = _Batch(), dict(progress.open)
        for number, entry in found:
            if isinstance(entry, Intent):
                opened[entry.request_id] = (number, entry)
            elif isinstance(entry, Outcome):
                self._end(number, entry, _whole(reader, opened.pop(entry.request_id, None)), batch, progress)
            elif isinstance(entry, Feedback):
                if number > progress.written["feedback"]:
                    batch.feedback.append((number, entry))
            elif number > progress.written["dead_letter"]:
                batch.dead.append(rows.poisoned(entry, shipped=progress.written["inference"]))
        last = found[-1][0]
        self._write(reader.id, batch, last, progress)
        opened = {name: (begun, _lean(intent)) for name, (begun, intent) in opened.items()}
        progress.open, progress.read, progress.shipped = opened, last, max(progress.shipped, last)
        progress.event_us = next(filter(None, (_made_us(entry) for _, entry in reversed(found))), progress.event_us)

    @staticmethod
    def _end(
        number: int, outcome: Outcome, begun: tuple[int, Intent] | None, batch: _Batch, progress: _Progress
    ) -> None:
        """Put an outcome where it belongs, unless it is there already."""
        if number <= progress.written["inference"]:
            return
        if begun is not None:
            batch.answered.append((number, begun[1], outcome))
        elif number > progress.written["dead_letter"]:
            batch.dead.append(rows.without_intent(number, outcome))

    def _write(self, spool: str, batch: _Batch, last: int, progress: _Progress) -> None:
        """Write a batch into the tables, in their order."""
        ended = self._not_again(batch.answered)
        answered, strange_answers = rows.inference(spool, ended)
        feedback, strange_feedback = rows.feedback(spool, batch.feedback)
        dead = [
            *batch.dead,
            *(d for d in strange_answers + strange_feedback if d.number > progress.written["dead_letter"]),
        ]
        letters = rows.dead_letters(spool, dead, self._clock.now_us())
        for table, arrow in zip(_TABLES, (letters, feedback, answered), strict=True):
            if arrow.num_rows:
                if self._arriving is not None and table != "dead_letter":
                    self._arriving(table, arrow)
                self._store.append(table, arrow, application(spool, table), last)
                progress.written[table] = last
        if self._told is not None:
            self._told(ended)

    def _not_again(self, answered: list[Answered]) -> list[Answered]:
        """Without requests that look interrupted because their outcome was lost on disk after it had been shipped."""
        suspects = [intent.received_us for _, intent, outcome in answered if _looks_lost(intent, outcome)]
        if not suspects:
            return answered
        since, until = _moment(min(suspects)), _moment(max(suspects) + 1)
        shipped = self._store.scan("inference", columns=["databricks_request_id"], since=since, until=until)
        known = set(shipped["databricks_request_id"].to_pylist())
        return [a for a in answered if not _looks_lost(a[1], a[2]) or a[1].request_id not in known]

    def _trim(self, reader: SpoolReader, progress: _Progress, drained: bool) -> None:
        """Drop what is in the tables; a damaged spool that has given all goes as a whole."""
        if reader.sealed:
            if drained:
                reader.retire()
                del self._progress[reader.id]
            return
        oldest = min((number for number, _ in progress.open.values()), default=progress.read + 1)
        reader.trim(min(progress.read, oldest - 1))

    def _complete_until(self, progress: _Progress, moment_us: int) -> int:
        """The end of what is complete, when everything that was made before a moment has been read."""
        begun = (intent.received_us for _, intent in progress.open.values())
        return min([moment_us - self._grace_us, *begun])


def _lean(intent: Intent) -> Intent:
    """An intent to be kept in memory until its outcome comes."""
    return replace(intent, request=_LATER) if len(intent.request) > _LONG_BYTES else intent


def _whole(reader: SpoolReader, begun: tuple[int, Intent] | None) -> tuple[int, Intent] | None:
    """The intent as its spool has it, which is never trimmed beyond a request under way; None if it is lost."""
    if begun is None or begun[1].request is not _LATER:
        return begun
    number, lean = begun
    found = reader.read(number - 1, 1)
    entry = found[0][1] if found and found[0][0] == number else None
    return (number, entry) if isinstance(entry, Intent) and entry.request_id == lean.request_id else None


def application(spool: str, table: str) -> str:
    """Identity of a spool in a table's transaction log, whose version is the last number that the table has of it."""
    return f"{spool}:{table}"


def _looks_lost(intent: Intent, outcome: Outcome) -> bool:
    return outcome.kind is OutcomeKind.INTERRUPTED and 0 <= intent.received_us < rows.LATEST_US


def _moment(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


def _made_us(entry: Entry | Poison) -> int:
    """When an entry was made; 0 if it doesn't say."""
    if isinstance(entry, Outcome):
        return entry.finished_us
    return 0 if isinstance(entry, Poison) else entry.received_us


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from walking a batch's many living objects over and over: a quarter of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
