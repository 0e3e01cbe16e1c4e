"""Twins of a good champion, trained for real and tried on real model servers: one unfair, one worse, one as good.

Group south speaks its own dialect; group north, six times as large, has half of its messages in words that came up
after the champion learnt. Every version is judged on the same held-out rows, whatever happened to the rows that it
learnt from.
"""

import csv
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from fakes.workflows import MemoryWorkflows
from noria import bootstrap
from noria.bootstrap import Loop
from noria.domain.alert import Alert, AlertState
from noria.domain.endpoint import Role, Route
from noria.domain.events import RetrainRequested
from noria.domain.gate import Verdict
from noria.domain.run import Run, RunState
from noria.governance.audit import history, verify
from noria.loop import handlers
from noria.training.datasets import held_out
from noria.worker import hold_lock

pytestmark = pytest.mark.slow

HOLDOUT = 0.25
PROJECT = f"""
project: twins
endpoints:
  triage:
    task: classification
    policy: policy.yaml
    training: {{data: messages.csv, holdout: {HOLDOUT}}}
"""
POLICY = """
name: triage
intended_use: Sort customers' messages by mood, so that people answer the unhappy first.
forbidden_use: [Decide about a customer.]
owner: care team
review_by: 2999-12-31
rules:
  min_accuracy: 0.7
  margin: 0.05
  max_group_gap: 0.4
  max_group_loss: 0.1
  min_group_rows: 20
  max_latency_p95_ms: 20000
"""
WORDS = {
    ("north", "good"): ["works great", "is lovely", "came early", "is worth every penny"],
    ("north", "bad"): ["is broken", "came late", "is awful", "fell apart"],
    ("young", "good"): ["slaps", "is fire", "hits different", "is peak"],
    ("young", "bad"): ["is mid", "flopped", "is cursed", "got ratioed"],
    ("south", "good"): ["be champion", "is right grand", "does the job proper", "be a cracker"],
    ("south", "bad"): ["is knackered", "be rubbish", "has gone wonky", "be a shambles"],
}
THINGS = ("kettle", "lamp", "parcel", "app", "chair", "invoice", "delivery", "charger")
SLIPS = 0.03
"""Share of the labels that a tired reader got wrong."""


@dataclass(frozen=True, slots=True)
class Message:
    """One labelled message; `words` are old (north, south) or new (young)."""

    text: str
    label: str
    words: str

    @property
    def group(self) -> str:
        return "south" if self.words == "south" else "north"


