import json

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from fakes.compute import InlineCompute
from fakes.state import FakeState
from fakes.traffic import BEGIN, HOUR, Clock, Traffic, at_once, completion, project
from noria.adapters.tables.delta import DeltaStore
from noria.bootstrap.quality_job import FUNCTION
from noria.domain.events import WindowClosed, WindowJudged
from noria.domain.judge import JudgeState
from noria.domain.monitor import MonitorKind, MonitorState, Window, WindowCursor
from noria.domain.quality import Calibrated
from noria.monitoring.late import LateLabels
from noria.monitoring.measuring import Quality
from noria.monitoring.reports.facts import Reporter
from noria.monitoring.rows import Place
from noria.monitoring.standing import standing
from noria.tables import PROFILE_METRICS

CLASSES = ["billing", "delay", "other"]


class Desk:
    """Windows of an endpoint whose answers are judged, over real tables."""

    def __init__(self, folder, task="classification", **monitors):
        self.clock = Clock(BEGIN + 24 * HOUR)
        self.state, self.records = FakeState(self.clock), DeltaStore(folder / "tables")
        self.traffic = Traffic(self.records)
        self.project = project(task, **monitors)
        self.compute = InlineCompute()
        self.quality = Quality(self.state, self.records, self.compute, self.project, FUNCTION, str(folder / "tables"))

    def close(self, number=0):
        """Write down what was observed of a window, as the monitors do, and measure its quality."""
        start = BEGIN + number * HOUR
        place = Place(endpoint="triage", window=Window(start, start + HOUR)).columns()
        seen = self.records.scan("inference", endpoint="triage", since=start, until=start + HOUR).num_rows
        rows = [
            place | {"log_type": "INPUT", "column_name": name, "count": seen} for name in (":table", "input") if seen
        ]
        self.records.append("profile_metrics", pa.Table.from_pylist(rows, schema=PROFILE_METRICS), "test", number + 1)
        self.measure(WindowClosed(endpoint="triage", start=start, end=start + HOUR))

    def measure(self, event):
        self.quality.measure(event, at_once)

    def rows(self, model="*", key=None, value=None, number=0, granularity="1 hour"):
        start = BEGIN + number * HOUR
        found = self.records.scan("profile_metrics", since=start, until=start + HOUR).to_pylist()
        return {
            row["column_name"]: row
            for row in found
            if (row["model_id"], row["slice_key"] or None, row["slice_value"] or None) == (model, key, value)
            and row["granularity"] == granularity
        }

    def classify(self, number=200, seed=1, at=BEGIN, sharper=1, **more):
        """Requests whose answers come with probabilities; returns ids, labels, predictions, probabilities."""
        rng = np.random.default_rng(seed)
        truth = rng.dirichlet([0.6] * 3, number)
        labels = (rng.random((number, 1)) > truth.cumsum(axis=1)).sum(axis=1)
        stated = truth**sharper / (truth**sharper).sum(axis=1, keepdims=True)
        said = [CLASSES[i] for i in stated.argmax(axis=1)]
        chances = [dict(zip(CLASSES, map(float, row), strict=True)) for row in stated]
        ids = self.traffic.ask([f"text {i}" for i in range(number)], said, at, chances=chances, **more)
        return ids, [CLASSES[i] for i in labels], said, stated


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_the_row_of_the_window_has_the_columns_of_databricks(desk):
    ids, labels, said, chances = desk.classify()
    desk.traffic.say(ids, labels)
    desk.close()
    row = desk.rows()[":table"]
    assert row["count"] == 200
    assert row["log_type"] == "INPUT"
    assert row["accuracy_score"] == pytest.approx(accuracy_score(labels, said))
    assert row["f1_score"]["macro"] == pytest.approx(f1_score(labels, said, average="macro"))
    assert dict(row["f1_score"]["one_vs_all"]).keys() == set(CLASSES)
    assert row["roc_auc_score"]["macro"] == pytest.approx(roc_auc_score(labels, chances, multi_class="ovr"))
    assert sum(cell["count"] for cell in row["confusion_matrix"]) == 200


def test_further_measures_have_rows_of_their_own_with_their_intervals(desk):
    ids, labels, *_ = desk.classify()
    desk.traffic.say(ids[:50], labels[:50], scores=[0.5] * 50)
    desk.close()
    rows = desk.rows()
    assert rows["quality.accuracy"]["count"] == 50
    assert rows["quality.accuracy"]["low"] < rows["quality.accuracy"]["avg"] < rows["quality.accuracy"]["high"]
    assert rows["quality.score"]["avg"] == 0.5
    assert {"quality.f1", "quality.roc_auc", "quality.log_loss", "quality.calibration_error"} <= set(rows)
    assert "input" in rows  # what was observed stays beside it


