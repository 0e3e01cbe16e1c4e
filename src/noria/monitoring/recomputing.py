"""Computes windows of one watch, puts their rows in place of what was there, and folds the evidence over them.

The one way in which rows of the monitoring tables come about: a window that has just closed, one that is closed again
and a span of the past differ only in how many windows they are.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import groupby, pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from noria.domain.errors import Conflict, StorageCorrupted
from noria.domain.monitor import MonitorState, Watch, Window
from noria.evaluation.baseline import Baseline
from noria.evaluation.profile import Row
from noria.evaluation.sequential import log_threshold
from noria.evaluation.states import ColumnState
from noria.monitoring.baselines import Baselines
from noria.monitoring.computing import TABLE, Key
from noria.monitoring.counting import Counting
from noria.monitoring.evidence import Folded, begin, fold
from noria.monitoring.keeping import (
    SCORE,
    SCORES,
    Kept,
    in_window,
    keep,
    newest_before,
    read,
    settled,
    table_of,
    together,
)
from noria.monitoring.reading import read_judgements
from noria.monitoring.rows import BASELINE, INPUT, evidence_columns, granularity
from noria.monitoring.tables import Groups, drift_rows, drift_table, grouped, profile_rows_of
from noria.monitoring.watches import settings_of
from noria.monitoring.watching import Watched, watched
from noria.ports import RecordStore, Where
from noria.settings import Endpoint
from noria.settings.monitors import JUDGE
from noria.tables import PROFILE_METRICS

Told = Callable[[int], None]
"""Is told how many windows are done."""
QUALITY = (
    "accuracy_score", "precision", "recall", "f1_score", "roc_auc_score", "log_loss", "confusion_matrix",
)  # fmt: skip
"""Columns of `profile_metrics` that say how right answers were; they come later, with the labels."""
EXACT = ("count", "num_nulls", "num_nan", "num_zeros", "min", "max", "avg_length", "distinct_count")
SKETCHED = ("quantiles", "median", "frequent_items")
"""Columns that tell whether a profile is of the same values, and those that chance or the order have a part in."""
AT_A_TIME = 48
"""Windows whose kept states are in memory at once."""
_MOMENT = timedelta(microseconds=1)


class Raced(Conflict):
    """Somebody else wrote the endpoint's windows meanwhile."""


@dataclass(slots=True)
class Writer:
    """Replaces an endpoint's rows, and notices if somebody else does so meanwhile."""

    records: RecordStore
    endpoint: str
    _versions: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for table in ("monitor_states", "profile_metrics", "drift_metrics"):
            self._versions[table] = self.records.last_version(table, self._name)

    def replace(self, table: str, rows: pa.Table, windows: Sequence[Window], **equal: str | bool) -> None:
        """Put rows in the place of those of some windows.

        Raises:
            Raced: Somebody else wrote since this writer began.
        """
        where = Where(endpoint=self.endpoint, since=windows[0].start, until=windows[-1].start + _MOMENT, equal=equal)
        self._versions[table] += 1
        if not self.records.replace(table, rows, where, self._name, self._versions[table]):
            raise Raced(f"Somebody else computes windows of {self.endpoint} at this moment.", "Try again in a while.")

    @property
    def _name(self) -> str:
        return f"monitor:{self.endpoint}"


