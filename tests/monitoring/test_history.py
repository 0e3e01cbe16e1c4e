"""Late records, outages, wrong clocks, changed monitors, history computed again: all come to what was kept."""

import numpy as np
import pyarrow as pa
import pytest

from fakes.outbox import outbox, showing
from fakes.records import MemoryRecords
from fakes.registry import FakeRegistry
from fakes.state import FakeState
from fakes.traffic import BEGIN, HOUR, Clock, Traffic, at_once, project, route
from noria.domain.alert import Alert
from noria.domain.errors import InvalidRequest, NotReady
from noria.domain.events import DriftDetected, QualityDropped, WindowClosed, WindowJudged
from noria.domain.monitor import LateRecords, MonitorState, Watch, WindowCursor
from noria.evaluation.baseline import FILE, Baseline
from noria.evaluation.states import ColumnState
from noria.monitoring import recomputing
from noria.monitoring.alerts import Causes, Rules
from noria.monitoring.backfill import Backfill
from noria.monitoring.baselines import Baselines
from noria.monitoring.monitors import Monitors
from noria.monitoring.windows import CATCH_UP, Windows
from noria.settings import AlertRule
from noria.tables import INFERENCE

WORDS = ["flight", "late", "gate", "bag", "crew", "seat", "delayed", "cancelled"]
APPLE = ["iphone", "battery", "screen", "update", "store", "macbook"]
TABLES = ("monitor_states", "profile_metrics", "drift_metrics")


def messages(rng, number, words=WORDS):
    return [" ".join(rng.choice(words, 3)) for _ in range(number)]


@pytest.fixture(scope="module")
def baseline():
    rng = np.random.default_rng(1)
    return Baseline.fit(messages(rng, 600), messages(rng, 600), ["good", "bad"] * 300, [True] * 480 + [False] * 120)


class Plant:
    """An endpoint whose windows close as its clock moves."""

    def __init__(self, folder, reference, **monitors):
        self.clock = Clock()
        self.state, self.records = FakeState(self.clock), MemoryRecords()
        self.registry, self.rng = FakeRegistry(folder, self.clock), np.random.default_rng(3)
        self.traffic, self.project = Traffic(self.records), project(**monitors)
        self.windows = Windows(self.state, self.records, self.clock)
        self.events: list[WindowClosed] = []
        self.version(reference)
        self.promote("1")
        self.close()

    def version(self, baseline):
        run = f"run{len(self.registry.versions('triage'))}"
        files = {} if baseline is None else {f"baseline/{FILE}": baseline.to_bytes()}
        self.registry.register(self.registry.log_model(run, {"m": run.encode()}, files), "triage", {})

    def promote(self, version):
        with self.state.change("noria", "version.promoted", version) as change:
            change.put(route(version))

    @property
    def monitors(self):
        return Monitors(self.state, self.records, Baselines(self.registry), self.project)

    def ask(self, number=60, at=None, words=WORDS, **more):
        answers = self.rng.choice(["good", "bad"], number).tolist()
        return self.traffic.ask(messages(self.rng, number, words), answers, at or self.clock.at, **more)

    def close(self):
        """Close what is over, and handle what that tells."""
        self.windows.close_due(self.project, self.clock.at)
        told = [e for e in self.state.pending_events(10_000) if isinstance(e, WindowClosed)]
        for event in told:
            self.monitors.evaluate(event, at_once)
            self.state.mark_handled(event.id)
        self.events += told
        return told

    def hours(self, number, **how):
        for _ in range(number):
            self.ask(**how)
            self.clock.at += HOUR
            self.close()

    def late(self, number, at):
        """Records that come when their window is closed, shipped as the shipper does."""
        rows = self.unwritten(number, at)
        self.windows.arriving("inference", rows)
        self.records.append("inference", rows, f"late{at}", 1)

    def unwritten(self, number, at):
        elsewhere = MemoryRecords()
        Traffic(elsewhere).ask(messages(self.rng, number), ["good"] * number, at, within=HOUR / 10)
        rows = elsewhere.scan("inference")
        names = pa.array([f"{n:08x}{at.timestamp():024.0f}"[:32] for n in range(number)])
        return rows.set_column(rows.schema.get_field_index("databricks_request_id"), INFERENCE.field(0), names)

    def states(self):
        return {s.monitor: s for s in self.state.find(MonitorState)}

    def everything(self):
        """What is in the tables, in an order of its own, without the version of the table that was read."""
        found = {}
        for table in TABLES:
            rows = self.records.scan(table).to_pylist()
            for row in rows:
                row.pop("logging_table_commit_version", None)
            found[table] = sorted(rows, key=repr)
        return found

    def alarms(self):
        return [e for e in self.state.pending_events() if isinstance(e, DriftDetected | QualityDropped)]

    def rows(self, table="profile_metrics", **equal):
        rows = self.records.scan(table).to_pylist()
        return [row for row in rows if all(row[name] == value for name, value in equal.items())]

    def counts(self):
        """Requests of each window, by the hour after the beginning."""
        rows = self.rows(column_name=":table", model_id="*", slice_key=None, granularity="1 hour")
        return {(row["window"]["start"] - BEGIN) / HOUR: row["count"] for row in rows}


