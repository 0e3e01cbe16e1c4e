"""Rules: thresholds on what the tables say of windows, and odds of a monitor's evidence."""

import math
from datetime import timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.notifier import FakeNotifier
from fakes.outbox import at_once as at_once_told
from fakes.outbox import outbox, showing
from fakes.records import MemoryRecords
from fakes.state import FakeState
from fakes.traffic import BEGIN, HOUR, Clock, Traffic, at_once, route
from noria.domain.alert import Alert, AlertState, RuleState, Seen, Severity
from noria.domain.errors import InvalidProject
from noria.domain.events import AlertRaised, DriftDetected, WindowClosed, WindowJudged
from noria.domain.monitor import MonitorKind, MonitorState, Moved
from noria.domain.run import Run, RunState, StepDone, Trigger, TriggerCursor, TriggerKind
from noria.monitoring.alerts import Alerts, Causes, Rules, what_next
from noria.monitoring.alerts.judging import judge, remember
from noria.projectfile import parse_project
from noria.settings import AlertRule, Project
from noria.tables import DRIFT_METRICS, PROFILE_METRICS

P95 = {"metric": "execution_duration_ms.p95", "above": 500}
QUANTILES = [float(i) for i in range(101)]


class Bench:
    """One endpoint with rules, whose windows a test writes."""

    def __init__(self, **rules):
        self.clock = Clock(BEGIN + 100 * HOUR)
        self.state, self.records, self.slack = FakeState(self.clock), MemoryRecords(), FakeNotifier("slack")
        self.traffic, self.number, self.next = Traffic(self.records), 0, 0
        self.outbox = outbox(self.state, self.clock, self.slack)
        causes = Causes(self.state, self.clock, lambda _: (), showing(self.records), self.said)
        self.alerts = Alerts(self.state, self.clock, causes, self.outbox)
        self.rules = Rules(self.state, self.clock, self.records, lambda: self.project, causes, self.outbox)
        self.serve("1")
        self.ask(rules)

    def ask(self, rules, **training):
        source = {"training": {"data": "d.csv", **training}}
        triage = {"task": "classification", "policy": "p.yaml", "alerts": rules, **source}
        self.project = Project.model_validate({"project": "care", "endpoints": {"triage": triage}})

    def said(self, endpoint):
        return self.project.endpoints[endpoint].alerts

    def serve(self, version):
        with self.state.note() as note:
            note.put(route(version))

    def event(self, number=None):
        start = BEGIN + (self.next if number is None else number) * HOUR
        return WindowClosed(endpoint="triage", start=start, end=start + HOUR)

    def window(self, *rows, table="profile_metrics", number=None, judge=True):
        """A window closes with these rows; without any it has no data."""
        event = self.event(number)
        self.next += number is None
        self.write(event, rows, table)
        if judge:
            self.rules.judge(event, at_once)
        return event

    def write(self, event, rows, table):
        schema = PROFILE_METRICS if table == "profile_metrics" else DRIFT_METRICS
        base = {"window": {"start": event.start, "end": event.end}, "endpoint": "triage", "model_id": "*"}
        if rows:
            self.number += 1
            written = pa.Table.from_pylist([base | row for row in rows], schema=schema)
            self.records.append(table, written, "test", self.number)

    def p95(self, *values):
        """Windows with these 95th percentiles of the latency; None for a window without data."""
        for value in values:
            rows = [] if value is None else [latency(value)]
            self.window(*rows)
        return self.alert("slow")

    def alert(self, name):
        return self.state.get(Alert, f"triage:{name}")

    def stands(self, name="slow"):
        found = self.alert(name)
        return "none" if found is None else found.state.value


def latency(value, **more):
    quantiles = [*QUANTILES[:95], float(value), *([float(value)] * 5)]
    return {"column_name": "execution_duration_ms", "quantiles": quantiles, "count": 40, "avg": value / 2, **more}