@dataclass(frozen=True, slots=True)
class Recomputing:
    """Computes windows."""

    records: RecordStore
    counting: Counting
    baselines: Baselines

    def windows(
        self,
        endpoint: Endpoint,
        watch: Watch,
        windows: Sequence[Window],
        states: Mapping[str, MonitorState],
        told: Told = lambda _: None,
    ) -> "Done":
        """Compute windows of a watch and fold them in.

        Args:
            endpoint: The endpoint's settings.
            watch: Which all of them belong to.
            windows: In order.
            states: Monitor → its state, as far as it has been folded; where that is beyond the first of these windows,
                it is folded anew from the beginning of the watch.
            told: Is told how many of the windows are computed.

        Raises:
            Raced: Somebody else computed windows of the endpoint meanwhile.
            StorageCorrupted: The baseline can't be read; the windows' profiles are written nevertheless.
        """
        writer, broken = Writer(self.records, watch.endpoint), None
        try:
            baseline = self.baselines.of(watch.model, watch.version, settings_of(watch))
        except StorageCorrupted as error:
            baseline, broken = None, error
        rows, held, done = 0, None, 0
        for some in _chunks(windows):
            counts = self._count(writer, endpoint, watch, baseline, some)
            rows += sum(counts.values())
            held = max((window for window, number in counts.items() if number), default=held)
            told(done := done + len(some))
        if broken is not None:
            raise broken
        return Done(self._fold(writer, watch, baseline, windows, states), held, rows)

    def _count(
        self, writer: Writer, endpoint: Endpoint, watch: Watch, baseline: Baseline | None, windows: Sequence[Window]
    ) -> Mapping[Window, int]:
        """Compute windows from records and write what is kept of them and their profiles; window → its requests."""
        commit = self.records.snapshot("inference")
        counted = self.counting.states(watch.endpoint, endpoint, settings_of(watch), windows, baseline)
        kept = keep(counted, baseline) | self._judged(watch, windows)
        if windows[0].start < watch.counted_until:
            until = windows[-1].start + _MOMENT
            kept = settled(kept, read(self.records, watch.endpoint, windows[0].start, until))
        versions = dict.fromkeys(windows, watch.monitor_version)
        writer.replace("monitor_states", table_of(watch.endpoint, kept, versions), windows, summed=False)
        everyone = together(kept)
        for length, some in _by_length(windows):
            self._profile(writer, watch, some, everyone, commit, length)
        found = dict.fromkeys(windows, 0)
        for key, state in counted.items():
            found[key.window] += state.count if _is_row(key) else 0
        return found

    def _profile(
        self,
        writer: Writer,
        watch: Watch,
        windows: Sequence[Window],
        kept: Mapping[Key, Kept],
        commit: int,
        length: str,
    ) -> None:
        """Write the profiles of windows of one length. What was measured of their answers' quality stays: it depends on
        what people said, not on these states; what chance has a part in stays where nothing else changed."""
        since, until = windows[0].start, windows[-1].start + _MOMENT
        before = self.records.scan("profile_metrics", endpoint=watch.endpoint, since=since, until=until).to_pylist()
        known = {_of_row(row): row for row in before if row["granularity"] == length}
        rows = profile_rows_of(watch, windows, kept, commit)
        settled_rows = [row | _stays(row, known.get(_of_row(row))) for row in rows]
        table = pa.Table.from_pylist(settled_rows, schema=PROFILE_METRICS)
        writer.replace("profile_metrics", table, windows, granularity=length, log_type=INPUT)

    def sum_up(self, watch: Watch, window: Window) -> None:
        """Compute a longer window from what was kept of the shorter ones in it."""
        writer = Writer(self.records, watch.endpoint)
        baseline = self.baselines.of(watch.model, watch.version, settings_of(watch))
        kept = in_window(read(self.records, watch.endpoint, window.start, window.end), window)
        kept = settled(kept, read(self.records, watch.endpoint, window.start, window.start + _MOMENT, of_windows=True))
        length = granularity(window.end - window.start)
        rows = table_of(watch.endpoint, kept, {window: watch.monitor_version}, of_windows=True)
        writer.replace("monitor_states", rows, [window], summed=True, granularity=length)
        everyone, commit = together(kept), self.records.snapshot("inference")
        self._profile(writer, watch, [window], everyone, commit, length)
        before = Window(window.start - (window.end - window.start), window.start)
        earlier = read(self.records, watch.endpoint, before.start, before.start + _MOMENT, of_windows=True)
        earlier = {key: each for key, each in earlier.items() if key.window == before}
        monitors = watched(baseline, settings_of(watch))
        found = drift_rows(
            watch,
            baseline,
            monitors,
            grouped(everyone, window),
            window,
            {},
            (before, grouped(together(earlier), before)) if earlier else None,
        )
        unwatched = [row | {"monitor": None} for row in found]
        writer.replace("drift_metrics", drift_table(unwatched), [window], granularity=length)

    def _judged(self, watch: Watch, windows: Iterable[Window]) -> dict[Key, Kept]:
        """What people, and the judges that are watched, said in each window of the champion's answers."""
        sources = {SCORE: "", **{name: name for name in settings_of(watch).watch if name.startswith(JUDGE)}}
        found = {}
        for window in windows:
            for column, source in sources.items():
                said = read_judgements(self.records, watch.endpoint, window.start, window.end, watch.ref, judge=source)
                if said:
                    scores = pa.array([each.score for each in said], pa.float64())
                    state = ColumnState.of(column, scores, SCORES.cells)
                    found[Key(window, watch.ref, "", "", column)] = Kept(state, SCORES.digest)
        return found

    def _fold(
        self,
        writer: Writer,
        watch: Watch,
        baseline: Baseline | None,
        windows: Sequence[Window],
        states: Mapping[str, MonitorState],
    ) -> list[Folded]:
        """Fold the windows in, from where each monitor is or from the beginning, and write the drift rows of all
        windows that this changes."""
        wanted = settings_of(watch)
        monitors = watched(baseline, wanted)
        threshold = log_threshold(wanted.alpha, len(wanted.watch))
        known = {m.name: s for m in monitors if (s := states.get(m.name)) is not None and _goes_on(s, m, windows[0])}
        anew = any(m.name in states and m.name not in known for m in monitors) or (
            not states and (watch.since < windows[0].start or watch.counted_until > windows[-1].end)
        )
        now = {} if anew else known
        for monitor in monitors:
            since = max(watch.since, monitor.reference.since or watch.since)
            now.setdefault(monitor.name, begin(watch, monitor, since, threshold))
        first = watch.since if anew else windows[0].start
        every = sorted({*self._kept_windows(watch, first), *windows}) if anew else list(windows)
        path: dict[str, list[MonitorState]] = {monitor.name: [] for monitor in monitors}
        past = _Past(self, watch, every, windows)
        for some in _chunks(every):
            kept = past.read(some, [monitor.column for monitor in monitors])
            folded = {m.name: fold(now[m.name], m, some, kept, watch.ref) for m in monitors}
            now = {name: each.last for name, each in folded.items()}
            for name, each in folded.items():
                path[name] += each.states
            rows: list[Row] = []
            for number, window in enumerate(some):
                evidence = {name: each.states[number] for name, each in folded.items()}
                if window in past.anew:
                    rows += drift_rows(
                        watch, baseline, monitors, grouped(kept, window), window, evidence, past.before(window)
                    )
                elif window.start >= windows[0].start:
                    rows += past.told(window, evidence)
            rewritten = [window for window in some if window.start >= windows[0].start]
            for length, part in _by_length(rewritten):
                mine = [row for row in rows if row["granularity"] == length]
                writer.replace("drift_metrics", drift_table(mine), part, granularity=length)
        until = max(watch.counted_until, windows[-1].end)
        for states_of in path.values():  # windows that held nothing are over, too
            states_of[-1] = replace(states_of[-1], folded_until=until)
        return [Folded(monitor, path[monitor.name]) for monitor in monitors]

    def _kept_windows(self, watch: Watch, since: Any) -> Iterator[Window]:
        """Windows of the watch that something was kept of."""
        rows = self.records.scan(
            "monitor_states",
            columns=["window", "summed"],
            endpoint=watch.endpoint,
            since=since,
            until=max(watch.counted_until, since),
        )
        mine = rows.filter(pc.invert(rows["summed"]))["window"].combine_chunks()
        ends = pa.table({name: pc.struct_field(mine, name) for name in ("start", "end")})
        for row in ends.group_by(["start", "end"]).aggregate([]).to_pylist():
            yield Window(row["start"], row["end"])

    def held_before(self, watch: Watch, first: Window) -> Window | None:
        """The newest window before which held anything."""
        held = watch.held
        if held is None or held.start >= first.start or watch.counted_until > first.start:
            held = newest_before(self.records, watch.endpoint, first.start)
        return held

    def groups_of(self, watch: Watch, window: Window) -> Groups:
        """What was kept of a window."""
        return grouped(together(read(self.records, watch.endpoint, window.start, window.start + _MOMENT)), window)


