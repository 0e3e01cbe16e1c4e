import json
import math
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.evaluation.frames import MOST_FEATURES
from noria.evaluation.observations import NEEDED, observe
from noria.settings import Task
from noria.tables import INFERENCE

ANSWERED = {
    "databricks_request_id": "r1",
    "request_time": datetime(2026, 3, 2, 9, tzinfo=UTC),
    "status_code": 200,
    "execution_duration_ms": 7,
    "logging_error_codes": [],
    "requester": "shop",
    "model_name": "triage",
    "model_version": "1",
    "route": "champion",
    "outcome": "answered",
    "metadata": [("group", "north")],
    "tries": 1,
    "cache_hit": False,
}


def table(*rows):
    return pa.Table.from_pylist([ANSWERED | row for row in rows], schema=INFERENCE)


def seen(request, response=None, task=Task.CLASSIFICATION, columns=None, also=None, **options):
    bodies = {"request": json.dumps(request), "response": json.dumps(response)}
    return observe(table(bodies | (also or {})), task, columns, **options)


def items(*arguments, **options):
    return seen(*arguments, **options).items.to_pylist()


def test_a_record_has_its_numbers_once_whatever_it_holds():
    found = seen({"input": ["a", "b", "c"]}, ["x", "y", "z"], also={"input_tokens": 30, "cost_usd": 0.25})
    (record,) = found.records.to_pylist()
    assert record["request_id"] == "r1"
    assert record["model"] == "triage/1"
    assert record["requester"] == "shop"
    assert record["metadata"] == [("group", "north")]
    assert [record[n] for n in ("status_code", "execution_duration_ms", "input_tokens", "cost_usd")] == [
        200,
        7,
        30,
        0.25,
    ]
    assert record["ttft_ms"] is None
    assert found.items["record"].to_pylist() == [0, 0, 0]
    assert found.items["input_length"].to_pylist() == [1, 1, 1]


def test_shadows_are_left_out():
    rows = table({"request": '"a"', "response": '"x"', "route": "shadow"}, {"request": '"b"', "response": '"y"'})
    found = observe(rows, Task.CLASSIFICATION)
    assert found.records.num_rows == 1
    assert found.items["input"].to_pylist() == ["b"]


BODIES = {
    "the lab's": ({"input": "late"}, "negative"),
    "mlflow's predictions": ({"inputs": ["late"]}, {"predictions": ["negative"]}),
    "a split frame": ({"dataframe_split": {"columns": ["text"], "data": [["late"]]}}, {"predictions": ["negative"]}),
    "records": ({"dataframe_records": [{"text": "late"}]}, {"predictions": ["negative"]}),
    "chat": (
        {"messages": [{"role": "user", "content": "late"}]},
        {"choices": [{"message": {"role": "assistant", "content": "negative"}, "finish_reason": "stop"}]},
    ),
    "a completion": ({"prompt": "late"}, {"choices": [{"text": "negative"}]}),
}


@pytest.mark.parametrize(("request_body", "response"), BODIES.values(), ids=BODIES)
def test_questions_and_answers_are_read_over_every_wire(request_body, response):
    (item,) = items(request_body, response)
    assert (item["input"], item["prediction"]) == ("late", "negative")
    (item,) = items(request_body, response, Task.CHAT)
    assert (item["input"], item["output"], item["output_length"]) == ("late", "negative", 8)


def test_an_embedding_has_a_question_and_no_answer():
    (item,) = items({"input": "late"}, {"data": [{"embedding": [0.1, 0.2]}]}, Task.CHAT)
    assert (item["input"], item["output"], item["output_empty"]) == ("late", None, None)


def test_several_answers_to_one_question_count_each_and_the_question_once():
    found = items(
        {"messages": [{"role": "user", "content": "hi"}]}, {"choices": [{"text": "a"}, {"text": ""}]}, Task.CHAT
    )
    assert [(i["input"], i["output"], i["output_empty"]) for i in found] == [("hi", "a", 0), (None, "", 1)]


def test_a_call_of_a_tool_and_a_null_are_no_answers_and_not_empty_ones():
    choice = {"message": {"content": None, "tool_calls": [{"id": "1"}]}}
    (item,) = items({"prompt": "x"}, {"choices": [choice]}, Task.CHAT)
    assert (item["output"], item["output_empty"]) == (None, None)
    assert [i["prediction"] for i in items({"inputs": ["x", "y"]}, {"predictions": ["a", None]})] == ["a", None]