def test_a_value_above_the_threshold_fires_and_one_below_it_resolves():
    bench = Bench(slow=P95)
    alert = bench.p95(812)
    assert alert.state is AlertState.FIRING
    assert alert.summary == (
        "execution_duration_ms.p95 of triage is 812, above 500, since 2 March 2026 09:00 UTC"
        " (a plain threshold: it may be chance)."
    )
    assert (alert.how_sure, alert.by_threshold, alert.rows, alert.severity) == (
        "a plain threshold: it may be chance", True, 40, Severity.WARNING,
    )  # fmt: skip
    assert bench.p95(500).state is AlertState.RESOLVED
    assert "execution_duration_ms.p95 is 500 now" in bench.alert("slow").resolution
    assert [e.action for e in bench.state.audit_trail()] == ["alert.raised", "alert.resolved"]


def test_three_of_five_windows_and_the_newest_have_to_be_beyond():
    bench = Bench(slow=P95 | {"windows": "3 of 5"})
    seen = []
    for value in (900, 100, 900, 100, 900):
        bench.p95(value)
        seen.append(bench.stands())
    assert seen == ["pending", "resolved", "pending", "resolved", "firing"]
    assert "in 3 of the last 5 windows" in bench.alert("slow").summary
    assert [e.action for e in bench.state.audit_trail()].count("alert.raised") == 1


def test_it_is_over_only_once_fewer_windows_than_that_are_not_clear():
    bench = Bench(slow=P95 | {"windows": "2 of 3", "clear": 300})
    bench.p95(900, 900)
    seen = []
    for value in (400, 200, 200):
        bench.p95(value)
        seen.append(bench.stands())
    assert seen == ["firing", "firing", "resolved"]


def test_a_window_without_data_neither_fires_nor_resolves():
    bench = Bench(slow=P95 | {"windows": "2 of 2"})
    bench.p95(900, None, math.nan, 900)
    assert bench.stands() == "firing"
    bench.p95(None, None, math.nan)
    assert bench.stands() == "firing"


def test_a_window_of_no_records_is_one_without_data():
    bench = Bench(slow={"metric": "table.count", "above": 0})
    bench.window({"column_name": ":table", "count": 7})
    bench.window({"column_name": ":table", "count": 0})
    assert bench.stands() == "firing"


def test_people_are_told_of_what_fires_and_not_of_what_is_pending():
    bench = Bench(slow=P95 | {"windows": "2 of 2"})
    bench.p95(900)
    bench.clock.at += HOUR
    bench.outbox.turn(at_once_told)
    assert (bench.stands(), bench.slack.told) == ("pending", [])
    bench.p95(100, 900, 900)
    bench.clock.at += HOUR
    bench.outbox.turn(at_once_told)
    assert [a.state for a in bench.slack.told] == [AlertState.FIRING]


def test_a_window_that_is_folded_in_again_changes_nothing_and_one_with_other_records_counts_anew():
    bench = Bench(slow=P95 | {"windows": "2 of 3"})
    bench.p95(900, 100)
    before = list(bench.state.audit_trail())
    for number in (0, 1, 0):
        bench.rules.judge(bench.event(number), at_once)
    assert list(bench.state.audit_trail()) == before
    bench.records = MemoryRecords()  # the second window's rows are replaced: late records came
    object.__setattr__(bench.rules, "records", bench.records)
    bench.window(latency(900), number=1)
    assert bench.stands() == "firing"


