"""Reports say what the tables and the state hold, and what callers wrote stays text."""

import re
import struct
from datetime import datetime, timedelta
from html.parser import HTMLParser

import msgspec
import pytest

from fakes import traffic
from fakes.reported import BEGIN, HOUR, MOVED, PROJECT, Reported
from fakes.story import XSS
from monitoring.test_monitors import AIRLINES, APPLE, Stage, answers, messages
from noria.domain.monitor import MonitorKind, MonitorState
from noria.evaluation.baseline import Baseline
from noria.monitoring.reports import Reporter, figures
from noria.monitoring.reports.page import page
from noria.monitoring.reports.poster import MOST_LINES, poster, said, specification
from noria.monitoring.reports.windows import MOST_SHOWN
from noria.monitoring.reports.words import baseline_of, evidence_in_words, to_an_alarm, watches
from noria.settings import Monitors


@pytest.fixture(scope="module")
def told():
    return Reported()


def reporter(told):
    return Reporter(told.state, told.records, PROJECT, told.clock, moved=lambda _: MOVED, next=lambda _: "a run waits")


def reported(told, since=None, until=None):
    return reporter(told).report(since or told.begin, until or told.until, list(PROJECT.endpoints))


@pytest.fixture(scope="module")
def found(told):
    return reported(told)


@pytest.fixture(scope="module")
def html(found):
    return page(found)


def of(found, name):
    return next(endpoint for endpoint in found["endpoints"] if endpoint["name"] == name)


def test_a_report_is_plain_json(found):
    assert msgspec.json.decode(msgspec.json.encode(found)) == found


def test_it_says_first_what_alarms(found):
    assert found["headline"].startswith("triage: What callers write to triage has changed")
    assert [(e["name"], e["mood"], e["firing"]) for e in found["endpoints"]] == [
        ("triage", "alarm", 1),
        ("assistant", "calm", 0),
    ]
    calm = reported(Reported(12, None))
    assert calm["headline"].startswith("Nothing alarms. The most that speaks for a change is")


def test_totals_are_those_of_all_windows(told, found):
    triage = of(found, "triage")
    assert triage["windows"] == 48
    assert triage["totals"]["requests"] == sum(row["count"] for row in triage["traffic"])
    share = triage["totals"]["error"]
    assert share["avg"] == pytest.approx(share["sum"] / share["count"])
    assert triage["completeness"] == {
        "recorded": triage["totals"]["requests"],
        "counted": triage["totals"]["requests"],
        "waiting": 0,
    }
    assert of(found, "assistant")["totals"]["cost_usd"]["sum"] > 0


def test_percentiles_of_a_span_come_from_the_sum_of_its_windows(found):
    spread = of(found, "assistant")["spread"]["execution_duration_ms"]
    assert spread["p50"] == pytest.approx(587, rel=0.05)  # the median of a gamma distribution (4, 160)
    assert spread["p50"] < spread["p95"] < spread["p99"]


def test_records_that_no_window_has_counted_are_told(told):
    half = told.begin + 24 * HOUR
    later = of(reported(told, half - timedelta(minutes=30), told.until), "triage")["completeness"]
    assert later["waiting"] == later["recorded"] - later["counted"] > 0


def test_monitors_stand_in_the_order_of_their_evidence_with_what_moved(found):
    monitors = of(found, "triage")["monitors"]
    assert {m["monitor"] for m in monitors[:2]} == {"text", "prediction"}
    assert all(m["alarms"] for m in monitors[:2])
    text = next(m for m in monitors if m["monitor"] == "text")
    assert text["moved"][0]["name"] == "apple, iphone, store"
    assert [s["slice_value"] for s in text["slices"]] == ["shop", XSS]
    assert text["effects"]["population_stability_index"] == 0.31
    assert "counts" not in text


def test_an_alert_says_what_happens_next(found):
    (alert,) = of(found, "triage")["alerts"]
    assert alert["next"] == "a run waits"
    assert alert["moved"][0]["examples"][1] == XSS


def test_a_column_of_few_values_shows_how_its_mix_changed(told):
    mix = of(reported(told), "triage")["mix"]["prediction"]
    assert {row["value"] for row in mix} == {"negative", "neutral", "positive"}
    assert sum(row["now"] for row in mix) == pytest.approx(1)


def test_quality_has_its_intervals(found):
    rows = of(found, "triage")["quality"]["quality.accuracy"]
    assert all(row["low"] <= row["avg"] <= row["high"] for row in rows)
    spec = figures.quality(of(found, "triage"))
    assert len(spec["layer"]) == 2


