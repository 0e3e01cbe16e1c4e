"""What somebody has, as the registry takes it; what of it could run code; what is refused with a hint."""

import json
import pickle
from pathlib import Path

import pytest
import skops.io
import yaml
from sklearn.preprocessing import FunctionTransformer

from fakes.models import TEXT, classifier, save
from noria.adapters.registry.packages import ACCEPTED, prepare, risks, weights
from noria.domain.errors import InvalidData, UnknownModel
from noria.domain.model import Flavor


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def test_a_gguf_file_stays_as_it_is(tmp_path: Path, scratch: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    for given in (file, tmp_path):
        package = prepare(given, scratch)
        assert (package.path, package.flavor, package.risks) == (file, Flavor.GGUF, ())


def test_the_folder_of_an_mlflow_model_stays_as_it_is(tmp_path: Path, scratch: Path) -> None:
    folder = save(tmp_path / "m", classifier(), inputs=TEXT)
    package = prepare(folder, scratch)
    assert (package.path, package.flavor, package.risks) == (folder, Flavor.PYFUNC, ())


def test_a_skops_file_becomes_a_model_and_strange_types_in_it_are_named(tmp_path: Path, scratch: Path) -> None:
    good, strange = tmp_path / "good.skops", tmp_path / "strange.skops"
    skops.io.dump(classifier(), good)
    skops.io.dump(FunctionTransformer(pickle.loads), strange)
    assert prepare(good, scratch).risks == ()
    assert yaml.safe_load((scratch / "MLmodel").read_text())["flavors"]["sklearn"]["serialization_format"] == "skops"
    assert prepare(strange, scratch).risks == ("_pickle.loads",)


def huggingface(folder: Path, architecture: str = "BertForSequenceClassification") -> Path:
    """A repository's files, as far as their names and their architecture go."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    for name in ("model.safetensors", "tokenizer.json", "pytorch_model.bin", "modeling.py"):
        (folder / name).write_text(name)
    return folder


def test_a_classifier_of_transformers_leaves_its_code_and_its_pickles_behind(tmp_path: Path, scratch: Path) -> None:
    package = prepare(huggingface(tmp_path / "repo"), scratch)
    assert package.risks == ()
    names = {p.relative_to(scratch).as_posix() for p in scratch.rglob("*") if p.is_file()}
    assert names == {
        "MLmodel",
        *("model/config.json", "model/model.safetensors", "model/tokenizer.json"),
        *("components/tokenizer/config.json", "components/tokenizer/tokenizer.json"),
    }
    assert yaml.safe_load((scratch / "MLmodel").read_text())["flavors"]["transformers"]["task"] == "text-classification"


def test_a_language_model_in_safetensors_is_told_how_it_is_served(tmp_path: Path, scratch: Path) -> None:
    with pytest.raises(InvalidData, match="LlamaForCausalLM, not a classifier") as caught:
        prepare(huggingface(tmp_path / "repo", "LlamaForCausalLM"), scratch)
    assert "GGUF" in caught.value.remedy
    assert "command" in caught.value.remedy


@pytest.mark.parametrize(
    ("flavors", "found"),
    [
        ({"sklearn": {"pickled_model": "model.pkl"}}, ["model.pkl"]),
        (
            {"python_function": {"loader_module": "mlflow.pyfunc.model", "python_model": "python_model.pkl"}},
            ["python_model.pkl"],
        ),
        ({"langchain": {}, "python_function": {"loader_module": "mlflow.langchain"}}, ["mlflow.langchain"]),
        ({"transformers": {}, "python_function": {"loader_module": "mlflow.transformers"}}, ["mlflow.transformers"]),
        ({"onnx": {"data": "model.onnx"}, "python_function": {}}, []),
    ],
)
def test_what_could_run_code_is_named(tmp_path: Path, flavors: dict[str, object], found: list[str]) -> None:
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
    assert risks(tmp_path) == found


@pytest.mark.parametrize(
    ("name", "said"),
    [("m.pkl", "a pickle can run code"), ("notes.txt", "nothing that can be served"), ("gone", "isn't there")],
)
def test_other_files_are_refused_with_what_is_accepted(tmp_path: Path, scratch: Path, name: str, said: str) -> None:
    if name != "gone":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InvalidData, match=said) as caught:
        prepare(tmp_path / name, scratch)
    assert caught.value.remedy == ACCEPTED


def test_what_only_looks_like_skops_is_refused(tmp_path: Path, scratch: Path) -> None:
    file = tmp_path / "m.skops"
    file.write_bytes(b"not a zip")
    with pytest.raises(InvalidData, match="BadZipFile"):
        prepare(file, scratch)


def test_an_mlmodel_does_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="leads out"):
        weights(tmp_path, {"model_binary": "../../etc"})


@pytest.mark.parametrize("text", ["[]", "{a: [", "name: x"])
def test_an_mlmodel_that_is_none_is_said_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(UnknownModel, match="no MLflow model"):
        risks(tmp_path)


@pytest.mark.parametrize("name", ["../elsewhere.skops", "/etc/passwd"])
def test_a_skops_file_outside_its_model_is_not_looked_at(tmp_path: Path, scratch: Path, name: str) -> None:
    skops.io.dump(classifier(), tmp_path / "elsewhere.skops")
    folder = tmp_path / "m"
    folder.mkdir()
    flavor = {"serialization_format": "skops", "pickled_model": name}
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {"sklearn": flavor}}))
    with pytest.raises(UnknownModel, match="leads out"):
        prepare(folder, scratch)