class _Past:
    """What was kept of the windows that are folded, a chunk at a time.

    Only windows that were computed, and those that follow one, have drift rows made anew: of all later ones only the
    evidence is another.
    """

    def __init__(self, room: Recomputing, watch: Watch, every: Sequence[Window], computed: Sequence[Window]) -> None:
        self._room, self._watch = room, watch
        following = {later for earlier, later in pairwise(every) if earlier in set(computed)}
        self.anew = {*computed, *following}
        self._computed = set(computed)
        self._held = room.held_before(watch, every[0])
        self._kept: dict[Key, Kept] = {}
        self._chunk: list[Window] = []
        self._rows: dict[Window, list[Row]] = {}

    def read(self, windows: Sequence[Window], columns: Sequence[str]) -> dict[Key, Kept]:
        """What was kept of a chunk of windows: all of it where rows are made anew, else of the columns that are
        watched."""
        records, name = self._room.records, self._watch.endpoint
        since, until = windows[0].start, windows[-1].start + _MOMENT
        self._held = self._chunk[-1] if self._chunk else self._held
        whole = not self.anew.intersection(windows)
        wanted = columns if whole else None
        self._kept = together(read(records, name, since, until, whole=whole, columns=wanted))
        self._rows = {}
        if any(window not in self.anew for window in windows):
            lengths = {window: granularity(window.end - window.start) for window in windows}
            for row in records.scan("drift_metrics", endpoint=name, since=since, until=until).to_pylist():
                window = Window(row["window"]["start"], row["window"]["end"])
                if lengths.get(window) == row["granularity"]:
                    self._rows.setdefault(window, []).append(row)
        held = {key.window for key in self._kept}
        self._chunk = [window for window in windows if window in held or window not in self._computed]
        return self._kept

    def before(self, window: Window) -> tuple[Window, Groups] | None:
        """The newest window before which held anything, and what was kept of it."""
        earlier = [held for held in self._chunk if held < window]
        held = earlier[-1] if earlier else self._held
        if held is None:
            return None
        return held, grouped(self._kept, held) if earlier else self._room.groups_of(self._watch, held)

    def told(self, window: Window, evidence: Mapping[str, MonitorState]) -> Iterator[Row]:
        """The drift rows that a window has, with the evidence of today."""
        for row in self._rows.get(window, ()):
            state = evidence.get(row["monitor"]) if row["drift_type"] == BASELINE and not row["slice_key"] else None
            yield row if state is None else row | evidence_columns(state)


