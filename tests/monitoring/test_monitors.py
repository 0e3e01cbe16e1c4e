import math
from dataclasses import replace

import numpy as np
import pytest

from fakes.records import MemoryRecords
from fakes.registry import FakeRegistry
from fakes.state import FakeState
from fakes.traffic import BEGIN, HOUR, Clock, Traffic, at_once, project, route
from noria.domain.errors import StorageCorrupted
from noria.domain.events import DriftDetected, QualityDropped, WindowClosed
from noria.domain.monitor import MonitorKind, MonitorState
from noria.evaluation.baseline import FILE, Baseline
from noria.monitoring.baselines import Baselines
from noria.monitoring.monitors import Monitors

AIRLINES = ["flight", "late", "gate", "bag", "crew", "seat", "delayed", "cancelled"]
APPLE = ["iphone", "battery", "screen", "update", "store", "macbook"]
ENDS = ["again", "today", "please", "thanks", "really", "ever"]


def messages(rng, number, words=AIRLINES):
    return [f"{' '.join(rng.choice(words, 3))} {rng.choice(ENDS)}" for _ in range(number)]


def answers(rng, number, negative=0.7):
    return rng.choice(["negative", "neutral"], number, p=[negative, 1 - negative]).tolist()


class Stage:
    """Monitors over tables in memory, and the windows of one endpoint."""

    def __init__(self, folder, **monitors):
        self.clock = Clock()
        self.state, self.records = FakeState(self.clock), MemoryRecords()
        self.registry = FakeRegistry(folder, self.clock)
        self.traffic = Traffic(self.records)
        self.rng = np.random.default_rng(3)
        self.project = project(**monitors)
        self.window = 0
        self.promote("1")

    @property
    def monitors(self):
        """A worker that has just come up: it remembers nothing but what is stored."""
        return Monitors(self.state, self.records, Baselines(self.registry), self.project)

    def version(self, baseline):
        """Register another version with that baseline, or without one."""
        run = f"run{len(self.registry.versions('triage'))}"
        raw = {} if baseline is None else {f"baseline/{FILE}": baseline.to_bytes()}
        return self.registry.register(self.registry.log_model(run, {"m": run.encode()}, raw), "triage", {})

    def promote(self, version):
        with self.state.change("noria", "version.promoted", version) as change:
            change.put(route(version))

    def ask(self, number, *, words=AIRLINES, right=0.8, negative=0.7, version="1", **more):
        """Requests of this window, all of them labelled in it."""
        said = answers(self.rng, number, negative)
        ids = self.traffic.ask(messages(self.rng, number, words), said, self.begin, version=version, **more)
        truth = [s if self.rng.random() < right else "other" for s in said]
        self.traffic.say(ids, truth, self.begin + 0.99 * HOUR)

    @property
    def begin(self):
        return BEGIN + self.window * HOUR

    def close(self):
        """Close the window and go on to the next."""
        event = WindowClosed(endpoint="triage", start=self.begin, end=self.begin + HOUR)
        self.monitors.evaluate(event, at_once)
        self.window += 1
        return event

    def turn(self, number=100, **how):
        self.ask(number, **how)
        return self.close()

    def states(self, version="1"):
        return {s.monitor: s for s in self.state.find(MonitorState) if s.model_version == version}

    def alarms(self):
        return [event for event in self.state.pending_events() if isinstance(event, DriftDetected | QualityDropped)]

    def rows(self, table):
        return self.records.scan(table).to_pylist()


@pytest.fixture(scope="module")
def baseline():
    rng = np.random.default_rng(1)
    correct = (rng.random(1000) < 0.8).tolist()
    return Baseline.fit(messages(rng, 1000), messages(rng, 1000), answers(rng, 1000), correct)


@pytest.fixture
def stage(tmp_path, baseline):
    stage = Stage(tmp_path)
    stage.version(baseline)
    return stage


def test_more_of_the_same_raises_no_alarm(stage):
    for _ in range(12):
        stage.turn()
    assert stage.alarms() == []
    assert {name: state.rows for name, state in stage.states().items()} == {
        "text": 1200, "length": 1200, "prediction": 1200, "quality": 1200,
    }  # fmt: skip
    assert stage.states()["text"].log_threshold == pytest.approx(math.log(4 / 0.05))


def test_another_topic_alarms_once_and_says_what_moved(stage):
    for _ in range(3):
        stage.turn()
    for _ in range(4):
        stage.turn(words=APPLE)
    told = [event for event in stage.alarms() if event.monitor == "text"]
    assert [event.state_id for event in told] == ["triage:text:1"]
    moved = stage.monitors.moved(stage.states()["text"])
    assert 1 <= len(moved) <= 3
    assert all(set(m.name.split(", ")) <= set(APPLE) for m in moved)
    assert all(m.share_now > 0.3 > m.share_before and len(m.examples) == 3 for m in moved)


