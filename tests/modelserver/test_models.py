"""Model files: what is loaded, what is refused, and what callers are told about their rows."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from fakes.models import TEXT, classifier, save
from noria.domain.errors import InvalidRequest, UnknownModel, UntrustedArtifact, UpstreamFailed
from noria.modelserver.batching import Call
from noria.modelserver.models import load
from noria.modelserver.rows import Signature, array, as_list, frame, texts

NUMBERS = [{"type": "double", "name": "x", "required": True}, {"type": "long", "name": "y", "required": True}]


def test_a_classifier_gives_labels_and_probabilities(tmp_path: Path) -> None:
    estimator = classifier()
    model = load(save(tmp_path / "m", estimator, inputs=TEXT, example=["good"]), trust=False)
    answer = model.predict(Call(["good nice", "awful"]))
    assert answer.predictions == ["positive", "negative"]
    assert answer.probabilities is not None
    expected = estimator.predict_proba(["good nice"])[0]
    assert answer.probabilities[0] == pytest.approx(dict(zip(estimator.classes_, expected, strict=True)))
    assert model.example == b'{"inputs": ["good"]}'


def test_a_regression_on_columns_takes_them_in_the_order_of_its_signature(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": [0.0, 1.0, 2.0], "y": [0, 1, 0]})
    estimator = LinearRegression().fit(table, table.x + 10 * table.y)
    model = load(save(tmp_path / "m", estimator, inputs=NUMBERS), trust=False)
    assert model.predict(Call([(1, 3.0), ("0", "1")], ("y", "x"))).predictions == pytest.approx([13, 1])
    assert model.predict(Call([[3.0, 1]])).predictions == pytest.approx([13])
    assert model.predict(Call([(1, 3.0)], ("y", "x"))).probabilities is None


def test_a_model_without_a_signature_takes_an_array(tmp_path: Path) -> None:
    estimator = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    model = load(save(tmp_path / "m", estimator), trust=False)
    answer = model.predict(Call([[5.0], [-5.0]]))
    assert answer.predictions == [1, 0]
    assert answer.probabilities is not None
    assert set(answer.probabilities[0]) == {"0", "1"}
    assert model.example is None


def test_an_example_outside_its_model_is_not_read(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", classifier(), inputs=TEXT, example=["good"])
    (tmp_path / "secret.json").write_text('{"inputs": ["secret"]}')
    description = yaml.safe_load((folder / "MLmodel").read_text())
    description["saved_input_example_info"]["serving_input_path"] = "../secret.json"
    (folder / "MLmodel").write_text(yaml.safe_dump(description))
    with pytest.raises(UnknownModel, match="leads out"):
        load(folder, trust=False)


def test_a_file_with_types_that_nobody_trusts_is_refused(tmp_path: Path) -> None:
    import os

    folder = save(tmp_path / "m", FunctionTransformer(os.system), inputs=TEXT)
    with pytest.raises(UntrustedArtifact, match="system"):
        load(folder, trust=False)


def test_a_file_cannot_vouch_for_itself(tmp_path: Path) -> None:
    """A model's own description says which types to trust; that counts only if the version is trusted."""
    folder = save(tmp_path / "m", FunctionTransformer(pickle.loads), inputs=TEXT)
    description = yaml.safe_load((folder / "MLmodel").read_text())
    description["flavors"]["sklearn"]["skops_trusted_types"] = ["_pickle.loads"]
    (folder / "MLmodel").write_text(yaml.safe_dump(description))
    with pytest.raises(UntrustedArtifact):
        load(folder, trust=False)
    with pytest.raises(AttributeError, match="predict"):  # it is loaded now, and has nothing to predict with
        load(folder, trust=True).predict(Call(["a"]))


@pytest.mark.parametrize("flavors", [{"sklearn": {"pickled_model": "model.pkl"}}, {"python_function": {}}])
def test_a_pickle_and_any_other_flavour_are_refused_without_trust(tmp_path: Path, flavors: dict[str, Any]) -> None:
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
    with pytest.raises(UntrustedArtifact) as caught:
        load(tmp_path, trust=False)
    assert "noria.trusted" in caught.value.remedy


def test_a_folder_without_a_model_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="no MLflow model"):
        load(tmp_path, trust=False)


