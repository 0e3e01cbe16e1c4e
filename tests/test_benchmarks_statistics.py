"""The simulations: bounds agree with known ones, streams are what they say, figures tell what is met."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.statistics import bounds, counted, figures, kinds, others, pictures, scored

PLAN = kinds.Plan(null=6, delay=3, peer_streams=1, peer_seconds=1)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_the_bound_is_the_textbooks_sample_size():
    assert bounds.fixed_n_shift(0.1, 0.05) == pytest.approx(1.6449**2 / 0.01, rel=1e-3)
    assert bounds.fixed_n([0.2, 0.8], [0.22, 0.78], 0.05) == pytest.approx(1.6449**2 * 0.16 / 0.02**2, rel=0.15)


def test_a_new_class_is_found_when_half_of_the_streams_have_shown_it():
    assert bounds.fixed_n([1, 0], [0.95, 0.05], 0.05) == pytest.approx(math.log(0.5) / math.log(0.95), abs=1)


def test_a_reference_that_knows_too_little_makes_the_bound_longer_or_infinite():
    assert bounds.fixed_n_shift(0.1, 0.05, 5000) > bounds.fixed_n_shift(0.1, 0.05, 50_000)
    assert bounds.fixed_n_shift(0.1, 0.05, 200) == math.inf


@pytest.mark.parametrize("run", range(8))
def test_every_shape_of_numbers_and_categories_is_counted_whole(rng, run):
    for stream in (counted.numbers, counted.categories):
        found = stream(rng, 500, run=run)
        looks = found.looks(7, 30)
        assert looks.shape == (7, found.reference.size)
        assert (looks.sum(axis=1) == 30).all()
        assert found.evidence(7, 30).shape == (7,)


def test_an_alarm_is_told_in_rows_and_agrees_with_the_evidence(rng):
    stream = counted.numbers(rng, 2000, 0.5)
    assert 20 <= stream.first_alarm(kinds.LINE, 150, 20) <= 400
    assert counted.numbers(rng, 2000).first_alarm(1e9, 150, 20) is None


def test_a_shift_after_calm_rows_leaves_those_alone(rng):
    counts = counted.numbers(rng, 2000, 9.0, calm=300).looks(6, 100)
    assert counts[:3, :-2].sum() > 200
    assert counts[3:, :-2].sum() == 0


@pytest.mark.parametrize("mean", [0.75, 0.78, 0.8])
def test_scores_have_the_mean_that_they_should_have(rng, mean):
    for run in (0, 1):
        counts = scored._scores(rng, mean, run, 100, 2000)
        values = np.arange(counts.shape[1]) / (counts.shape[1] - 1)
        assert (counts @ values).sum() / counts.sum() == pytest.approx(mean, abs=0.005)


@pytest.mark.parametrize("kind", ["score", "canary", "parity", "paired"])
def test_each_kind_says_how_often_it_alarmed_and_how_soon(kind):
    found = kinds.KINDS[kind](PLAN)
    assert found["streams"] == PLAN.null
    assert found["interval"][0] <= found["alarm_rate_null"] <= found["interval"][1]
    assert set(found.get("median_delay", {})) == set(found.get("fixed_n", {}))
    assert figures.verdict(found) in ("met", "missed")


def test_the_table_tells_others_beside_ours_and_why_a_figure_is_missing():
    ours = {"alarm_rate_null": 0.01, "alpha": 0.05, "streams": 300, "interval": [0, 0.03], "median_delay": {"x": 900}}
    ours |= {"fixed_n": {"x": 100.0}, "found": {"x": 1.0}}
    ours["peers"] = {"nannyml": {"alarm_rate_null": 1.0, "streams": 5, "interval": [0.5, 1], "looks": 1000}}
    report = {"numeric": ours, "text": None, "reasons": {"nannyml on text": "it has none"}}
    said = figures.table(report)
    assert "NannyML: 100.0% of 5" in said
    assert "x: 900 rows" in said
    assert said.endswith("nannyml on text is missing: it has none")
    assert "| numeric | 1.0% of 300" in figures.markdown(report)
    assert figures.verdict(ours) == "met"
    assert figures.verdict(ours | {"alarm_rate_null": 0.06}) == "missed"
    assert figures.verdict(None) == ""


def test_a_test_at_each_look_alarms_in_unchanged_streams():
    alarms = others.daily("score", 3)
    assert alarms.rate == 1
    assert max(alarms.first) < others.LOOKS / 2


def test_pictures_show_streams_and_the_alarm_line(tmp_path: Path):
    spec = pictures.false_alarms({"Noria": [None, None, 700], "NannyML, defaults": [5, 60, 90]})
    pictures.save(spec, tmp_path / "picture.svg")
    assert "<svg" in (tmp_path / "picture.svg").read_text()
    last = {value["what"]: value["share"] for value in spec["data"]["values"]}
    assert last == {"Noria": pytest.approx(1 / 3), "NannyML, defaults": 1}


@pytest.mark.slow
def test_the_command_writes_every_kind_and_null_for_what_was_not_measured(tmp_path: Path):
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.statistics", "--quick", "--only", "parity", "--without-peers"]
    root = Path(__file__).parents[1]
    subprocess.run([*command, "--json", str(file)], check=True, capture_output=True, cwd=root, timeout=200)
    report = json.loads(file.read_text())
    assert set(kinds.KINDS) <= set(report)
    assert report["parity"]["alarm_rate_null"] <= report["parity"]["alpha"]
    assert report["numeric"] is None