@pytest.mark.parametrize(
    ("rule", "rows", "table", "value"),
    [
        ({"metric": "error.avg", "above": 0.05}, [{"column_name": "error", "avg": 0.2}], "profile_metrics", 0.2),
        ({"metric": "table.count", "below": 10}, [{"column_name": ":table", "count": 3}], "profile_metrics", 3),
        ({"metric": "feature.age.percent_null", "above": 5}, [{"column_name": "feature.age", "percent_null": 9.0}],
         "profile_metrics", 9),
        ({"metric": "quality.accuracy_score", "below": 0.7}, [{"column_name": ":table", "accuracy_score": 0.6}],
         "profile_metrics", 0.6),
        ({"metric": "quality.f1_score", "below": 0.7}, [{"column_name": ":table", "f1_score": {"macro": 0.5}}],
         "profile_metrics", 0.5),
        ({"metric": "quality.rouge_l", "below": 0.7}, [{"column_name": "quality.rouge_l", "avg": 0.4}],
         "profile_metrics", 0.4),
        ({"metric": "text.population_stability_index", "above": 0.2},
         [{"monitor": "text", "column_name": "input", "drift_type": "BASELINE", "population_stability_index": 0.3},
          {"monitor": "text", "column_name": "input", "drift_type": "CONSECUTIVE", "population_stability_index": 9.0}],
         "drift_metrics", 0.3),
        ({"metric": "input.ks_test", "above": 0.2, "against": "previous"},
         [{"monitor": "text", "column_name": "input", "drift_type": "CONSECUTIVE", "ks_test": {"statistic": 0.5}}],
         "drift_metrics", 0.5),
        ({"metric": "execution_duration_ms.p95", "above": 500, "slice": "metadata.country=DE"},
         [latency(100), latency(900, slice_key="metadata.country", slice_value="DE")], "profile_metrics", 900),
        ({"metric": "execution_duration_ms.max", "above": 500},
         [{"column_name": "execution_duration_ms", "max": math.inf}], "profile_metrics", math.inf),
    ],
    ids=["rate", "count", "feature", "accuracy", "by class", "measure", "drift", "previous", "slice", "infinite"],
)  # fmt: skip
def test_any_statistic_of_the_tables_can_be_watched(rule, rows, table, value):
    bench = Bench(slow=rule)
    bench.window(*rows, table=table)
    assert bench.stands() == "firing"
    assert bench.alert("slow").value == value


def test_other_windows_and_other_versions_rows_are_left_alone():
    bench = Bench(slow=P95)
    event = bench.event()
    bench.write(event, [latency(900, model_id="triage/7")], "profile_metrics")
    day = {"window": {"start": event.start, "end": event.start + 24 * HOUR}}
    bench.write(event, [latency(900, **day)], "profile_metrics")
    bench.rules.judge(event, at_once)
    assert bench.stands() == "none"


def test_drift_of_a_new_champion_begins_anew():
    rule = {"metric": "text.js_distance", "above": 0.2, "windows": "2 of 2"}
    bench = Bench(slow=rule)
    row = {"monitor": "text", "column_name": "input", "drift_type": "BASELINE", "js_distance": 0.5}
    bench.window(row | {"model_id": "triage/1"}, table="drift_metrics")
    bench.serve("2")
    bench.window(row | {"model_id": "triage/2"}, table="drift_metrics")
    assert bench.stands() == "pending"
    bench.window(row | {"model_id": "triage/2"}, table="drift_metrics")
    assert bench.stands() == "firing"


def test_an_alert_shows_the_slices_and_the_records_in_which_it_shows_most():
    bench = Bench(slow={"metric": "execution_duration_ms.avg", "above": 5})
    ids = bench.traffic.ask([f"question {n}" for n in range(7)], ["a"] * 7)
    rows = [latency(900)] + [
        latency(v, slice_key="requester", slice_value=n) for n, v in (("a", 2), ("b", 40), ("c", 9))
    ]
    bench.window(*rows)
    alert = bench.alert("slow")
    assert [(s.key, s.value, s.now) for s in alert.slices] == [
        ("requester", "b", 20.0), ("requester", "c", 4.5), ("requester", "a", 1.0),
    ]  # fmt: skip
    assert [(r.request_id, r.text, r.value) for r in alert.records] == [
        (ids[n], f"question {n}", 5.0 + n) for n in (6, 5, 4)
    ]


def test_records_that_show_what_only_their_bodies_say_are_found():
    bench = Bench(slow={"metric": "length.max", "above": 20})
    ids = bench.traffic.ask(["short", "a question that is long", "of middling length", "ok"], ["a"] * 4)
    bench.window({"column_name": "input_length", "max": 23.0, "count": 4})
    assert [(r.request_id, r.value) for r in bench.alert("slow").records] == [
        (ids[1], 23.0), (ids[2], 18.0), (ids[0], 5.0),
    ]  # fmt: skip
    assert bench.alert("slow").records[0].text == "a question that is long"