def test_what_nobody_labelled_is_estimated_from_the_models_own_probabilities(desk):
    _, labels, said, _ = desk.classify(2000)
    desk.close()
    rows = desk.rows()
    assert rows[":table"]["accuracy_score"] is None
    estimated = rows["quality.estimated_accuracy"]
    assert estimated["count"] == 2000
    assert estimated["low"] <= accuracy_score(labels, said) <= estimated["high"]
    assert sum(cell["count"] for cell in estimated["confusion_matrix"]) == pytest.approx(2000, abs=5)
    assert rows["quality.estimated_f1"]["low"] <= f1_score(labels, said, average="macro")


def test_labels_that_come_late_change_the_window_that_they_are_about_and_no_other(desk):
    ids, labels, said, _ = desk.classify(100, at=BEGIN + HOUR / 4, within=HOUR / 2)
    desk.classify(100, seed=2, at=BEGIN + HOUR)
    desk.close(0)
    desk.close(1)
    with desk.state.note() as note:
        note.put(WindowCursor(id="triage", closed_until=BEGIN + 2 * HOUR))
    late = LateLabels(desk.state, desk.records)
    assert late.look(desk.project, BEGIN + 2 * HOUR) == 0  # the first look only remembers where it begins
    weeks = BEGIN + 500 * HOUR
    desk.traffic.say(ids, labels, weeks)
    assert late.look(desk.project, weeks + HOUR) == 1
    assert late.look(desk.project, weeks + 2 * HOUR) == 0
    (event,) = [e for e in desk.state.pending_events() if isinstance(e, WindowJudged)]
    assert (event.start, event.end) == (BEGIN, BEGIN + HOUR)
    desk.measure(event)
    assert desk.rows()[":table"]["accuracy_score"] == pytest.approx(accuracy_score(labels, said))
    assert desk.rows()[":table"]["count"] == 100
    assert desk.rows(number=1)[":table"]["accuracy_score"] is None


def test_measuring_again_changes_nothing(desk):
    ids, labels, *_ = desk.classify(100)
    desk.traffic.say(ids, labels, BEGIN + 2 * HOUR)
    desk.close()
    before = desk.records.scan("profile_metrics").sort_by([("model_id", "ascending"), ("column_name", "ascending")])
    event = WindowJudged(endpoint="triage", start=BEGIN, end=BEGIN + HOUR, at=BEGIN + 3 * HOUR)
    desk.measure(event)
    desk.measure(event)
    after = desk.records.scan("profile_metrics").sort_by([("model_id", "ascending"), ("column_name", "ascending")])
    assert after.num_rows == before.num_rows
    for name in ("column_name", "avg", "count", "accuracy_score", "low", "high"):
        assert after[name].to_pylist() == before[name].to_pylist()


def test_each_version_has_its_own_quality(desk):
    ids, labels, said, _ = desk.classify(60)
    others, theirs, said_too, _ = desk.classify(60, seed=3, version="2", route="canary")
    desk.traffic.say(ids + others, labels + theirs)
    desk.close()
    assert desk.rows("triage/1")["quality.accuracy"]["avg"] == pytest.approx(accuracy_score(labels, said))
    assert desk.rows("triage/2")[":table"]["accuracy_score"] == pytest.approx(accuracy_score(theirs, said_too))
    assert desk.rows()["quality.accuracy"]["count"] == 120


def test_free_answers_are_compared_with_their_references(tmp_path):
    desk = Desk(tmp_path, "chat")
    ids = desk.traffic.ask(["q"] * 3, [completion("Paris"), completion("It is Rome."), completion("no idea")])
    desk.traffic.say(ids[:2], ["Paris", "Rome"])
    desk.close()
    rows = desk.rows()
    assert rows["quality.exact_match"]["avg"] == 0.5
    assert rows["quality.rouge1"]["avg"] == pytest.approx((1 + 0.5) / 2)
    assert rows["quality.bleu"]["count"] == 2
    assert rows[":table"]["accuracy_score"] is None


def test_judges_are_compared_with_people(desk):
    ids, labels, said, _ = desk.classify(40)
    desk.traffic.say(ids[:30], labels[:30])
    right = [float(a == b) for a, b in zip(labels, said, strict=True)]
    verdicts = [1 - r if i % 10 == 0 else r for i, r in enumerate(right)]  # wrong in every tenth
    desk.traffic.say(ids, [None] * 40, scores=verdicts, source="judge:correct")
    desk.close()
    rows = desk.rows()
    assert rows["quality.judge:correct"]["count"] == 40
    assert rows["quality.judge:correct"]["avg"] == pytest.approx(np.mean(verdicts))
    agreed = rows["quality.judge:correct.agreement"]
    assert (agreed["count"], agreed["avg"]) == (30, pytest.approx(0.9))
    kappa = rows["quality.judge:correct.kappa"]
    assert kappa["low"] < kappa["avg"] < kappa["high"]
    assert rows["quality.judge:correct.correlation"]["avg"] == pytest.approx(kappa["avg"], abs=0.2)
    assert rows["quality.accuracy"]["count"] == 30  # judges label nothing