@pytest.fixture
def plant(tmp_path, baseline):
    return Plant(tmp_path, baseline)


@pytest.mark.parametrize("at_a_time", [48, 2, 1])
def test_late_records_land_in_their_own_window_and_the_evidence_is_as_if_they_had_been_in_time(
    tmp_path, baseline, plant, monkeypatch, at_a_time
):
    monkeypatch.setattr(recomputing, "AT_A_TIME", at_a_time)
    plant.hours(4)
    plant.late(40, BEGIN + 1.2 * HOUR)
    (again,) = plant.close()
    assert (again.start, again.revision) == (BEGIN + HOUR, 1)
    assert plant.counts() == {0: 60, 1: 100, 2: 60, 3: 60}
    assert plant.states()["text"].rows == 280
    punctual = Plant(tmp_path / "other", baseline)
    for hour in range(4):
        punctual.ask()
        if hour == 1:
            rows = plant.records.scan("inference").to_pylist()[-40:]
            punctual.records.append("inference", pa.Table.from_pylist(rows, schema=INFERENCE), "x", 1)
        punctual.clock.at += HOUR
        punctual.close()
    assert {m: (s.counts, s.log_e, s.folded_until) for m, s in plant.states().items()} == {
        m: (s.counts, s.log_e, s.folded_until) for m, s in punctual.states().items()
    }
    assert plant.everything()["drift_metrics"] == punctual.everything()["drift_metrics"]
    assert plant.close() == []


def test_a_crash_between_the_note_and_the_write_only_computes_a_window_again(plant):
    plant.hours(2)
    before = plant.everything()
    plant.windows.arriving("inference", plant.unwritten(5, BEGIN + 0.5 * HOUR))
    assert [event.revision for event in plant.close()] == [1]
    assert plant.everything() == before
    plant.windows.arriving("inference", plant.unwritten(5, BEGIN + 0.5 * HOUR))
    assert [event.revision for event in plant.close()] == [2]


def test_records_in_time_are_not_late(plant):
    plant.hours(2)
    plant.windows.arriving("inference", plant.unwritten(5, plant.clock.at))
    assert plant.state.get(LateRecords, "triage") is None
    assert plant.close() == []


def test_requests_that_are_shipped_twice_count_once(plant):
    plant.ask(50)
    plant.records.append("inference", plant.records.scan("inference"), "another spool", 1)
    plant.clock.at += HOUR
    plant.close()
    assert plant.counts() == {0: 50}
    assert plant.states()["text"].rows == 50


@pytest.mark.parametrize("years", [-56, 14], ids=["1970", "2040"])
def test_records_of_another_time_have_their_own_window_and_do_not_stop_the_clock(plant, years):
    plant.hours(2)
    plant.late(3, BEGIN.replace(year=BEGIN.year + years))
    plant.hours(2)
    assert {hour: n for hour, n in plant.counts().items() if 0 <= hour < 100} == {0: 60, 1: 60, 2: 60, 3: 60}
    assert sum(n for hour, n in plant.counts().items() if hour < 0) == (3 if years < 0 else 0)
    assert plant.states()["text"].rows == 240
    assert plant.states()["text"].since == BEGIN


