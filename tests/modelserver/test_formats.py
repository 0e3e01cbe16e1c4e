"""Formats that hold no code: real ONNX sessions and a real, tiny model of transformers."""

import json
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from noria.adapters.registry.packages import prepare
from noria.domain.errors import InvalidRequest, MissingExtra, UnknownModel, UpstreamFailed
from noria.modelserver.batching import Call
from noria.modelserver.models import load


def linear(file: Path) -> Path:
    """An ONNX model that adds one to each of two numbers."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    graph = helper.make_graph([helper.make_node("Add", ["x", "one"], ["y"])], "g", [x], [y], [one])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(file))
    return file


def columns(file: Path) -> Path:
    """An ONNX model of two inputs that says whether the first is less than the second."""
    a, b = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in ("a", "b"))
    y = helper.make_tensor_value_info("y", TensorProto.BOOL, [None])
    graph = helper.make_graph([helper.make_node("Less", ["a", "b"], ["y"])], "g", [a, b], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(file))
    return file


def laid_out(given: Path, tmp_path: Path) -> Path:
    """The folder that the registry would keep."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return prepare(given, scratch).path


def test_an_onnx_model_answers_rows_without_trust(tmp_path: Path) -> None:
    model = load(laid_out(linear(tmp_path / "m.onnx"), tmp_path), trust=False)
    assert model.predict(Call([[1.0, 2.0], [3, 4]])).predictions == [[2.0, 3.0], [4.0, 5.0]]


def test_an_onnx_model_of_several_inputs_takes_columns_by_their_names(tmp_path: Path) -> None:
    model = load(laid_out(columns(tmp_path / "m.onnx"), tmp_path), trust=False)
    assert model.predict(Call([(2, 1), (1, 2)], ("b", "a"))).predictions == [True, False]
    with pytest.raises(InvalidRequest, match="no column b"):
        model.predict(Call([(1,)], ("a",)))


@pytest.mark.parametrize("rows", [["text", "other"], [[1.0], [1.0, 2.0]], [[[1.0, 2.0]]]])
def test_rows_that_do_not_fit_are_the_callers_mistake(tmp_path: Path, rows: list[Any]) -> None:
    model = load(laid_out(linear(tmp_path / "m.onnx"), tmp_path), trust=False)
    with pytest.raises(InvalidRequest):
        model.predict(Call(rows))


def test_an_mlmodel_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    linear(tmp_path / "outside.onnx")
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {"onnx": {"data": "../outside.onnx"}}}))
    with pytest.raises(UnknownModel, match="leads out"):
        load(folder, trust=False)


def test_what_is_no_onnx_file_cannot_be_loaded(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(b"nothing")
    with pytest.raises(UpstreamFailed, match="can't be loaded"):
        load(laid_out(file, tmp_path), trust=False)


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = laid_out(linear(tmp_path / "m.onnx"), tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra) as caught:
        load(folder, trust=False)
    assert "noria[onnx]" in caught.value.remedy


def bert(folder: Path) -> Path:
    """A classifier of transformers that knows six words and has learnt nothing."""
    transformers = pytest.importorskip("transformers", reason="transformers isn't installed")
    pytest.importorskip("torch", reason="torch isn't installed")
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad"]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        id2label={0: "negative", 1: "positive"},
        label2id={"negative": 0, "positive": 1},
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_classifier_of_transformers_answers_texts_without_trust(tmp_path: Path) -> None:
    given = bert(tmp_path / "repo")
    (given / "config.json").write_text(
        json.dumps(json.loads((given / "config.json").read_text()) | {"auto_map": {"AutoModel": "evil.Evil"}})
    )
    model = load(laid_out(given, tmp_path), trust=False)
    answer = model.predict(Call(["good good", "bad"]))
    assert set(answer.predictions) <= {"negative", "positive"}
    assert answer.probabilities is not None
    assert [set(row) for row in answer.probabilities] == [{"negative", "positive"}] * 2
    assert [max(row, key=lambda name: row[name]) for row in answer.probabilities] == answer.predictions
    with pytest.raises(InvalidRequest):
        model.predict(Call([3]))