@dataclass(frozen=True, slots=True)
class Done:
    """What became of windows.

    Attributes:
        folded: Every monitor after them.
        held: The newest of them that holds anything.
        records: Requests in them.
    """

    folded: Sequence[Folded]
    held: Window | None
    records: int


def _goes_on(state: MonitorState, monitor: Watched, first: Window) -> bool:
    """Whether a monitor's state is of the same cells, and of nothing later than a window."""
    same = monitor.kind.bets or len(state.counts) in (0, len(monitor.reference.counts))
    return same and state.kind is monitor.kind and state.folded_until <= first.start


def _by_length(windows: Iterable[Window]) -> Iterator[tuple[str, list[Window]]]:
    """Windows of the same length, in order."""

    def length(window: Window) -> timedelta:
        return window.end - window.start

    for each, some in groupby(sorted(windows, key=lambda w: (length(w), w.start)), key=length):
        yield granularity(each), list(some)


def _chunks(windows: Sequence[Window]) -> Iterator[Sequence[Window]]:
    return (windows[start : start + AT_A_TIME] for start in range(0, len(windows), AT_A_TIME))


def _is_row(key: Key) -> bool:
    return key.column == TABLE and not key.slice_key


def _of_row(row: Row) -> tuple[Any, ...]:
    """What a row of the profile table is of."""
    start, sliced = row["window"]["start"], (row["slice_key"] or "", row["slice_value"] or "")
    return start, row["model_id"], *sliced, row["column_name"]


def _stays(row: Row, before: Row | None) -> Row:
    """What of a profile's row is as it was before."""
    if before is None:
        return {}
    if before["column_name"] == TABLE:
        return {name: before[name] for name in QUALITY if before[name] is not None}
    same = all(row.get(name) == before[name] for name in EXACT)
    return {name: before[name] for name in SKETCHED} if same else {}