def test_a_watermark_from_the_future_closes_nothing_that_is_not_over(plant):
    plant.hours(2)
    plant.windows.close_due(plant.project, BEGIN + 100_000 * HOUR)
    assert plant.state.get(WindowCursor, "triage").closed_until == BEGIN + 2 * HOUR


def test_a_cursor_that_a_wrong_clock_has_moved_far_ahead_comes_back_and_windows_close_again(plant):
    plant.hours(1)
    with plant.state.note() as note:
        note.put(WindowCursor(id="triage", closed_until=BEGIN + 90_000 * HOUR))
    plant.close()
    plant.hours(3)
    assert plant.counts() == {0: 60, 1: 60, 2: 60, 3: 60}


def test_windows_that_could_not_be_computed_have_windows_of_their_own_later(plant):
    plant.hours(1)
    for _ in range(3):
        plant.ask()
        plant.clock.at += HOUR
        plant.windows.close_due(plant.project, plant.clock.at)
    told = [e for e in plant.state.pending_events() if isinstance(e, WindowClosed)]
    for event in told:
        plant.state.mark_handled(event.id)
    plant.hours(1)
    assert plant.counts() == dict.fromkeys(range(5), 60)
    assert plant.states()["text"].rows == 300


def test_after_an_outage_nothing_is_left_unscored(plant):
    plant.hours(1)
    for hour in (3, 50, CATCH_UP * 4):
        plant.ask(at=BEGIN + hour * HOUR)
    plant.clock.at = BEGIN + CATCH_UP * 5 * HOUR
    plant.close()
    assert {hour for hour, n in plant.counts().items() if n} == {0, 3, 50, CATCH_UP * 4}
    assert plant.states()["text"].rows == 240


# --- longer windows and slices ---


def test_longer_windows_are_summed_from_shorter_ones_also_when_these_change(tmp_path, baseline):
    plant = Plant(tmp_path, baseline, granularities=["3h", "6h"])
    plant.hours(9)
    by_length = {g: plant.rows(column_name=":table", model_id="*", granularity=g) for g in ("3 hours", "6 hours")}
    assert sorted(row["count"] for row in by_length["3 hours"]) == [180, 180, 180]
    assert sorted(row["count"] for row in by_length["6 hours"]) == [180, 360]
    kept = [ColumnState.from_bytes(row["state"]) for row in plant.rows("monitor_states", summed=True)]
    day = next(s for s in kept if s.name == "input" and s.count == 360)
    assert day.cells.sum() == 360
    drift = plant.rows("drift_metrics", granularity="3 hours", column_name="input")
    assert {row["drift_type"] for row in drift} == {"BASELINE", "CONSECUTIVE"}
    assert {row["monitor"] for row in drift} == {None}
    plant.late(20, BEGIN + 0.5 * HOUR)
    assert {event.longer for event in plant.close()} == {False, True}
    counts = [row["count"] for row in plant.rows(column_name=":table", model_id="*", granularity="6 hours")]
    assert sorted(counts) == [200, 360]


def test_slices_inform_and_never_alarm(tmp_path, baseline):
    plant = Plant(tmp_path, baseline, slices=["prediction", "model"], slice_values=1)
    plant.hours(3)
    plant.hours(3, words=APPLE)
    values = {(row["slice_key"], row["slice_value"]) for row in plant.rows()}
    assert {("model", "triage/1"), (None, None)} < values
    assert ("prediction", ":other") in values
    sliced = [row for row in plant.rows("drift_metrics", monitor="text") if row["slice_key"] == "prediction"]
    assert sliced
    assert all(row["log_e"] is None and row["js_distance"] is not None for row in sliced)
    assert "text" in {event.monitor for event in plant.alarms()}
    assert {s.monitor for s in plant.state.find(MonitorState)} == {"text", "length", "prediction"} | {"quality"}


# --- any column, and promises ---


