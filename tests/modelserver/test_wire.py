"""MLflow's input formats, and what is said about bodies that are none of them."""

import json

import numpy as np
import pytest

from noria.domain.errors import InvalidRequest, UnsupportedMedia
from noria.modelserver.batching import Answer, Call
from noria.modelserver.wire import parse, reply

JSON = "application/json"


@pytest.mark.parametrize(
    ("body", "call"),
    [
        ({"inputs": ["a", "b"]}, Call(["a", "b"])),
        ({"inputs": "a"}, Call(["a"])),
        ({"inputs": [[1, 2], [3, 4]]}, Call([[1, 2], [3, 4]])),
        ({"inputs": {"x": ["a", "b"], "y": [1, 2]}}, Call([("a", 1), ("b", 2)], ("x", "y"))),
        ({"instances": ["a"]}, Call(["a"])),
        ({"instances": [{"x": "a"}, {"x": "b"}]}, Call([("a",), ("b",)], ("x",))),
        ({"dataframe_split": {"columns": ["x", "y"], "data": [["a", 1]]}}, Call([("a", 1)], ("x", "y"))),
        ({"dataframe_split": {"data": [["a", 1]]}}, Call([("a", 1)], ("0", "1"))),
        ({"dataframe_records": [{"x": 1}, {"x": 2, "y": 3}]}, Call([(1, None), (2, 3)], ("x", "y"))),
        ({"inputs": ["a"], "params": {"b": 1, "a": 2}}, Call(["a"], params='{"a":2,"b":1}')),
    ],
)
def test_every_format_gives_its_rows(body: object, call: Call) -> None:
    assert parse(json.dumps(body).encode(), JSON) == call


@pytest.mark.parametrize(
    "content_type", ["", JSON, "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"']
)
def test_json_is_known_by_any_of_its_names(content_type: str) -> None:
    assert parse(b'{"inputs": ["a"]}', content_type) == Call(["a"])


def test_csv_has_a_header_and_quotes() -> None:
    assert parse(b'\xef\xbb\xbfx,y\r\n"a, b",1\r\n\r\nc,2\r\n', "text/csv") == Call(
        [("a, b", "1"), ("c", "2")], ("x", "y")
    )


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "isn't JSON"),
        (b"{", "isn't JSON"),
        (b"\xff", "isn't JSON"),
        (b"[" * 100_000, "isn't JSON"),
        (b"[]", "isn't a JSON object"),
        (b"{}", "exactly one"),
        (b'{"inputs": [], "instances": []}', "inputs and instances"),
        (b'{"inputs": {"x": [1], "y": [1, 2]}}', "differ in length"),
        (b'{"dataframe_split": [1]}', "has no data"),
        (b'{"dataframe_split": {"columns": ["x"], "data": [[1, 2]]}}', "don't match"),
        (b'{"dataframe_split": {"columns": "xy", "data": [[1, 2]]}}', "don't match"),
        (b'{"dataframe_split": {"data": [[1], [1, 2]]}}', "don't match"),
        (b'{"dataframe_records": {"x": 1}}', "list of objects"),
        (b'{"dataframe_records": [1]}', "list of objects"),
        (b'{"inputs": ["a"], "params": 1}', "params"),
    ],
)
def test_a_body_that_is_no_request_is_told_why(body: bytes, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        parse(body, JSON)


@pytest.mark.parametrize(
    ("body", "problem"), [(b"", "empty"), (b"x,y\n1\n", "Line 2"), (b"\xff", "isn't CSV"), (b'x\n"a', "isn't CSV")]
)
def test_a_csv_that_is_none_is_told_why(body: bytes, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        parse(body, "text/csv")


@pytest.mark.parametrize("content_type", ["text/plain", "application/json; charset=latin-1", "image/png"])
def test_another_content_type_or_character_set_is_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedMedia):
        parse(b'{"inputs": ["a"]}', content_type)


def test_a_reply_has_predictions_and_probabilities_beside_them() -> None:
    answer = Answer(["a", np.int64(1), np.float32(0.5)], [{"a": 0.25}])
    assert json.loads(reply(answer)) == {"predictions": ["a", 1, 0.5], "probabilities": [{"a": 0.25}]}


def test_a_reply_without_probabilities_does_not_mention_them() -> None:
    assert reply(Answer([1])) == b'{"predictions":[1]}'
