import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.evaluation.payloads import inputs, outputs, probabilities

REQUESTS = {
    "the lab's single input": ({"input": "late again"}, ["late again"]),
    "the lab's list": ({"input": ["a", "b"]}, ["a", "b"]),
    "mlflow inputs": ({"inputs": ["a"]}, ["a"]),
    "mlflow named tensors": ({"inputs": {"id": [1], "text": ["a"]}}, ["a"]),
    "mlflow instances of rows": ({"instances": [{"n": 1, "text": "a"}, {"text": "b"}]}, ["a", "b"]),
    "a split frame prefers text": (
        {"dataframe_split": {"columns": ["id", "text"], "data": [["x", "a"], ["y", None]]}},
        ["a", ""],
    ),
    "a split frame without names": ({"dataframe_split": {"data": [[1, "a"]]}}, ["a"]),
    "records take the first text column": ({"dataframe_records": [{"n": 1, "body": "a"}]}, ["a"]),
    "chat takes what the user said last": (
        {
            "messages": [
                {"role": "user", "content": "1"},
                {"role": "assistant", "content": "2"},
                {"role": "user", "content": "3"},
            ]
        },
        ["3"],
    ),
    "chat parts": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}],
                }
            ]
        },
        ["a\nb"],
    ),
    "responses input": ({"input": [{"role": "user", "content": "hi"}]}, ["hi"]),
    "a prompt": ({"prompt": "once"}, ["once"]),
    "prompts": ({"prompt": ["once", "twice"]}, ["once", "twice"]),
    "positions are kept": ({"input": ["a", None, 3, "b"]}, ["a", "", "", "b"]),
    "tokens are no text": ({"prompt": [1, 2, 3]}, []),
    "numbers are no text": ({"inputs": [[1.0, 2.0]]}, []),
    "only the system spoke": ({"messages": [{"role": "system", "content": "x"}]}, []),
    "nothing": ({}, []),
}

RESPONSES = {
    "a label": ("positive", ["positive"]),
    "labels": (["a", "b"], ["a", "b"]),
    "mlflow predictions": ({"predictions": ["a", 1, 0.5]}, ["a", "1", "0.5"]),
    "objects with labels": ({"predictions": [{"label": "a", "score": 0.9}]}, ["a"]),
    "a single prediction": ({"predictions": "a"}, ["a"]),
    "embeddings": ({"predictions": [[0.1, 0.2]]}, []),
    "a chat completion": ({"choices": [{"message": {"content": "hello"}}]}, ["hello"]),
    "a refusal": ({"choices": [{"message": {"content": None, "refusal": "no"}}]}, ["no"]),
    "a tool call": ({"choices": [{"message": {"content": None, "tool_calls": []}}]}, [""]),
    "a text completion": ({"choices": [{"text": "upon a time"}]}, ["upon a time"]),
    "an error": ({"error": {"message": "no"}}, []),
    "null": (None, []),
}


@pytest.mark.parametrize(("body", "texts"), REQUESTS.values(), ids=REQUESTS)
def test_texts_are_read_from_every_request_body(body, texts):
    assert inputs(json.dumps(body).encode()) == texts
    assert inputs(json.dumps(body)) == texts


@pytest.mark.parametrize(("body", "answers"), RESPONSES.values(), ids=RESPONSES)
def test_answers_are_read_from_every_response_body(body, answers):
    assert outputs(json.dumps(body).encode()) == answers


def test_probabilities_are_read_beside_the_predictions():
    body = {"predictions": ["a", "b"], "probabilities": [{"a": 0.9, "b": 0.1, "c": None}, "?"]}
    assert probabilities(json.dumps(body)) == [{"a": 0.9, "b": 0.1}, {}]
    assert probabilities(b'{"predictions": ["a"]}') == []


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"{", b"[" * 100_000, '"\\ud83d"', b"data: x\n\ndata: [DONE]", b"NaN"]
)
def test_a_body_that_is_not_json_holds_nothing(body):
    assert inputs(body) == []
    assert outputs(body) == []
    assert probabilities(body) == []


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=4) | st.sampled_from(["role", "content", "text", "data", "columns", "label"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
keys = st.sampled_from(
    [
        "input",
        "inputs",
        "instances",
        "dataframe_split",
        "dataframe_records",
        "messages",
        "prompt",
        "predictions",
        "choices",
        "probabilities",
    ]
)


@given(st.dictionaries(keys, json_values, max_size=3) | json_values)
def test_no_json_value_makes_it_raise(body):
    raw = json.dumps(body)
    assert all(isinstance(t, str) for t in inputs(raw) + outputs(raw))
    assert all(isinstance(p, dict) for p in probabilities(raw))
