"""The charts draw what the drift table holds."""

import math
import re
from datetime import timedelta

import pytest

from fakes.story import THRESHOLD, before, drift_rows
from noria.monitoring import charts


def points(spec: dict) -> list[dict]:
    return spec["data"]["values"]


def test_evidence_is_drawn_on_a_logarithmic_scale_with_the_line_of_the_alarm() -> None:
    spec = charts.evidence(drift_rows())
    assert spec is not None
    last = [p for p in points(spec) if p["monitor"] == "text"][-1]
    assert last["value"] == pytest.approx(drift_rows()[-4]["log_e"] / math.log(10), abs=1e-5)
    line = spec["layer"][0]["encoding"]["y"]["datum"]
    assert line == pytest.approx(THRESHOLD / math.log(10))
    assert "alarm at 80 : 1" in spec["layer"][1]["mark"]["text"]


def test_evidence_for_no_change_is_drawn_at_the_floor() -> None:
    rows = [{**drift_rows()[0], "log_e": -80.0}]
    spec = charts.evidence(rows)
    assert spec is not None
    assert points(spec)[0]["value"] == charts.FLOOR


def test_comparisons_with_the_window_before_are_not_drawn() -> None:
    rows = [{**r, "drift_type": "CONSECUTIVE"} for r in drift_rows()]
    assert charts.evidence(rows) is None
    assert charts.effect(rows, "js_distance") is None


@pytest.mark.parametrize("rows", [[], [{**drift_rows()[0], "log_e": None, "js_distance": None}]])
def test_nothing_is_drawn_from_nothing(rows: list[dict]) -> None:
    assert charts.evidence(rows) is None
    assert charts.effect(rows, "js_distance") is None
    assert charts.accuracy(rows) is None
    assert charts.draw(None, "full", "") == ""


def test_a_new_champion_begins_a_new_line() -> None:
    rows = drift_rows(4)
    for row in rows[8:]:
        row["model_id"] = "triage/3"
    spec = charts.effect(rows, "js_distance")
    assert spec is not None
    assert {p["version"] for p in points(spec)} == {"triage/1", "triage/3"}
    assert spec["layer"][-1]["encoding"]["detail"]["field"] == "version"


def test_accuracy_is_drawn_where_labels_came_in() -> None:
    spec = charts.accuracy(drift_rows(6))
    assert spec is not None
    assert len(points(spec)) == 6
    assert points(spec)[0]["value"] == 0.79
    assert spec["layer"][1]["mark"]["text"] == "promised: 76%"


def test_a_chart_is_drawn_for_wide_and_for_narrow_screens_in_the_pages_own_colours() -> None:
    drawn = str(charts.draw(charts.evidence(drift_rows()), "full", "a <b>"))
    wide, narrow = (int(width) for width in re.findall(r'<svg[^>]* width="(\d+)"', drawn))
    assert wide > 1000
    assert narrow < 350
    assert "var(--c1)" in drawn
    assert "var(--alarm)" in drawn
    assert "style=" not in drawn
    assert drawn.count('role="img" aria-label="a &lt;b&gt;"') == 2


def test_names_in_a_chart_are_text() -> None:
    start = before(minutes=1)
    row = {"window": {"start": start, "end": start + timedelta(minutes=1)}, "monitor": "<img src=x>",
           "drift_type": "BASELINE", "js_distance": 0.1}  # fmt: skip
    other = {**row, "monitor": "b"}
    drawn = str(charts.draw(charts.effect([row, other], "js_distance"), "half", ""))
    assert "<img" not in drawn
    assert "&lt;img" in drawn


def test_a_span_of_days_is_labelled_with_days() -> None:
    rows = drift_rows(2)
    rows[-1]["window"] = {"start": before(minutes=1), "end": before(days=-3)}
    spec = charts.effect(rows, "js_distance")
    assert spec is not None
    assert "%b" in spec["layer"][-1]["encoding"]["x"]["axis"]["format"]


def test_a_long_history_is_cut_to_its_newest_windows_and_drawn_without_dots() -> None:
    short, long = (charts.effect(drift_rows(n), "js_distance") for n in (8, charts.MOST + 50))
    assert short is not None
    assert long is not None
    assert short["layer"][-1]["mark"]["point"]
    assert long["layer"][-1]["mark"]["point"] is False
    assert len({p["at"] for p in points(long)}) == charts.MOST
