from datetime import timedelta

import pytest

from fakes.records import MemoryRecords
from fakes.traffic import BEGIN, HOUR, Traffic
from noria.evaluation.observations import observe
from noria.monitoring.reading import read_judgements
from noria.settings import Task


@pytest.fixture
def records():
    return MemoryRecords()


@pytest.fixture
def traffic(records):
    return Traffic(records)


def judged(records, since=BEGIN, until=BEGIN + 48 * HOUR, model="triage/1"):
    return sorted(j.score for j in read_judgements(records, "triage", since, until, model))


def seen(records, since, until):
    return observe(records.scan("inference", endpoint="triage", since=since, until=until), Task.CLASSIFICATION)


def held(found, column):
    return [text for text in found.items[column].to_pylist() if text is not None]


def test_records_hold_texts_answers_and_numbers(records, traffic):
    traffic.ask(["late again"], ["negative"])
    found = seen(records, BEGIN, BEGIN + HOUR)
    (record,) = found.records.to_pylist()
    assert (record["model"], held(found, "input"), held(found, "prediction")) == (
        "triage/1",
        ["late again"],
        ["negative"],
    )
    numbers = ("status_code", "execution_duration_ms", "ttft_ms", "input_tokens", "output_tokens")
    assert {name: record[name] for name in numbers} == {
        "status_code": 200,
        "execution_duration_ms": 5,
        "ttft_ms": None,
        "input_tokens": None,
        "output_tokens": None,
    }


def test_shadows_and_records_outside_the_span_are_left_out(records, traffic):
    traffic.ask(["a"], ["x"], route="shadow")
    traffic.ask(["b"], ["x"], BEGIN + HOUR)
    traffic.ask(["c"], ["x"], BEGIN + 2 * HOUR)
    assert held(seen(records, BEGIN, BEGIN + HOUR), "input") == []
    assert held(seen(records, BEGIN + HOUR, BEGIN + 2 * HOUR), "input") == ["b"]


def test_a_request_that_failed_was_asked_but_not_answered(records, traffic):
    traffic.ask(["a", '{"nonsense": 1}'], ["x", "y"], outcome="failed")
    found = seen(records, BEGIN, BEGIN + HOUR)
    assert (found.records.num_rows, held(found, "prediction")) == (2, [])
    assert held(found, "input") == ["a"]


def test_labels_that_come_days_later_find_their_answers(records, traffic):
    ids = traffic.ask(["a", "b", "c"], ["x", "x", "y"], within=30 * HOUR)
    traffic.say(ids, ["x", "y", "y"], BEGIN + 40 * HOUR)
    assert judged(records, since=BEGIN + 39 * HOUR) == [0, 1, 1]
    assert judged(records, until=BEGIN + 39 * HOUR) == []


def test_scores_count_as_they_are_and_labels_before_scores(records, traffic):
    ids = traffic.ask(["a", "b", "c"], ["x", "x", "x"])
    traffic.say(ids, [None, "y", None], scores=[0.25, 1.0, None])
    assert judged(records) == [0, 0.25]


def test_the_last_word_on_an_answer_counts(records, traffic):
    ids = traffic.ask(["a"], ["x"])
    traffic.say(ids, ["y"], BEGIN + HOUR)
    traffic.say(ids, ["x"], BEGIN + 2 * HOUR)
    assert judged(records) == [1]


def test_only_answers_that_the_version_gave_are_judged(records, traffic):
    for version, route in (("2", "canary"), ("1", "shadow")):
        traffic.say(traffic.ask(["a"], ["x"], version=version, route=route), ["x"])
    failed = traffic.ask(["a"], ["x"], outcome="failed")
    batch = traffic.ask(['{"input": ["a", "b"]}'], [["x", "y"]])
    traffic.say(failed + batch, ["x", "x"])
    assert judged(records) == []
    assert judged(records, model="triage/2") == [1]


@pytest.mark.parametrize("name", ["", "nobody", "f" * 32, "0" * 32, "'; DROP TABLE inference", None])
def test_feedback_on_requests_that_never_were_says_nothing(records, traffic, name):
    traffic.ask(["a"], ["x"])
    traffic.say([name], ["x"])
    assert judged(records) == []


def test_a_request_at_the_edge_of_an_hour_is_found(records, traffic):
    ids = traffic.ask(["a", "b"], ["x", "x"], BEGIN + HOUR - timedelta(milliseconds=1), within=timedelta(seconds=1))
    traffic.say(ids, ["x", "x"], BEGIN + 3 * HOUR)
    assert judged(records) == [1, 1]


def test_feedback_that_is_sent_again_counts_once_also_when_it_comes_in_a_later_window(records, traffic):
    ids = traffic.ask(["a", "b"], ["x", "x"])
    traffic.say(ids, ["x", "y"], BEGIN + 2 * HOUR, feedback_ids=["f1", "f2"])
    traffic.say(ids, ["x", "y"], BEGIN + 2 * HOUR, feedback_ids=["f1", "f2"])
    traffic.say(ids, ["x", "y"], BEGIN + 30 * HOUR, feedback_ids=["f1", "f2"])
    assert judged(records, until=BEGIN + 3 * HOUR) == [0, 1]
    assert judged(records, since=BEGIN + 3 * HOUR) == []


def test_feedback_that_says_something_else_under_its_id_counts_when_it_comes(records, traffic):
    ids = traffic.ask(["a"], ["x"])
    traffic.say(ids, ["y"], BEGIN + 2 * HOUR, feedback_ids=["f1"])
    traffic.say(ids, ["x"], BEGIN + 5 * HOUR, feedback_ids=["f1"])
    assert judged(records, until=BEGIN + 3 * HOUR) == [0]
    assert judged(records, since=BEGIN + 3 * HOUR) == [1]


def test_one_id_on_two_answers_is_two_statements(records, traffic):
    ids = traffic.ask(["a", "b"], ["x", "x"])
    traffic.say(ids, ["x", "x"], BEGIN + 2 * HOUR, feedback_ids=["1", "1"])
    assert judged(records) == [1, 1]


def test_what_judges_say_is_no_word_of_people(records, traffic):
    ids = traffic.ask(["a", "b"], ["x", "x"])
    traffic.say(ids, [None, None], scores=[0.5, 0.5])
    traffic.say(ids, [None, None], BEGIN + 2 * HOUR, scores=[0.0, 0.0], source="judge:polite")
    assert judged(records) == [0.5, 0.5]
