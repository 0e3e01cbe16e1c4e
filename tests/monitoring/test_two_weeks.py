"""Two weeks of traffic in which three things change, run blind through the real tables: just these are found.

After each the version is trained anew on what is normal by then, as a promotion does.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from fakes.registry import FakeRegistry
from fakes.state import FakeState
from fakes.traffic import BEGIN, Clock, Traffic, at_once, project, route
from noria.adapters.tables.delta import DeltaStore
from noria.domain.events import DriftDetected, QualityDropped, WindowClosed
from noria.evaluation.baseline import FILE, Baseline
from noria.evaluation.payloads import inputs, outputs
from noria.monitoring.baselines import Baselines
from noria.monitoring.monitors import Monitors
from noria.monitoring.windows import Windows

AIRLINES = ["flight", "late", "gate", "bag", "crew", "seat", "delayed", "cancelled"]
PHONES = ["iphone", "battery", "screen", "update", "store", "macbook"]
ENDS = ["again", "today", "please", "thanks", "really", "ever"]
WINDOW = timedelta(hours=8)
DAY = timedelta(days=1)
A_WINDOW = 120
LEARNS_FROM = 8
"""Windows after an alarm whose records the next version is trained on."""


@dataclass(frozen=True)
class World:
    """What traffic is like: share of another topic, share of negative answers, share of right ones."""

    phones: float = 0.0
    negative: float = 0.7
    right: float = 0.8


THREE = ((3 * DAY, {"phones": 0.4}), (6.5 * DAY, {"negative": 0.4}), (10 * DAY, {"right": 0.5}))


class TwoWeeks:
    """An endpoint's fortnight."""

    def __init__(self, folder, seed):
        self.clock, self.rng = Clock(BEGIN.replace(hour=8)), np.random.default_rng(seed)
        self.begin = self.clock.at
        self.state, self.records = FakeState(self.clock), DeltaStore(folder / "tables")
        self.registry, self.traffic = FakeRegistry(folder, self.clock), Traffic(self.records)
        self.project = project(window="8h")
        self.monitors = Monitors(self.state, self.records, Baselines(self.registry), self.project)
        self.windows = Windows(self.state, self.records, self.clock)
        self.world, self.version = World(), 0
        self.told: list[tuple[datetime, str]] = []

    def messages(self, number):
        def text():
            words = PHONES if self.rng.random() < self.world.phones else AIRLINES
            return f"{' '.join(self.rng.choice(words, 3))} {self.rng.choice(ENDS)}"

        return [text() for _ in range(number)]

    def answers(self, number):
        share = [self.world.negative, 1 - self.world.negative]
        return self.rng.choice(["negative", "neutral"], number, p=share).tolist()

    def train(self, since=None):
        """A version whose baseline is of the records since then, or of data of before the first."""
        if since is None:
            texts, said = self.messages(2000), self.answers(1000)
            right = (self.rng.random(1000) < self.world.right).tolist()
        else:
            rows = self.records.scan("inference", since=since).to_pylist()
            texts = [text for row in rows for text in inputs(row["request"])]
            said = [label for row in rows for label in outputs(row["response"])][1::2]
            labels = {r["request_id"]: r["label"] for r in self.records.scan("feedback", since=since).to_pylist()}
            heard = [row for row in rows if row["databricks_request_id"] in labels]
            right = [outputs(row["response"])[0] == labels[row["databricks_request_id"]] for row in heard]
        baseline = Baseline.fit(texts[::2], texts[1::2], said, right)
        self.version += 1
        run = f"run{self.version}"
        files = {f"baseline/{FILE}": baseline.to_bytes()}
        self.registry.register(self.registry.log_model(run, {"m": run.encode()}, files), "triage", {})
        with self.state.change("noria", "version.promoted", str(self.version)) as change:
            change.put(route(str(self.version), revision=self.version))

    def run(self, changes):
        """The fortnight; who looks at it knows nothing of the changes. Returns what was found: when, and by whom."""
        self.train()
        self.windows.close_due(self.project, self.clock.at)
        planned, found, alarm = list(changes), [], None
        while self.clock.at < self.begin + 14 * DAY:
            if planned and self.clock.at >= self.begin + planned[0][0]:
                self.world = replace(self.world, **planned.pop(0)[1])
            self.hour()
            news = self.alarms()
            if news and alarm is None:
                alarm = self.clock.at
                found.append((alarm - self.begin, news))
            if alarm is not None and self.clock.at >= alarm + LEARNS_FROM * WINDOW:
                self.train(since=alarm)
                alarm = None
        return found

    def hour(self):
        said = self.answers(A_WINDOW)
        version = str(self.version)
        ids = self.traffic.ask(self.messages(A_WINDOW), said, self.clock.at, version=version, within=WINDOW)
        truth = [s if self.rng.random() < self.world.right else "other" for s in said]
        self.traffic.say(ids, truth, self.clock.at + 0.99 * WINDOW)
        self.clock.at += WINDOW
        self.windows.close_due(self.project, self.clock.at)

    def alarms(self):
        """Handle what windows tell; the monitors that alarmed."""
        found = set()
        for event in self.state.pending_events(1000):
            if isinstance(event, WindowClosed):
                self.monitors.evaluate(event, at_once)
                self.state.mark_handled(event.id)
        for event in self.state.pending_events(1000):
            if isinstance(event, DriftDetected | QualityDropped):
                found.add(event.monitor)
                self.state.mark_handled(event.id)
        return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_three_planted_changes_are_found_and_nothing_else(tmp_path, seed):
    fortnight = TwoWeeks(tmp_path, seed)
    found = fortnight.run(THREE)
    assert len(found) == len(THREE)
    for (when, by), (planted, what), monitor in zip(found, THREE, ("text", "prediction", "quality"), strict=True):
        assert planted < when <= planted + 2 * DAY, (what, when)
        assert monitor in by
    rows = fortnight.records.scan("drift_metrics").to_pylist()
    whole = [row for row in rows if row["monitor"] == "text" and row["drift_type"] == "BASELINE"]
    assert {row["model_id"] for row in whole} == {f"triage/{n}" for n in range(1, fortnight.version + 1)}
    assert len(whole) == 14 * DAY / WINDOW


@pytest.mark.slow
def test_two_weeks_in_which_nothing_changes_raise_no_alarm(tmp_path):
    assert TwoWeeks(tmp_path, seed=3).run(()) == []