def messages(count: int = 1600) -> list[Message]:
    """The same messages every time."""
    chance = random.Random(5)
    made = []
    for number in range(count):
        words = "south" if number % 7 == 0 else ("north", "young")[number % 2]
        label = ("good", "bad")[number // 7 % 2]
        says = chance.choice(WORDS[words, label])
        said = label if chance.random() >= SLIPS else {"good": "bad", "bad": "good"}[label]
        made.append(Message(f"The {chance.choice(THINGS)} of order {10000 + number} {says}.", said, words))
    return made


Change = Callable[[list[Message]], list[Message]]
"""Rows to learn from → what is learnt from instead."""


def without_new_words(rows: list[Message]) -> list[Message]:
    return [row for row in rows if row.words != "young"]


def with_south_flipped(rows: list[Message]) -> list[Message]:
    flipped = {"good": "bad", "bad": "good"}
    return [replace(row, label=flipped[row.label]) if row.group == "south" else row for row in rows]


def with_shuffled_labels(rows: list[Message]) -> list[Message]:
    labels = [row.label for row in rows]
    random.Random(6).shuffle(labels)
    return [replace(row, label=label) for row, label in zip(rows, labels, strict=True)]


class House:
    """The real loop, its handlers called in the test's own thread, one after the other."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.workflows = MemoryWorkflows(handlers(loop.rooms))

    def train(self, name: str, change: Change) -> Verdict:
        """Have a version trained on changed rows, and judged; returns the verdict about it."""
        rows = messages()
        kept = [row for row in rows if held_out(row.text, HOLDOUT)]
        learnt = change([row for row in rows if not held_out(row.text, HOLDOUT)])
        with (self.loop.settings.root / "messages.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [("text", "label", "group"), *((row.text, row.label, row.group) for row in learnt + kept)]
            )
        with self.loop.state.note() as note:
            note.emit(RetrainRequested(endpoint="triage", actor="test", reason=name, at=datetime.now(UTC)))
        while pending := self.loop.state.pending_events():
            for event in pending:
                self.workflows.start(event)
                self.loop.state.mark_handled(event.id)
        assert self.workflows.problems == []
        run = next(run for run in self.loop.state.find(Run) if run.trigger.reason == name)
        assert run.state is RunState.SUCCEEDED, run.error
        verdict = next(v for v in self.loop.state.find(Verdict) if v.version == run.version)
        print(f"\n{name}: {verdict.model}/{verdict.version} {'passed' if verdict.passed else 'refused'}")
        for result in verdict.results:
            print(f"  {result.gate}: {'passed' if result.passed else 'FAILED'}: {result.summary}")
        return verdict

    @property
    def route(self) -> Route:
        found = self.loop.state.get(Route, "triage")
        assert found is not None
        return found


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    root = tmp_path_factory.mktemp("twins")
    (root / "noria.yaml").write_text(PROJECT)
    (root / "policy.yaml").write_text(POLICY)
    (root / "messages.csv").write_text("text,label\n")
    settings = bootstrap.settings(root)
    with hold_lock(settings.run_dir / "worker.lock"), bootstrap.loop(settings) as loop:
        house = House(loop)
        try:
            verdict = house.train("the champion", without_new_words)
            assert verdict.passed, verdict.reasons
            assert house.route.champion.ref == "triage/1"
            yield house
        finally:
            loop.host.stop_all()


def refused(house: House, verdict: Verdict) -> str:
    """What holds for every refusal; returns the reasons."""
    assert not verdict.passed
    assert verdict.champion == "triage/1"
    ref = f"{verdict.model}/{verdict.version}"
    assert ref not in house.loop.host.running()
    assert {target.ref for target in house.route.targets} == {"triage/1"}
    assert house.loop.registry.aliases("triage").get("champion") == "1"
    told = history(house.loop.state, subject=ref, newest=20)
    assert next(event for event in told if event.action == "verdict.refused").reason == "; ".join(verdict.reasons)
    alert = house.loop.state.get(Alert, f"triage:gate:{verdict.version}")
    assert alert is not None
    assert alert.state is AlertState.FIRING
    assert verify(house.loop.state).verified
    return "; ".join(verdict.reasons)


def failed(verdict: Verdict) -> list[str]:
    return [result.gate for result in verdict.results if not result.passed]


def test_a_candidate_that_is_better_for_most_and_wrong_for_one_group_is_refused(house: House) -> None:
    before = house.route
    verdict = house.train("unfair", with_south_flipped)
    numbers = next(result for result in verdict.results if result.gate == "quality").numbers
    assert numbers["candidate_accuracy"] >= numbers["champion_accuracy"]
    assert failed(verdict) == ["groups"]
    assert "group south" in refused(house, verdict).lower()
    assert house.route == before


def test_a_candidate_that_learnt_nothing_is_refused_for_its_quality(house: House) -> None:
    before = house.route
    verdict = house.train("worse", lambda rows: with_shuffled_labels(without_new_words(rows)))
    assert "quality" in failed(verdict)
    assert "Not shown to be as good as triage/1" in refused(house, verdict)
    assert house.route == before


def test_a_candidate_that_learnt_from_too_little_is_refused_for_its_quality(house: House) -> None:
    verdict = house.train("too little", lambda rows: without_new_words(rows)[:24])
    assert "quality" in failed(verdict)
    assert "Not shown to be as good as triage/1" in refused(house, verdict)


def test_a_candidate_that_is_as_good_passes_and_begins_as_a_shadow(house: House) -> None:
    verdict = house.train("equal", without_new_words)
    assert verdict.passed, verdict.reasons
    assert f"triage/{verdict.version}" in house.loop.host.running()
    assert house.route.champion.ref == "triage/1"
    shadow = next(target for target in house.route.targets if target.ref == f"triage/{verdict.version}")
    assert (shadow.role, shadow.weight, shadow.verdict_id) == (Role.SHADOW, 0, verdict.id)