def test_a_threshold_on_drift_shows_the_cells_that_moved():
    bench = Bench(slow={"metric": "text.js_distance", "above": 0.2})
    moved = (Moved("iphone, battery", 0.001, 0.2, ("my iphone died",)),)
    object.__setattr__(bench.rules.causes, "moved", lambda state: moved if state.monitor == "text" else ())
    evidence(bench, 1.0)
    evidence(bench, 1.0, "length")
    row = {"monitor": "text", "column_name": "input", "drift_type": "BASELINE", "js_distance": 0.5}
    bench.window(row | {"model_id": "triage/1"}, table="drift_metrics")
    assert bench.alert("slow").moved == moved


def test_what_no_single_record_shows_is_shown_by_the_newest():
    bench = Bench(slow={"metric": "quality.accuracy_score", "below": 0.7})
    ids = bench.traffic.ask([f"question {n}" for n in range(5)], ["a"] * 5)
    bench.window({"column_name": ":table", "accuracy_score": 0.6, "count": 5})
    assert [r.request_id for r in bench.alert("slow").records] == ids[:1:-1]


def test_a_rule_may_look_at_longer_windows_and_otherwise_does_not():
    daily = P95 | {"window": "1d"}
    bench = Bench()
    source = {"training": {"data": "d.csv"}, "monitors": {"window": "1h", "granularities": ["1d"]}}
    triage = {"task": "classification", "policy": "p.yaml", "alerts": {"hourly": P95, "daily": daily}, **source}
    bench.project = Project.model_validate({"project": "care", "endpoints": {"triage": triage}})
    day = WindowClosed(endpoint="triage", start=BEGIN, end=BEGIN + 24 * HOUR, longer=True)
    bench.write(day, [latency(900)], "profile_metrics")
    bench.window(latency(100))
    bench.rules.judge(day, at_once)
    assert (bench.stands("hourly"), bench.stands("daily")) == ("none", "firing")
    said = WindowJudged(endpoint="triage", start=day.start, end=day.end, at=BEGIN)
    before = list(bench.state.audit_trail())
    bench.rules.judge(said, at_once)
    assert list(bench.state.audit_trail()) == before


def test_a_rule_about_windows_that_nobody_computes_is_refused():
    with pytest.raises(ValueError, match=r"alerts\.slow\.window: no windows are that long"):
        Bench(slow=P95 | {"window": "1d"})


def test_a_promise_that_was_broken_is_an_alert_with_the_share_and_the_records_that_broke_it():
    bench = Bench()
    bench.traffic.ask([f"question {n}" for n in range(4)], ["a"] * 4)
    state = MonitorState(
        id="triage:error:1", endpoint="triage", monitor="error", kind=MonitorKind.SCORE, model_version="1",
        since=BEGIN, folded_until=BEGIN + HOUR, rows=400, log_e=9.0, log_threshold=4.4, column="error",
        numbers={"mean": 0.042, "floor": 0.01},
    )  # fmt: skip
    with bench.state.note() as note:
        note.put(state)
    bench.alerts.raise_alert(
        DriftDetected(endpoint="triage", monitor="error", state_id=state.id, since=state.since), at_once
    )
    alert = bench.state.get(Alert, state.id)
    assert alert.summary.startswith("error of triage is worse than was promised: 4.20% instead of at most 1.00%, since")
    assert len(alert.records) == 3


def test_a_rule_that_is_gone_from_the_project_is_resolved():
    bench = Bench(slow=P95)
    bench.p95(900)
    bench.ask({})
    bench.window()
    assert bench.alert("slow").resolution == "noria.yaml has no such rule any more."