def test_another_mix_of_answers_alarms(stage):
    for _ in range(6):
        stage.turn(negative=0.4)
    assert [event.monitor for event in stage.alarms()] == ["prediction"]
    moved = {m.name: m for m in stage.monitors.moved(stage.states()["prediction"])}
    assert moved["neutral"].share_now > 0.5 > moved["neutral"].share_before
    assert moved["neutral"].examples


def test_longer_texts_alarm(stage):
    for _ in range(3):
        stage.turn(words=[" ".join(AIRLINES[:3]), " ".join(AIRLINES[3:6])])
    assert "length" in {event.monitor for event in stage.alarms()}
    assert any(m.name.endswith("or more") for m in stage.monitors.moved(stage.states()["length"]))


def test_falling_quality_alarms_with_its_mean_and_floor(stage):
    for _ in range(3):
        stage.turn(right=0.4)
    (event,) = stage.alarms()
    state = stage.states()["quality"]
    assert isinstance(event, QualityDropped)
    assert state.numbers["mean"] == pytest.approx(0.4, abs=0.1)
    assert 0.7 < state.numbers["floor"] < 0.8
    assert stage.monitors.moved(state) == ()


def test_a_judge_whose_scores_fall_below_the_promise_alarms_and_people_are_no_judges(tmp_path, baseline):
    judge = {"guideline": "Be polite.", "upstream": "judges", "model": "m"}
    more = {"watch": ["judge:polite"], "floors": {"judge:polite": 0.8}}
    stage = Stage(tmp_path, judges={"polite": judge}, **more)
    stage.version(baseline)

    def judged(score):
        ids = stage.traffic.ask(["a"] * 50, ["negative"] * 50, stage.begin)
        stage.traffic.say(ids, [None] * 50, stage.begin + 0.5 * HOUR, scores=[score] * 50, source="judge:polite")
        stage.traffic.say(ids, [None] * 50, stage.begin + 0.5 * HOUR, scores=[0.0] * 50)
        stage.close()

    for _ in range(3):
        judged(0.9)
    assert stage.alarms() == []
    for _ in range(5):
        judged(0.3)
    (alarm,) = {type(event) for event in stage.alarms()}
    assert alarm is QualityDropped
    state = stage.states()["judge:polite"]
    assert (state.numbers["floor"], state.rows) == (0.8, 400)
    assert state.numbers["mean"] == pytest.approx((3 * 0.9 + 5 * 0.3) / 8, abs=0.005)


def test_a_window_is_folded_in_once(stage):
    event = stage.turn()
    before, rows = stage.states(), stage.rows("drift_metrics")
    stage.monitors.evaluate(event, at_once)
    assert stage.states() == before
    assert stage.rows("drift_metrics") == rows


@pytest.mark.parametrize("table", ["profile_metrics", "drift_metrics"])
def test_a_crash_at_any_point_repeats_nothing(stage, table):
    stage.ask(50)
    stage.records.fail.add(table)
    with pytest.raises(Exception, match="refuses"):
        stage.close()
    stage.close()
    assert stage.states()["text"].rows == 50
    tables = [r["model_id"] for r in stage.rows("profile_metrics") if r["column_name"] == ":table"]
    assert sorted(tables) == ["*", "triage/1"]
    assert len([r for r in stage.rows("drift_metrics") if r["monitor"] == "text"]) == 1


def test_a_window_that_could_not_be_folded_in_is_made_up_for_by_the_next(stage):
    stage.turn(40)
    stage.ask(30)
    stage.window += 1
    stage.turn(20)
    assert stage.states()["text"].rows == stage.states()["quality"].rows == 90


def test_a_new_champion_is_watched_from_its_own_beginning(stage, baseline):
    stage.turn(60, words=APPLE)
    stage.version(baseline)
    stage.promote("2")
    stage.turn(30, version="2")
    assert {s.rows for s in stage.states("2").values()} == {30}
    assert stage.states("2")["text"].since == stage.begin - HOUR
    assert stage.states("1")["text"].rows == 60


def test_a_version_that_becomes_champion_again_is_watched_anew(stage, baseline):
    for _ in range(3):
        stage.turn(words=APPLE)
    stage.version(baseline)
    stage.promote("2")
    stage.turn(version="2")
    stage.promote("1")
    stage.turn(50)
    assert stage.states()["text"].rows == 50
    assert not stage.states()["text"].alarms
    before = [event.id for event in stage.alarms() if event.monitor == "text"]
    for _ in range(3):
        stage.turn(words=APPLE)
    assert len([event.id for event in stage.alarms() if event.monitor == "text"]) == len(before) + 1


def test_only_the_champions_answers_are_compared_with_its_own(stage):
    stage.ask(40)
    stage.ask(60, version="2", route="canary")
    stage.ask(70, version="2", route="shadow")
    stage.close()
    assert {name: state.rows for name, state in stage.states().items()} == {
        "text": 100, "length": 100, "prediction": 40, "quality": 40,
    }  # fmt: skip


def test_only_monitors_that_are_on_share_alpha(tmp_path, baseline):
    stage = Stage(tmp_path, watch=["text", "quality"], alpha=0.01)
    stage.version(baseline)
    stage.turn()
    assert stage.states().keys() == {"text", "quality"}
    assert stage.states()["text"].log_threshold == pytest.approx(math.log(2 / 0.01))