def test_any_column_is_watched_once_the_first_records_show_what_is_normal(tmp_path, baseline):
    plant = Plant(
        tmp_path, baseline, watch=["execution_duration_ms", "error", "text"], baseline_records=120, floors={"pii": 0.1}
    )
    plant.hours(2)
    assert set(plant.states()) == {"text"}
    plant.hours(3)
    assert set(plant.states()) == {"text", "execution_duration_ms", "error"}
    assert plant.states()["execution_duration_ms"].rows == 180
    assert plant.states()["text"].rows == 300
    assert plant.alarms() == []
    plant.hours(4, outcome="failed")
    assert "error" in {event.monitor for event in plant.alarms()}
    assert plant.states()["error"].numbers["mean"] > plant.states()["error"].numbers["floor"]


def test_a_promise_of_the_project_file_counts_from_the_first_record(tmp_path, baseline):
    plant = Plant(tmp_path, baseline, watch=["error"], floors={"error": 0.2})
    plant.hours(2)
    assert plant.states()["error"].rows == 120
    assert plant.alarms() == []
    plant.hours(2, outcome="failed")
    assert [event.monitor for event in plant.alarms()] == ["error"]


def test_a_span_of_the_past_may_be_the_baseline(tmp_path, baseline):
    span = {"since": BEGIN.isoformat(), "until": (BEGIN + 2 * HOUR).isoformat()}
    plant = Plant(tmp_path, None, baseline=span, baseline_records=100)
    plant.hours(3)
    plant.hours(4, words=APPLE)
    assert plant.states()["text"].since == BEGIN + 2 * HOUR
    assert plant.states()["text"].rows == 300
    assert "text" in {event.monitor for event in plant.alarms()}


# --- versions ---


def test_a_changed_monitor_is_a_new_version_and_its_evidence_begins_anew(plant):
    plant.hours(3)
    assert plant.states()["text"].rows == 180
    plant.project = project(alpha=0.01, watch=["text", "length"])
    plant.hours(2)
    text = plant.states()["text"]
    assert (text.rows, text.monitor_version, text.since) == (120, 2, BEGIN + 3 * HOUR)
    versions = {row["window"]["start"]: row["monitor_version"] for row in plant.rows()}
    assert [versions[start] for start in sorted(versions)] == [1, 1, 1, 2, 2]
    (changed,) = [e for e in plant.state.audit_trail() if e.action == "monitor.changed"]
    assert changed.evidence["monitor_version"] == 2
    assert changed.evidence["now"] == {"alpha": 0.01, "watch": ["text", "length"]}


def test_a_late_record_of_an_earlier_version_changes_its_rows_and_nothing_of_today(plant):
    plant.hours(3)
    plant.project = project(alpha=0.01)
    plant.hours(2)
    today = plant.states()
    plant.late(10, BEGIN + 0.5 * HOUR)
    plant.close()
    assert plant.states() == today
    assert plant.counts()[0] == 70
    first = plant.rows("drift_metrics", monitor="text", drift_type="BASELINE", monitor_version=1)
    assert sorted(row["rows_seen"] for row in first) == [70, 130, 190]


# --- history again ---


def backfill(plant, since, until, **more):
    return Backfill(plant.monitors, plant.clock).run("triage", BEGIN + since * HOUR, BEGIN + until * HOUR, **more)


@pytest.mark.parametrize("at_a_time", [48, 3])
def test_history_computed_again_is_the_same_and_twice_gives_identical_tables(
    tmp_path, baseline, monkeypatch, at_a_time
):
    monkeypatch.setattr(recomputing, "AT_A_TIME", at_a_time)
    plant = Plant(tmp_path, baseline, granularities=["3h"], slices=["model"])
    plant.hours(7)
    before, states = plant.everything(), plant.states()
    told = []
    done = backfill(plant, 1.5, 5, told=lambda *how_far: told.append(how_far))
    assert (done.windows, done.records, done.alarms) == (4, 240, ())
    assert told[-1] == (4, 4)
    assert plant.everything() == before
    assert plant.states() == states
    backfill(plant, -100, 100)
    assert plant.everything() == before


def test_history_of_more_values_than_a_sketch_holds_is_computed_again_to_the_last_bit(tmp_path, baseline):
    plant = Plant(tmp_path, baseline, granularities=["3h"], slices=["model"])
    for _ in range(3):
        plant.ask(400)
        plant.ask(400, version="2")
        plant.clock.at += HOUR
        plant.close()
    profiles = plant.everything()["profile_metrics"]
    backfill(plant, 0, 3)  # by the baseline that the first windows completed
    once = plant.everything()
    assert once["profile_metrics"] == profiles
    backfill(plant, 0, 3)
    assert plant.everything() == once