def test_another_threshold_begins_anew_and_another_severity_does_not():
    bench = Bench(slow=P95 | {"windows": "2 of 2"})
    bench.p95(900)
    bench.ask({"slow": P95 | {"windows": "2 of 2", "severity": "critical"}})
    assert bench.p95(900).severity is Severity.CRITICAL
    bench.ask({"slow": P95 | {"above": 600, "windows": "2 of 2"}})
    bench.p95(100)
    assert len(bench.state.get(RuleState, "triage:slow").seen) == 1


def evidence(bench, log_e, monitor="text"):
    state = MonitorState(
        id=f"triage:{monitor}:1", endpoint="triage", monitor=monitor, kind=MonitorKind.TEXT_DRIFT, model_version="1",
        since=BEGIN, folded_until=BEGIN + HOUR, rows=400, log_e=log_e, log_threshold=4.4,
    )  # fmt: skip
    with bench.state.note() as note:
        note.put(state)
    return state


def test_a_monitors_odds_can_warn_before_its_alarm_and_are_no_plain_threshold():
    bench = Bench(early={"monitor": "text", "above": 20, "severity": "info"})
    evidence(bench, math.log(19))
    bench.window()
    assert bench.state.find(Alert) == []
    evidence(bench, math.log(21))
    bench.window()
    bench.window()
    (alert,) = bench.state.find(Alert)
    assert (alert.id, alert.monitor, alert.by_threshold, alert.how_sure) == (
        "triage:early:1", "early", False, "evidence 21 to 1",
    )  # fmt: skip
    assert alert.severity is Severity.INFO


def test_the_project_says_how_grave_a_monitors_own_alarm_is_and_whether_it_starts_a_run():
    bench = Bench(text={"monitor": "text", "severity": "info", "trigger": False})
    for monitor in ("text", "length"):
        state = evidence(bench, 9.0, monitor)
        event = DriftDetected(endpoint="triage", monitor=monitor, state_id=state.id, since=state.since)
        bench.alerts.raise_alert(event, at_once)
    text, length = bench.state.get(Alert, "triage:text:1"), bench.state.get(Alert, "triage:length:1")
    assert (text.severity, text.asks_for_run) == (Severity.INFO, False)
    assert (length.severity, length.asks_for_run) == (Severity.CRITICAL, True)


def test_a_rule_asks_for_a_run_only_if_it_says_so():
    assert not Bench(slow=P95).p95(900).asks_for_run
    bench = Bench(slow=P95 | {"trigger": True})
    assert bench.p95(900).asks_for_run
    assert [e for e in bench.state.pending_events() if isinstance(e, AlertRaised)]


def run_of(alert, state, **more):
    cause = AlertRaised(endpoint="triage", alert_id=alert.id, at=alert.raised_at).id
    trigger = Trigger(kind=TriggerKind.ALERT, cause=cause, actor="noria", reason="r")
    return Run(id="r1", endpoint="triage", trigger=trigger, state=state, started_at=BEGIN, model="triage", **more)


LABELS = StepDone(name="labels", started_at=BEGIN, finished_at=BEGIN, summary="41 of 200 labels since the alarm")


@pytest.mark.parametrize(
    ("noun", "says"),
    [
        (lambda a: run_of(a, RunState.RUNNING), "run r1 is under way"),
        (lambda a: run_of(a, RunState.RUNNING, steps=(LABELS,)), "run r1 waits for labels: 41 of 200 labels"),
        (lambda a: run_of(a, RunState.SUCCEEDED, version="3"), "run r1 has registered triage/3, and its gates decide"),
        (lambda a: run_of(a, RunState.FAILED, error="Too few."), "run r1 failed: Too few"),
        (lambda a: TriggerCursor(endpoint="triage", postponed=a.id, why="run r0 is under way"),
         "a run waits: run r0 is under way"),
        (lambda a: None, "whether a run is started is being decided"),
    ],
    ids=["runs", "waits for labels", "done", "failed", "put off", "undecided"],
)  # fmt: skip
def test_an_alert_says_what_happens_next(noun, says):
    bench = Bench(slow=P95 | {"trigger": True})
    alert = bench.p95(900)
    if (made := noun(alert)) is not None:
        with bench.state.note() as note:
            note.put(made)
    assert what_next(bench.state, bench.project, alert).startswith(says)