def test_the_tables_hold_a_row_for_each_column_version_and_monitor(stage):
    stage.turn(80)
    stage.ask(20, version="2", route="canary")
    stage.turn(80)
    profile, drift = stage.rows("profile_metrics"), stage.rows("drift_metrics")
    assert {row["model_id"] for row in profile} == {"*", "triage/1", "triage/2"}
    assert {row["column_name"] for row in profile} > {
        ":table", "input", "prediction", "status_code", "execution_duration_ms", "ttft_ms", "input_tokens",
        "output_tokens", "input_length", "cost_usd", "error",
    }  # fmt: skip
    of_all = [r for r in profile if (r["column_name"], r["model_id"]) == (":table", "*")]
    table = next(r for r in of_all if r["window"]["start"] == BEGIN + HOUR)
    assert (table["count"], table["granularity"], table["log_type"]) == (100, "1 hour", "INPUT")
    watched = [row for row in drift if row["monitor"] and row["window"]["start"] == BEGIN + HOUR]
    assert sorted((row["monitor"], row["drift_type"]) for row in watched) == [
        ("length", "BASELINE"), ("length", "CONSECUTIVE"), ("prediction", "BASELINE"), ("prediction", "CONSECUTIVE"),
        ("quality", "BASELINE"), ("quality", "CONSECUTIVE"), ("text", "BASELINE"), ("text", "CONSECUTIVE"),
    ]  # fmt: skip
    length = next(row for row in drift if row["monitor"] == "length" and row["drift_type"] == "CONSECUTIVE")
    assert length["window_cmp"]["start"] == BEGIN
    assert length["wasserstein_distance"] is not None
    text = next(row for row in drift if row["monitor"] == "text")
    assert (text["model_id"], text["rows_seen"], text["column_name"]) == ("triage/1", 80, "input")
    assert text["e_value"] == pytest.approx(math.exp(text["log_e"]))
    assert next(row for row in drift if row["monitor"] == "quality")["mean"] == pytest.approx(0.8, abs=0.15)


def test_an_empty_window_leaves_a_row_that_says_so(stage):
    stage.turn(40)
    stage.close()
    assert stage.states()["text"].folded_until == BEGIN + 2 * HOUR
    (row,) = [r for r in stage.rows("profile_metrics") if r["window"]["start"] == BEGIN + HOUR]
    assert (row["column_name"], row["count"]) == (":table", 0)
    assert all(r["window"]["start"] == BEGIN for r in stage.rows("drift_metrics"))


ODD = {
    "empty texts": ["", " "],
    "nothing readable": ['{"x": 1}', "{not json", "{}"] * 10,
    "very long": ["flight late " * 80_000],
    "other scripts": ["我的航班延误了", "رحلتي متأخرة", "मेरी उड़ान", "😀😀"] * 2,
    "one": ["flight late gate again"],
}


@pytest.mark.parametrize("texts", ODD.values(), ids=ODD)
def test_bad_input_is_neither_a_crash_nor_an_alarm_by_itself(stage, texts):
    for _ in range(3):
        stage.ask(200)
        stage.traffic.ask(texts, ["negative"] * len(texts), stage.begin)
        stage.close()
        if len(texts) > 10:
            break
    assert stage.alarms() == []


def test_an_endpoint_without_a_champion_or_that_is_gone_is_left_alone(stage):
    stage.traffic.ask(["a"], ["x"])
    for name in ("nobody", "triage"):
        event = WindowClosed(endpoint=name, start=BEGIN, end=BEGIN + HOUR)
        Monitors(FakeState(Clock()), stage.records, Baselines(stage.registry), stage.project).evaluate(event, at_once)
    assert stage.rows("profile_metrics") == []


def test_a_model_without_a_baseline_gets_one_from_its_first_records(tmp_path):
    stage = Stage(tmp_path, task="chat", baseline_records=200)
    stage.version(None)
    for _ in range(3):
        stage.turn(90)
    assert stage.states() == {}
    stage.turn(90)
    assert stage.states().keys() == {"text", "length"}
    assert stage.states()["text"].rows == 90
    for _ in range(4):
        stage.turn(150, words=APPLE)
    assert {event.monitor for event in stage.alarms()} >= {"text"}


def test_a_damaged_baseline_is_named_and_leaves_no_hole(stage, baseline):
    version = stage.registry.version("triage", "1")
    stage.registry.attach(version, {FILE: b"junk"}, "baseline")
    stage.ask(40)
    with pytest.raises(StorageCorrupted, match="baseline"):
        stage.close()
    assert stage.rows("profile_metrics")


def test_counts_in_other_cells_are_folded_anew_from_what_was_kept(stage):
    stage.turn(40)
    with stage.state.note() as note:
        note.put(replace(stage.states()["text"], counts=(1, 2)))
    stage.turn(40)
    assert stage.states()["text"].rows == 80
    assert stage.states()["text"].kind is MonitorKind.TEXT_DRIFT