@pytest.mark.parametrize(
    ("outcome", "error", "rejected", "disconnected"),
    [
        ("failed", 1, 0, 0),
        ("timed_out", 1, 0, 0),
        ("interrupted", 1, 0, 0),
        ("rejected", 0, 1, 0),
        ("disconnected", 0, 0, 1),
    ],
)
def test_a_request_that_was_not_answered_was_asked_and_says_how_it_ended(outcome, error, rejected, disconnected):
    found = seen({"input": "a"}, {"error": {"message": "x"}}, also={"outcome": outcome})
    (record,) = found.records.to_pylist()
    assert (record["error"], record["rejected"], record["disconnected"]) == (error, rejected, disconnected)
    assert found.items.select(["input", "prediction"]).to_pylist() == [{"input": "a", "prediction": None}]


def test_confidence_is_the_probability_of_the_class_that_was_named():
    chances = {"predictions": ["a", "b"], "probabilities": [{"a": 0.4, "b": 0.6}, {"b": 0.9}]}
    assert [i["confidence"] for i in items({"inputs": ["x", "y"]}, chances)] == [0.4, 0.9]
    scored = {"predictions": [{"label": "a", "score": 0.7}, {"label": "b", "score": "?"}]}
    assert [i["confidence"] for i in items({"inputs": ["x", "y"]}, scored)] == [0.7, None]
    assert [i["confidence"] for i in items({"inputs": ["x"]}, {"predictions": ["a"], "probabilities": [{"a": 7}]})] == [
        None
    ]


FRAMES = {
    "split": {"dataframe_split": {"columns": ["age", "city", "text"], "data": [[30, "Ulm", "a"], [None, "Bonn", "b"]]}},
    "records": {"dataframe_records": [{"age": 30, "city": "Ulm", "text": "a"}, {"city": "Bonn", "text": "b"}]},
    "tensors": {"inputs": {"age": [30, None], "city": ["Ulm", "Bonn"], "text": ["a", "b"]}},
    "instances": {"instances": [{"age": 30, "city": "Ulm", "text": "a"}, {"city": "Bonn", "text": "b"}]},
}


@pytest.mark.parametrize("body", FRAMES.values(), ids=FRAMES)
def test_columns_of_data_frames_become_features(body):
    found = seen(body, {"predictions": ["x", "y"]}).items
    assert found["feature.age"].to_pylist() == [30, None]
    assert found["feature.age"].type == pa.float64()
    assert found["feature.city"].to_pylist() == ["Ulm", "Bonn"]
    assert "feature.text" not in found.column_names
    assert found["input"].to_pylist() == ["a", "b"]


def test_a_frame_of_numbers_alone_has_features_and_predictions():
    body = {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2.5], [3, 4]]}}
    found = items(body, {"predictions": [0, 1]})
    assert [(i["input"], i["prediction"], i["feature.a"], i["feature.b"]) for i in found] == [
        (None, "0", 1, 2.5),
        (None, "1", 3, 4),
    ]


def test_new_and_vanished_features_are_null_where_they_are_not():
    rows = table(
        {"request": '{"dataframe_records": [{"old": 1}]}'},
        {"request": '{"input": "no frame"}'},
        {"request": '{"dataframe_records": [{"new": "x"}, {"new": "y"}]}'},
    )
    found = observe(rows, Task.CLASSIFICATION).items
    assert found["feature.old"].to_pylist() == [1, None, None, None]
    assert found["feature.new"].to_pylist() == [None, None, "x", "y"]
    asked = observe(rows, Task.CLASSIFICATION, ["feature.gone", "feature.old"]).items
    assert [n for n in asked.column_names if n.startswith("feature.")] == ["feature.gone", "feature.old"]
    assert asked["feature.gone"].null_count == 4


def test_a_feature_that_changes_its_type_is_text_unless_it_is_known_to_be_a_number():
    body = {"dataframe_records": [{"n": v} for v in (1, 2.5, "3.5", "many", True, None, [1], 10**400)]}
    raw = json.dumps(body)
    rows = table({"request": raw})
    assert observe(rows, Task.CLASSIFICATION).items["feature.n"].to_pylist()[:5] == ["1", "2.5", "3.5", "many", "true"]
    known = observe(rows, Task.CLASSIFICATION, types={"feature.n": pa.float64()}).items["feature.n"].to_pylist()
    assert known[:3] == [1, 2.5, 3.5]
    assert math.isnan(known[3])
    assert known[4:7] == [1, None, None]


def test_callers_who_make_up_names_of_features_fill_no_memory():
    rows = table(*({"request": json.dumps({"dataframe_records": [{f"f{i}": 1}]})} for i in range(MOST_FEATURES + 50)))
    found = observe(rows, Task.CLASSIFICATION).items
    assert sum(name.startswith("feature.") for name in found.column_names) == MOST_FEATURES
    assert "feature.f300" in observe(rows, Task.CLASSIFICATION, ["feature.f300"]).items.column_names