def begin(monitor, kind):
    return MonitorState(
        id=f"triage:{monitor}:1", endpoint="triage", monitor=monitor, kind=kind, model_version="1", since=BEGIN,
        folded_until=BEGIN + 2 * HOUR, rows=60, column=monitor,
    )  # fmt: skip


def test_how_quality_stands_is_told_as_json_with_the_monitor(desk):
    for number in range(2):
        start = BEGIN + number * HOUR
        ids, labels, said, _ = desk.classify(30, seed=number, at=start)
        desk.traffic.say(ids, labels, start)
        right = [float(a == b) for a, b in zip(labels, said, strict=True)]
        verdicts = [1 - r if i % 10 == 0 else r for i, r in enumerate(right)]
        desk.traffic.say(ids, [None] * 30, start, scores=verdicts, source="judge:correct")
        desk.close(number)
    account = JudgeState(
        id="triage:judge:correct", endpoint="triage", judge="correct", version="v", model="big/1", judged=60,
        garbage=2, day=BEGIN.date(), usd=0.5, at=BEGIN,
    )  # fmt: skip
    with desk.state.note() as note:
        note.put(account)
    monitor = begin("judge:correct", MonitorKind.QUALITY)
    shown = Reporter(desk.state, desk.records, desk.project, desk.clock).shown(monitor)
    found = json.loads(json.dumps(shown, allow_nan=False))["quality"]
    assert found == standing(desk.state, desk.records, "triage", BEGIN, "1 hour")
    assert found["measures"]["accuracy"]["count"] == 30
    assert found["measures"]["accuracy"]["start"] == (BEGIN + HOUR).isoformat()
    judge = found["judges"]["correct"]
    assert (judge["judged"], judge["garbage"], judge["usd"]) == (60, 2, 0.5)
    agreed = judge["agreement"]
    assert (agreed["pairs"], agreed["share"]) == (60, pytest.approx(0.9))
    assert agreed["kappa_low"] < agreed["kappa"] < agreed["kappa_high"]


def test_a_judge_that_nobody_was_compared_with_agrees_with_nobody(desk):
    account = JudgeState(
        id="triage:judge:new", endpoint="triage", judge="new", version="v", model="m", day=BEGIN.date(), at=BEGIN
    )
    with desk.state.note() as note:
        note.put(account)
    agreed = standing(desk.state, desk.records, "triage", BEGIN, "1 hour")["judges"]["new"]["agreement"]
    assert (agreed["pairs"], agreed["share"], agreed["kappa"]) == (0, None, None)


def test_probabilities_are_calibrated_on_the_first_labels_and_read_so_from_then_on(desk):
    ids, labels, *_ = desk.classify(1500, sharper=3)
    desk.traffic.say(ids, labels)
    _, others, said, _ = desk.classify(1500, seed=5, sharper=3, at=BEGIN + HOUR)
    desk.close(0)
    (kept,) = desk.state.find(Calibrated, endpoint="triage")
    assert (kept.id, kept.rows, kept.classes) == ("triage:triage/1", 1500, tuple(CLASSES))
    desk.close(1)
    estimated = desk.rows(number=1)["quality.estimated_accuracy"]
    assert estimated["low"] <= accuracy_score(others, said) <= estimated["high"]
    assert estimated["count"] == 1500


def test_a_longer_window_is_measured_from_all_of_its_answers(tmp_path):
    desk = Desk(tmp_path, granularities=["3h"])
    for number in range(3):
        ids, labels, *_ = desk.classify(20, seed=number, at=BEGIN + number * HOUR)
        desk.traffic.say(ids, labels)
    desk.measure(WindowClosed(endpoint="triage", start=BEGIN, end=BEGIN + 3 * HOUR, longer=True))
    row = desk.rows(granularity="3 hours")["quality.accuracy"]
    assert row["count"] == 60
    assert row["window"]["end"] - row["window"]["start"] == 3 * HOUR


def test_an_empty_window_says_nothing(desk):
    desk.close()
    assert not [name for name in desk.rows() if name.startswith("quality.")]
    assert Window(BEGIN, BEGIN + HOUR).end == BEGIN + HOUR
