"""The command line of experiments, on a real project on disk."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fakes.release import passed_verdict
from noria import bootstrap
from noria.adapters.state.sql import SqlState
from noria.cli import app
from noria.domain.endpoint import Role, Target, Wire
from noria.domain.errors import NoriaError
from noria.domain.events import ExperimentStarted
from noria.domain.experiment import Experiment, Tally, bin_of
from noria.release import routes


class Shop:
    def __init__(self, root: Path, state: SqlState) -> None:
        self.root, self.state = root, state

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["--project", str(self.root), "experiment", *words])

    def json(self, *words: str) -> Any:
        done = self.run(*words, "--json")
        assert done.exception is None, done.exception
        return json.loads(done.stdout)


@pytest.fixture
def shop(project: Path):
    state = bootstrap.state(bootstrap.settings(project))
    champion = Target(
        model="triage", version="1", role=Role.CHAMPION, weight=100, url="unix:/x", verdict_id="verdict-1"
    )
    with state.note() as note:
        note.put(routes.first("triage", Wire.MLFLOW, champion, "p"))
        note.put(passed_verdict("1"))
        note.put(passed_verdict("2"))
    yield Shop(project, state)
    state.close()


def start(shop: Shop, *more: str) -> Result:
    return shop.run("start", "triage", "2", "--by", "ada", "--reason", "is it better?", *more)


def test_an_experiment_is_started_shown_and_stopped(shop: Shop) -> None:
    said = start(shop, "--adaptive", "--floor", "20", "--max-requests", "300").stdout
    assert "triage/1 (50 %), triage/2 (50 %)" in said
    told = [e for e in shop.state.pending_events() if isinstance(e, ExperimentStarted)]
    [listed] = shop.json("list")
    assert [e.experiment_id for e in told] == [listed["id"]]
    assert (listed["state"], listed["floor"], listed["max_requests"]) == ("starting", 20, 300)
    assert "is under way" in str(start(shop).exception)
    assert "triage/1 answers all" in shop.run("stop", "triage", "--by", "ada", "--reason", "enough").stdout
    assert "stopped by ada: enough" in shop.run("status", "triage").stdout
    assert "stopped by ada" in shop.run("list").stdout


def test_numbers_are_shown_with_their_intervals(shop: Shop) -> None:
    start(shop, "--metric", "errors")
    [found] = shop.state.find(Experiment)
    times = [0] * 120
    times[bin_of(20)] = 150
    one = Tally(requests=150, errors=3, labelled=100, wrong=20, priced=150, cost=0.3, cost_squares=0.0006)
    tallies = {"triage/1": one, "triage/2": replace(one, wrong=10, times=tuple(times))}
    with shop.state.note() as note:
        note.put(replace(found, tallies=tallies))
    said = shop.run("status", found.id).stdout
    assert "0.800 (0.638 to 0.914)" in said
    assert "20 ms" in said
    assert "$2 a thousand" in said
    assert "Still open: error rate, 300 requests." in said
    shown = shop.json("status", "triage")
    assert shown["standings"][1]["against_champion"]["success"][0] == pytest.approx(0.1)
    assert shown["standings"][0]["measures"]["latency"] == [None, 0.0, None]


def test_what_is_not_there_is_named(shop: Shop) -> None:
    for words in (
        ("status", "nothing"),
        ("stop", "triage", "--reason", "x"),
        ("start", "nowhere", "2", "--reason", "x"),
    ):
        assert isinstance(shop.run(*words).exception, NoriaError)