def test_what_the_model_servers_own_filter_stopped_is_a_guardrail_hit():
    stopped = {"choices": [{"message": {"content": "I"}, "finish_reason": "content_filter"}]}
    refused = {"error": {"code": "content_filter", "message": "…"}}
    fine = {"choices": [{"message": {"content": "I"}, "finish_reason": "stop", "content_filter_results": {}}]}

    def hit(response, **also):
        return seen({"prompt": "x"}, response, Task.CHAT, also=also).records["guardrail_hit"].to_pylist()

    assert hit(stopped) == [1]
    assert hit(refused, outcome="rejected") == [1]
    assert hit(fine) == [0]
    assert hit(fine, logging_error_codes=["GUARDRAIL_TOXICITY"]) == [1]
    assert hit(None, outcome="interrupted") == [None]


def test_bodies_that_nobody_asks_for_are_not_read():
    found = seen({"input": "a"}, "x", columns=["execution_duration_ms"])
    assert found.items.num_rows == 0
    assert found.records["execution_duration_ms"].to_pylist() == [7]
    assert seen({"input": "a"}, "x", columns=["prediction"]).items["input"].to_pylist() == ["a"]


def test_a_scorer_measures_texts_under_its_own_name():
    found = seen({"input": ["a", "bb"]}, columns=["input_spam"], scorers={"spam": lambda ts: [len(t) / 2 for t in ts]})
    assert found.items["input_spam"].to_pylist() == [0.5, 1]
    assert "input_length" not in found.items.column_names


def test_nothing_is_a_table_with_the_same_columns():
    found = observe(INFERENCE.empty_table(), Task.CHAT)
    full = seen({"prompt": "x"}, {"choices": [{"text": "y"}]}, Task.CHAT)
    assert found.records.schema.equals(full.records.schema)
    assert found.items.schema.equals(full.items.schema)
    assert found.items.num_rows == found.records.num_rows == 0


def test_columns_that_a_table_lacks_are_null():
    found = observe(pa.table({"request": ['{"input": "a"}']}), Task.CLASSIFICATION)
    assert found.items["input"].to_pylist() == ["a"]
    assert found.records["cost_usd"].to_pylist() == [None]


def test_it_reads_no_column_that_the_inference_table_lacks():
    assert set(NEEDED) <= set(INFERENCE.names)


BAD = [
    "",
    "{",
    "[" * 100_000,
    '"\\ud83d"',
    "data: [DONE]",
    "NaN",
    "null",
    '{"input": null}',
    '{"truncated": {"bytes": 1}}',
]


@pytest.mark.parametrize("body", BAD, ids=range(len(BAD)))
@pytest.mark.parametrize("task", Task)
def test_a_body_that_holds_nothing_is_a_record_without_items(body, task):
    found = observe(table({"request": body, "response": body}, {"request": None, "response": None}), task)
    assert found.records.num_rows == 2
    assert found.items.num_rows == 0


def test_bytes_that_are_no_text_hold_nothing():
    rows = table({"request": "x", "response": "x"})
    raw = pa.array([b'{"input": "\xff"}'], pa.binary())
    broken = rows.set_column(rows.column_names.index("request"), "request", raw)
    assert observe(broken, Task.CHAT).items.num_rows == 0


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=4)
            | st.sampled_from(
                ["role", "content", "text", "data", "columns", "label", "score", "message", "refusal", "code"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
keys = st.sampled_from(
    ["input", "inputs", "instances", "dataframe_split", "dataframe_records", "messages", "prompt", "predictions",
     "choices", "probabilities", "error"]
)  # fmt: skip
bodies = (st.dictionaries(keys, values, max_size=3) | values).map(json.dumps) | st.text(max_size=20)
wanted = ["input", "output", "prediction", "refusal", "feature.a", "input_tokens_estimate"]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(bodies, bodies, st.sampled_from(["answered", "failed", "odd"])), max_size=4),
    st.sampled_from(Task),
    st.sampled_from([None, wanted]),
)
def test_nothing_that_is_recorded_makes_it_raise(recorded, task, columns):
    rows = table(
        *(
            {"request": request.encode("utf-8", "replace").decode(), "response": response, "outcome": outcome}
            for request, response, outcome in recorded
            if _is_text(response)
        )
    )
    found = observe(rows, task, columns)
    assert found.records.num_rows == rows.num_rows
    assert found.items["record"].to_pylist() == sorted(found.items["record"].to_pylist())


def _is_text(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