def test_an_alert_of_which_nothing_comes_says_why():
    bench = Bench(slow=P95)
    alert = bench.p95(900)
    assert what_next(bench.state, bench.project, alert) == "nothing by itself: its rule starts no run"
    bench.ask({"slow": P95 | {"trigger": True}}, on_alert=False)
    bench.p95(100)
    alert = bench.p95(900)
    assert what_next(bench.state, bench.project, alert) == "nothing by itself: training.on_alert is off"
    assert what_next(bench.state, bench.project, alert.resolve(bench.clock.at, "over")) == ""


values = st.floats(allow_nan=False)


@given(st.lists(values, min_size=1, max_size=12), st.integers(1, 4), st.integers(0, 4))
def test_what_fires_has_its_windows_and_what_is_well_does_not_fire(found, needed, more):
    rule = AlertRule(metric="a.avg", above=0.0, clear=-1.0, windows=f"{needed} of {needed + more}")
    seen = [Seen(BEGIN + n * HOUR, value, "*") for n, value in enumerate(found)]
    finding = judge(rule, seen)
    last = found[-(needed + more) :]
    assert finding.fires == (last[-1] > 0 and sum(v > 0 for v in last) >= needed)
    assert finding.well == (last[-1] <= -1 and sum(v > -1 for v in last) < needed)
    assert not (finding.fires and finding.well)


@given(st.permutations(range(8)), st.integers(1, 8))
def test_windows_are_remembered_alike_in_whatever_order_they_come(order, most):
    seen = ()
    for n in order:
        for _ in range(2):
            seen = remember(seen, Seen(BEGIN + n * HOUR, float(n), "*"), most)
    newest = [s.value for s in seen]
    assert newest == sorted(newest)
    assert newest[-1] == 7.0
    if most == 8:
        assert newest == [float(n) for n in range(8)]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("{metric: latency, above: 5}", "COLUMN.STATISTIC"),
        ("{metric: a.average, above: 5}", "COLUMN.STATISTIC"),
        ("{metric: a.avg}", "either above or below"),
        ("{metric: a.avg, above: 5, below: 1}", "either above or below"),
        ("{above: 5}", "either metric or monitor"),
        ("{metric: a.avg, above: 5, clear: 6}", "clear has to be at or below above"),
        ("{metric: a.avg, below: 5, clear: 4}", "clear has to be at or above below"),
        ("{metric: a.avg, above: 5, windows: 6 of 5}", "such as 3 of 5"),
        ("{metric: a.avg, above: 5, windows: 3}", "write text"),
        ("{metric: a.avg, above: 5, slice: DE}", "KEY=VALUE"),
        ("{metric: a.avg, above: 5, severity: grave}", "isn't known; write one of info, warning, critical"),
        ("{monitor: text, below: 5}", "only above, severity, group and trigger"),
        ("{monitor: text, above: 0.5}", "odds above 1"),
        ("{monitor: tempo, above: 20}", "that monitor isn't on; name one of monitors.watch: length, prediction"),
    ],
)
def test_a_rule_that_can_not_be_meant_is_refused_with_what_to_write(tmp_path, rule, says):
    yaml = (
        "project: p\nendpoints:\n  a:\n    task: classification\n    policy: p.yaml\n    training: {data: d.csv}\n"
        f"    alerts:\n      slow: {rule}\n"
    )
    with pytest.raises(InvalidProject, match=says):
        parse_project(yaml, tmp_path)


def test_a_rule_may_not_be_called_what_norias_own_alerts_are(tmp_path):
    with pytest.raises(ValueError, match=r"alerts\.registry: Noria's own alerts"):
        Bench(registry=P95)


def test_half_an_hour_later_the_alert_is_what_it_was():
    bench = Bench(slow=P95)
    first = bench.p95(900)
    bench.clock.at += timedelta(minutes=30)
    assert bench.p95(950) == first