def test_an_endpoint_that_saw_nothing_has_a_report_that_says_so(told):
    nothing = reported(told, BEGIN - 48 * HOUR, BEGIN - 24 * HOUR)
    assert nothing["headline"] == "No window has closed in this time, so there is nothing to say yet."
    assert [e["totals"]["requests"] for e in nothing["endpoints"]] == [0, 0]
    assert "0 of 0 requests" in page(nothing)
    assert poster(nothing).startswith(b"\x89PNG")


@pytest.mark.slow
def test_many_windows_are_summed_and_the_newest_are_drawn():
    many = of(reported(Reported(MOST_SHOWN + 20, None)), "assistant")
    assert many["windows"] == MOST_SHOWN + 20
    assert len(many["traffic"]) == many["windows_shown"] == MOST_SHOWN
    assert many["totals"]["requests"] > sum(row["count"] for row in many["traffic"])
    points = figures.rates(many)["data"]["values"]
    assert len({p["at"] for p in points}) <= 112
    assert "Pictures show the newest 400 of 420 windows." in page({"endpoints": [many], **HEAD})


HEAD = {"project": "p", "since": BEGIN.isoformat(), "until": BEGIN.isoformat(), "at": BEGIN.isoformat(), "headline": ""}


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, html):
        super().__init__()
        self.seen = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_the_page_is_one_file_that_fetches_nothing_and_runs_nothing(html):
    tags = Tags(html).seen
    assert html.startswith("<!doctype html>")
    assert not {"script", "link", "img", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in tags}
    for _, attributes in tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "xlink:href", "src"):
            assert attributes.get(name, "#").startswith("#")
    assert "http-equiv" in html
    assert not re.search(r"url\(|@import", html)
    assert sum(tag == "svg" for tag, _ in tags) > 20


def test_what_callers_wrote_is_text_on_the_page(html):
    assert XSS not in html
    assert "&lt;script&gt;document.title" in html


def test_odd_names_are_text_everywhere(told):
    odd = reported(told)
    for endpoint in odd["endpoints"]:
        endpoint["name"] = endpoint["champion"] = XSS
        for row in endpoint["drift"]:
            row["monitor"] = XSS
        for monitor in endpoint["monitors"]:
            monitor["monitor"] = XSS
        endpoint["mix"] = {XSS: [{"value": XSS, "before": 0.5, "now": 0.5}]}
    drawn = page({**odd, "project": XSS, "headline": XSS})
    assert "<script" not in drawn
    assert "<img" not in drawn


def test_the_picture_shows_every_endpoint(found):
    spec = specification(found)
    titles = [part.get("title", {}).get("text") for part in spec["vconcat"]]
    assert titles.count("Requests") == 2
    assert "var(--" not in str(spec)
    drawn = poster(found)
    width, height = struct.unpack(">II", drawn[16:24])
    assert width > 1800
    assert height > 3000


def test_what_tells_records_after_a_change_from_those_before_is_named(told):
    monitor = next(m for m in reporter(told).monitors("triage") if m.monitor == "text")
    said = reporter(told).explanation(monitor)
    since, apart = datetime.fromisoformat(said["apart"]["since"]), said["apart"]["found"]
    assert told.begin + 30 * HOUR <= since <= told.begin + 39 * HOUR
    assert apart["low"] > 0.8
    assert {sign["name"] for sign in apart["signs"]} & {"iphone", "apple", "store", "update", "battery"}
    assert len(said["trail"]) == 48
    length = next(m for m in reporter(told).monitors("triage") if m.monitor == "length")
    found = reporter(told).explanation(length)["apart"]
    assert found is None or found["found"] is None or found["found"]["auc"] < 1


def monitor(**more):
    at = BEGIN
    values = {
        "id": "a:text:1",
        "endpoint": "a",
        "monitor": "text",
        "kind": MonitorKind.TEXT_DRIFT,
        "model_version": "1",
    }
    return MonitorState(**{**values, "since": at, "folded_until": at, "rows": 100, "log_threshold": 4.4} | more)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("text", "what callers write"),
        ("execution_duration_ms", "how long answers take"),
        ("feature.age", "the column age of callers' data frames"),
        ("output_toxicity", "toxicity of answers"),
        ("input_readability", "readability of prompts"),
        ("status_code", "status code of requests"),
    ],
)
def test_what_a_monitor_watches_is_said_in_words(name, said):
    assert said in watches(monitor(monitor=name))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"rows": 0}, "no record"),
        ({"log_e": -3.0}, "Nothing speaks for a change after 100 values"),
        ({"log_e": 0.5}, "what no change looks like"),
        ({"log_e": 2.0}, "hardly anything, no alarm"),
        ({"log_e": 3.5}, "worth a look, no alarm"),
        ({"log_e": 9.0}, "It alarms"),
    ],
)
def test_evidence_is_said_in_words(more, said):
    assert said in evidence_in_words(monitor(**more))