def test_history_takes_in_what_was_written_past_the_shipper(plant):
    plant.hours(4)
    plant.records.append("inference", plant.unwritten(30, BEGIN + 2.1 * HOUR), "import", 1)
    backfill(plant, 2, 3)
    assert plant.counts()[2] == 90
    once = plant.everything()
    assert plant.states()["text"].rows == 270
    backfill(plant, 2, 3)
    assert plant.everything() == once


def test_rules_look_at_history_once_more_so_that_what_was_written_past_the_shipper_is_told(plant):
    rule = AlertRule(metric=":table.count", above=80, windows="1 of 4")
    ruled = plant.project.endpoints["triage"].model_copy(update={"alerts": {"many": rule}})
    plant.project = plant.project.model_copy(update={"endpoints": {"triage": ruled}})
    causes = Causes(plant.state, plant.clock, lambda _: (), showing(plant.records), lambda _: ruled.alerts)
    owed = outbox(plant.state, plant.clock)
    rules = Rules(plant.state, plant.clock, plant.records, lambda: plant.project, causes, owed)
    plant.hours(4)
    for event in plant.events:
        rules.judge(event, at_once)
    assert plant.state.find(Alert) == []
    plant.records.append("inference", plant.unwritten(30, BEGIN + 3.1 * HOUR), "import", 1)
    backfill(plant, 2, 4)
    again = [event for event in plant.state.pending_events() if isinstance(event, WindowJudged)]
    assert [event.start for event in again] == [BEGIN + 2 * HOUR, BEGIN + 3 * HOUR]
    for event in again:
        rules.judge(event, at_once)
    (alert,) = plant.state.find(Alert)
    assert (alert.rule, alert.value, alert.since) == ("many", 90, BEGIN + 3 * HOUR)


def test_history_from_before_anything_was_watched_is_added_to_the_first_watch(plant):
    plant.ask(40, at=BEGIN - 30 * HOUR)
    plant.hours(2)
    done = backfill(plant, -40, 2)
    assert done.records == 160
    assert plant.states()["text"].rows == 160
    assert plant.states()["text"].since == BEGIN - 40 * HOUR
    plant.hours(1)
    assert plant.states()["text"].rows == 220


def test_history_spans_the_watches_of_several_champions(plant, baseline):
    plant.hours(3)
    plant.version(baseline)
    plant.promote("2")
    plant.hours(3, version="2")
    before, states = plant.everything(), plant.state.find(MonitorState)
    assert backfill(plant, 0, 6).windows == 6
    assert plant.everything() == before
    assert sorted(map(repr, plant.state.find(MonitorState))) == sorted(map(repr, states))


def test_a_span_that_cannot_be_computed_is_said_plainly(plant):
    plant.hours(2)
    with pytest.raises(InvalidRequest, match="No window"):
        backfill(plant, 5, 6)
    kept = plant.project.endpoints["triage"].model_copy(update={"retention": HOUR})
    plant.project = plant.project.model_copy(update={"endpoints": {"triage": kept}})
    with pytest.raises(InvalidRequest, match="past their retention"):
        backfill(plant, 0, 2)
    with plant.state.note():
        pass
    bare = Monitors(FakeState(plant.clock), plant.records, Baselines(plant.registry), plant.project)
    with pytest.raises(NotReady):
        Backfill(bare, plant.clock).run("triage", BEGIN, BEGIN + HOUR)


def test_a_worker_that_folds_a_window_meanwhile_makes_nobody_lose(plant, monkeypatch):
    plant.hours(3)
    plain, raced = Monitors.recompute, []

    def slow(self, endpoint, watch, windows, **more):
        if not raced:
            raced.append(True)
            plant.ask()
            plant.clock.at += HOUR
            plant.close()
        return plain(self, endpoint, watch, windows, **more)

    monkeypatch.setattr(Monitors, "recompute", slow)
    backfill(plant, 0, 3)
    assert plant.states()["text"].rows == 240
    assert plant.state.find(Watch)[0].counted_until == BEGIN + 4 * HOUR
