from datetime import timedelta

import pytest

from fakes.records import MemoryRecords
from fakes.traffic import BEGIN, HOUR, Traffic, completion
from noria.domain.monitor import Window
from noria.monitoring import judged
from noria.monitoring.judged import COLUMNS, answers, asked_at, said_of, windows_of

HOUR_ONE = Window(BEGIN, BEGIN + HOUR)


@pytest.fixture
def records():
    return MemoryRecords()


@pytest.fixture
def traffic(records):
    return Traffic(records)


def read(records, window=HOUR_ONE, classifies=True, **how):
    said = said_of(records.view(), "triage", window)
    rows = records.scan("inference", columns=COLUMNS, endpoint="triage")
    halves = [rows.slice(0, rows.num_rows // 2), rows.slice(rows.num_rows // 2)]
    return answers(halves, window, said, classifies=classifies, **how)


def test_a_label_that_comes_weeks_later_is_of_the_window_of_its_request(records, traffic):
    first = traffic.ask(["a"], ["x"])
    second = traffic.ask(["b"], ["x"], BEGIN + HOUR)
    traffic.say(first + second, ["y", "x"], BEGIN + timedelta(days=30))
    assert [(a.prediction, a.said.label) for a in read(records)] == [("x", "y")]
    assert [(a.prediction, a.said.label) for a in read(records, Window(BEGIN + HOUR, BEGIN + 2 * HOUR))] == [("x", "x")]


def test_the_newest_label_and_score_of_people_count_and_each_judges_own(records, traffic):
    ids = traffic.ask(["a"], ["x"])
    traffic.say(ids, ["y"], BEGIN + HOUR)
    traffic.say(ids, ["x"], BEGIN + 3 * HOUR)
    traffic.say(ids, ["z"], BEGIN + 2 * HOUR)
    traffic.say(ids, [None], BEGIN + HOUR, scores=[0.25])
    traffic.say(ids, [None], BEGIN + HOUR, scores=[0.75], source="judge:polite")
    traffic.say(ids, ["lies"], BEGIN + 9 * HOUR, scores=[1.0], source="judge:grounded")
    (answer,) = read(records)
    assert (answer.said.label, answer.said.score) == ("x", 0.25)
    assert answer.said.judges == {"polite": 0.75, "grounded": 1.0}


def test_answers_that_nobody_judged_are_wanted_for_what_the_model_says_of_itself(records, traffic):
    traffic.ask(["a"], ["x"], chances=[{"x": 0.9, "y": 0.1}])
    traffic.ask(["b"], ["x"], route="shadow")
    traffic.ask(["c"], ["x"], outcome="failed")
    assert [(a.prediction, a.chances, a.said) for a in read(records)] == [("x", {"x": 0.9, "y": 0.1}, None)]
    assert read(records, unjudged=False) == []


@pytest.mark.parametrize("chances", [{"x": -0.5}, {"x": 1.5}, {"y": 1.0}])
def test_what_are_no_probabilities_are_none(records, traffic, chances):
    traffic.ask(["a"], ["x"], chances=[chances])
    assert [a.chances for a in read(records)] == [None]


def test_of_a_batch_nobody_can_say_which_answer_a_label_is_about(records, traffic):
    ids = traffic.ask(['{"input": ["a", "b"]}'], [{"predictions": ["x", "y"]}])
    traffic.say(ids, ["x"], scores=[0.5])
    assert [(a.prediction, a.said and (a.said.label, a.said.score)) for a in read(records)] == [  # in its own order
        ("x", (None, 0.5)),
        ("y", None),
    ]


def test_a_free_answer_is_compared_with_its_reference(records, traffic):
    ids = traffic.ask(["capital?", "bye"], [completion("It is Paris."), completion("Bye")])
    traffic.say(ids[:1], ["Paris"])
    (answer,) = read(records, classifies=False)
    assert answer.like.rouge1 == pytest.approx(0.5)
    assert answer.counts[-1] == 1


def test_slices_are_by_who_asked_and_by_what_metadata_say(records, traffic):
    traffic.ask(["a"], ["x"], requester="shop", metadata={"plan": "free", "team": "b"})
    traffic.ask(["b"], ["x"])
    found = read(records, slices=["requester", "metadata.team"])
    assert {a.slices for a in found} == {("shop", "b"), (None, None)}


def test_memory_is_bounded_by_a_sample_that_the_ids_decide(records, traffic, monkeypatch):
    ids = traffic.ask(["a"] * 300, ["x"] * 300)
    traffic.say(ids, ["x"] * 300)
    everything = len(read(records))
    monkeypatch.setattr(judged, "MOST", 100)
    some = read(records)
    assert everything == 300
    assert 30 <= len(some) <= 100
    assert len(read(records)) == len(some)
    assert all(answer.said is not None for answer in some)  # both sides of the join hold the same ids


def test_ids_say_when_their_requests_came_and_nonsense_says_nothing():
    early = f"{int((BEGIN + timedelta(minutes=30)).timestamp() * 1000):012x}{1:020x}"
    edge = f"{int((BEGIN + HOUR).timestamp() * 1000):012x}{1:020x}"
    assert windows_of([early, "nobody", "f" * 32, None], HOUR) == {HOUR_ONE}
    assert windows_of([edge], HOUR) == {HOUR_ONE, Window(BEGIN + HOUR, BEGIN + 2 * HOUR)}
    assert asked_at(edge) == BEGIN + HOUR
    assert asked_at("f" * 32) is None


def test_a_request_that_is_in_the_table_twice_counts_once(records, traffic):
    traffic.say(traffic.ask(["a"], ["x"]), ["x"])
    rows = records.scan("inference", columns=COLUMNS)
    said = said_of(records.view(), "triage", HOUR_ONE)
    assert len(answers([rows, rows], HOUR_ONE, said, classifies=True)) == 1


def test_an_endpoint_whose_name_has_quotes_reads_only_its_own(records, traffic):
    traffic.say(traffic.ask(["a"], ["x"]), ["x"])
    assert said_of(records.view(), "' OR '1'='1", HOUR_ONE) == {}