def test_what_it_compares_with_and_what_would_make_it_alarm_is_said():
    settings = Monitors.model_validate({"baseline": {"since": "2026-01-01", "until": "2026-02-01"}})
    assert "2026-01-01 00:00 to 2026-02-01 00:00 UTC" in baseline_of(monitor(), settings)
    assert "the first 500 records" in baseline_of(monitor(), Monitors(baseline="first"))
    assert "its trainer left" in baseline_of(monitor(), Monitors())
    quality = monitor(monitor="quality", kind=MonitorKind.QUALITY, numbers={"mean": 0.7, "floor": 0.8})
    assert "at least 0.8" in baseline_of(quality, Monitors())
    assert "it has to stay below 80.0 %" in to_an_alarm(quality, Monitors())
    error = monitor(monitor="error", kind=MonitorKind.SCORE, numbers={"mean": 0.07, "floor": 0.02})
    assert "at most 0.02" in baseline_of(error, Monitors())
    assert "it has to stay above 2.0 %" in to_an_alarm(error, Monitors())
    assert "30 times as much" in to_an_alarm(monitor(log_e=1.0), Monitors())
    assert "An alarm is final" in to_an_alarm(monitor(log_e=9.0), Monitors())


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """Monitors that really ran, over a change in what callers write."""
    watch = ["text", "quality", "prediction", "execution_duration_ms", "error", "input_language"]
    stage = Stage(tmp_path_factory.mktemp("stage"), watch=watch, slices=["requester"], baseline_records=100)
    texts = messages(stage.rng, 1000), messages(stage.rng, 1000)
    right = (stage.rng.random(500) < 0.8).tolist()
    stage.version(Baseline.fit(*texts, answers(stage.rng, 1000), right))
    for hour in range(16):
        stage.turn(60, words=AIRLINES if hour < 10 else APPLE)
    return stage


def test_what_monitors_really_wrote_is_reported(stage):
    reporter = Reporter(stage.state, stage.records, stage.project, stage.clock, moved=stage.monitors.moved)
    found = reporter.report(traffic.BEGIN, stage.begin, ["triage"])
    (triage,) = found["endpoints"]
    assert found["headline"].startswith("triage: text alarms")
    assert triage["mood"] == "alarm"
    assert triage["windows"] == 16
    assert triage["completeness"] == {"recorded": 960, "counted": 960, "waiting": 0}
    assert set(triage["spread"]) == {"execution_duration_ms"}
    text = triage["monitors"][0]
    assert (text["monitor"], text["alarms"]) == ("text", True)
    assert any(word in cell["name"] for cell in text["moved"] for word in APPLE)
    assert {row["monitor"] for row in triage["drift"]} == {m["monitor"] for m in triage["monitors"]}
    assert "text alarms" in page(found)
    apart = reporter.explanation(reporter.monitors("triage")[0])["apart"]
    assert apart["since"] == "2026-03-02T19:00:00Z"
    assert apart["found"]["auc"] > 0.9


def test_every_measure_of_answers_is_in_the_table_and_the_main_ones_are_drawn(found):
    triage = of(found, "triage")
    rows = triage["quality"]["quality.accuracy"]
    names = ("accuracy", "estimated_accuracy", "log_loss", "judge:tone", "judge:tone.kappa")
    more = {**triage, "quality": {f"quality.{name}": rows for name in names}}
    spec = figures.quality(more)
    assert {p["name"] for p in spec["data"]["values"]} == {"accuracy", "estimated accuracy", "judge:tone"}
    drawn = page({**found, "endpoints": [more]})
    assert "log loss" in drawn
    assert "judge:tone.kappa" in drawn
    assert "right, as far as known" in drawn


def test_a_long_sentence_is_told_on_several_lines_of_a_picture_and_only_cut_when_there_is_no_end():
    sentence = " ".join(["the messages to triage changed"] * 9)
    assert " ".join(said(sentence)["mark"]["text"]) == sentence
    endless = said("word " * 1000)["mark"]["text"]
    assert len(endless) == MOST_LINES
    assert endless[-1].endswith("…")