def test_a_broken_file_is_reported_with_the_reason(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", LinearRegression(), inputs=TEXT)
    (folder / "model.skops").write_bytes(b"not a zip")
    with pytest.raises(UpstreamFailed, match="BadZipFile"):
        load(folder, trust=False)


@pytest.mark.parametrize(
    ("call", "column"),
    [
        (Call(["a", "b"]), ""),
        (Call([["a"], ["b"]]), ""),
        (Call([("a",), ("b",)], ("anything",)), "text"),
        (Call([(1, "a"), (2, "b")], ("id", "text")), "text"),
    ],
)
def test_texts_come_from_rows_or_from_their_column(call: Call, column: str) -> None:
    assert texts(call, column) == ["a", "b"]


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (Call(["a", 1]), "Row 1 isn't a text, but int"),
        (Call([None]), "but null"),
        (Call([["a", "b"]]), "but list"),
        (Call([(1, 2)], ("x", "y")), "no column text"),
    ],
)
def test_a_row_that_is_no_text_is_told(call: Call, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        texts(call, "text")


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (Call([(1,)], ("x",)), "no column y"),
        (Call([[1]]), "2 values"),
        (Call([("one", 2)], ("x", "y")), "Column x"),
    ],
)
def test_rows_that_do_not_fit_the_columns_are_told(call: Call, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        frame(call, (("x", "double"), ("y", "long")))


def test_rows_of_different_lengths_make_no_array() -> None:
    with pytest.raises(InvalidRequest, match="make an array"):
        array(Call([[1, 2], [3]]), "float64")


@pytest.mark.parametrize(
    ("predictions", "values"),
    [
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (pd.Series([1, 2]), [1, 2]),
        (pd.DataFrame({"x": [1, 2]}), [{"x": 1}, {"x": 2}]),
        (["a", "b"], ["a", "b"]),
        ("a", ["a"]),
        (np.float64(1), [1.0]),
    ],
)
def test_predictions_of_any_container_become_one_value_a_row(predictions: object, values: list[object]) -> None:
    assert as_list(predictions) == values


@pytest.mark.parametrize(
    ("inputs", "one_text"),
    [
        ('[{"type": "string", "required": true}]', True),
        ('[{"type": "string", "name": "text"}]', True),
        ('[{"type": "tensor", "tensor-spec": {"dtype": "str", "shape": [-1]}}]', True),
        ('[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}]', False),
        ('[{"type": "string", "name": "a"}, {"type": "string", "name": "b"}]', False),
        ("", False),
    ],
)
def test_a_signature_says_whether_a_row_is_one_text(inputs: str, one_text: bool) -> None:
    assert Signature.read({"signature": {"inputs": inputs}}).one_text is one_text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow's own
@pytest.mark.parametrize("format", ["skops", "cloudpickle"])
def test_what_mlflow_itself_saves_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    monkeypatch.chdir(tmp_path)  # MLflow leaves files where it stands
    import mlflow
    from mlflow.models import infer_signature

    estimator, words = classifier(), ["good", "bad"]
    signature = infer_signature(words, estimator.predict(words))
    trusted = [f"sklearn.calibration.{name}" for name in ("_CalibratedClassifier", "_SigmoidCalibration")]
    mlflow.sklearn.save_model(
        estimator, tmp_path / "m", signature=signature, serialization_format=format,
        skops_trusted_types=trusted if format == "skops" else None,
    )  # fmt: skip
    model = load(tmp_path / "m", trust=format != "skops")
    assert model.predict(Call(["nice", "poor"])).predictions == ["positive", "negative"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_model_of_another_flavour_is_served_through_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    # MLflow shows this advice whatever the filters say, and it is right to: but with hints it would change the input
    monkeypatch.setattr("mlflow.pyfunc.utils.data_validation.color_warning", lambda *_, **__: None)

    class Repeat(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context, model_input, params=None):  # MLflow reads meaning into type hints
            return [text * (params or {}).get("times", 1) for text in model_input["text"]]

    signature = ModelSignature(
        Schema([ColSpec("string", "text")]), params=ParamSchema([ParamSpec("times", "integer", 2)])
    )
    mlflow.pyfunc.save_model(tmp_path / "m", python_model=Repeat(), signature=signature)
    model = load(tmp_path / "m", trust=True)
    assert model.predict(Call([("a",), ("b",)], ("text",))).predictions == ["aa", "bb"]
    assert model.predict(Call(["a"], params='{"times":3}')).predictions == ["aaa"]
    with pytest.raises(InvalidRequest):
        model.predict(Call([(1,)], ("text",)))
