"""Model files as people have them → what the registry keeps, and what of it could run code when it is loaded.

| given | becomes | loads without trust |
|---|---|---|
| folder of an MLflow model | itself | skops, ONNX, transformers with safetensors |
| `.gguf` file | itself | yes |
| `.skops` file | an MLflow model of scikit-learn's flavor | if it holds no types that skops doesn't know |
| `.onnx` file | an MLflow model of the ONNX flavor | yes |
| folder with `config.json` and safetensors | an MLflow model of transformers' flavor | yes |
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from noria.domain.deployment import WIRE
from noria.domain.endpoint import Wire
from noria.domain.errors import InvalidData, NoriaError, UnknownModel
from noria.domain.model import Flavor, Package
from noria.domain.prompt import FILE as PROMPT

ACCEPTED = (
    "Give the folder of an MLflow model, a .gguf, .skops or .onnx file, "
    "or a folder with config.json and .safetensors files."
)
FLAVOR = "noria.flavor"
"""In an MLmodel's metadata and on a version: how its files are brought to life."""
SAFE_TYPES = frozenset(
    f"sklearn.calibration.{name}" for name in ("_CalibratedClassifier", "_SigmoidCalibration", "_TemperatureScaling")
)
"""Types that skops doesn't trust by itself and that hold nothing but numbers and other estimators."""
TASKS: Mapping[str, str] = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
}
"""End of an architecture's name → the task of its pipeline."""
_TEXTS = json.dumps([{"type": "string", "required": True}])


def describe(folder: Path) -> dict[str, Any]:
    """The MLmodel file of a folder.

    Raises:
        UnknownModel: There is none, or it is no such file.
    """
    try:
        description = yaml.safe_load((folder / "MLmodel").read_text())
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise UnknownModel(f"{folder} holds no MLflow model.", "Give the folder that has the file MLmodel.") from error
    if not isinstance(description, dict) or not isinstance(description.get("flavors"), dict):
        raise UnknownModel(f"{folder} holds no MLflow model: its MLmodel names no flavor.", "Log the model again.")
    return description


def prepare(path: Path, scratch: Path) -> Package:
    """Model files as the registry takes them.

    Args:
        path: What somebody has.
        scratch: An empty folder for what has to be laid out anew.

    Raises:
        InvalidData: It is nothing that can be served; the remedy says what is.
    """
    if path.is_file() and path.suffix == ".gguf":
        return Package(path, Flavor.GGUF, chats=True)
    if path.is_file() and path.suffix in (".skops", ".onnx"):
        folder = _wrap_skops(path, scratch) if path.suffix == ".skops" else _wrap_onnx(path, scratch)
    elif (path / "MLmodel").is_file():
        folder = path
    elif (path / "config.json").is_file() and any(path.glob("*.safetensors")):
        folder = _wrap_transformers(path, scratch)
    elif len(files := [*path.glob("*.gguf")]) == 1:
        return Package(files[0], Flavor.GGUF, chats=True)
    else:
        raise InvalidData(f"{path} is nothing that can be served{_hint(path)}.", ACCEPTED)
    try:
        return Package(folder, Flavor.PYFUNC, tuple(risks(folder)), chats(describe(folder)))
    except NoriaError:
        raise
    except Exception as error:  # zipfile's and skops's own, and what an MLmodel can lack
        raise InvalidData(f"{path.name} can't be read: {type(error).__name__}: {error}.", ACCEPTED) from error


def chats(description: Mapping[str, Any]) -> bool:
    """Whether an MLflow model takes a conversation: its MLmodel names that task, or its inputs are `messages`."""
    if (description.get("metadata") or {}).get("task") == "llm/v1/chat":
        return True
    inputs = json.loads((description.get("signature") or {}).get("inputs") or "[]")
    return any(each.get("name") == "messages" for each in inputs)


def stamps_of(folder: Path) -> dict[str, str]:
    """The tags that say how an MLflow model is brought to life: as a prompt if it says that it is one."""
    description = describe(folder)
    if (description.get("metadata") or {}).get(FLAVOR) != Flavor.PROMPT.value or not (folder / PROMPT).is_file():
        return {FLAVOR: Flavor.PYFUNC.value}
    wire = Wire.OPENAI if chats(description) else Wire.MLFLOW
    return {FLAVOR: Flavor.PROMPT.value, WIRE: wire.value}


def risks(folder: Path) -> list[str]:
    """What in the folder of an MLflow model could run code when our model server loads it; empty if nothing can."""
    flavors = describe(folder)["flavors"]
    if "sklearn" in flavors:
        flavor = flavors["sklearn"]
        if flavor.get("serialization_format") != "skops":
            return [str(flavor.get("pickled_model", "model.pkl"))]
        return unknown_types(within(folder, flavor["pickled_model"]))
    if "onnx" in flavors:
        return []
    if "transformers" in flavors and any(weights(folder, flavors["transformers"]).glob("*.safetensors")):
        return []
    function = flavors.get("python_function", {})
    return [str(function.get("python_model") or function.get("loader_module") or "its flavor")]


def weights(folder: Path, flavor: Mapping[str, Any]) -> Path:
    """The folder that holds a transformers model's weights, inside that of the MLflow model."""
    return within(folder, flavor.get("model_binary", "model"))


def within(folder: Path, name: object) -> Path:
    """What an MLmodel file names in its folder.

    Raises:
        UnknownModel: It names something elsewhere.
    """
    inside = (folder / str(name)).resolve()
    if not inside.is_relative_to(folder.resolve()):
        raise UnknownModel(f"The MLmodel of {folder.name} leads out of its folder.", "Log the model again.")
    return inside


def unknown_types(file: Path) -> list[str]:
    """Types in a skops file that nobody has said are harmless."""
    import skops.io

    return sorted(set(skops.io.get_untrusted_types(file=file)) - SAFE_TYPES)


def _hint(path: Path) -> str:
    """What a thing is instead, where that helps."""
    if not path.exists():
        return ": it isn't there"
    if path.suffix in (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin"):
        return ": a pickle can run code and says nothing about itself; log it with MLflow or save it with skops"
    if path.is_dir() and any(path.glob("*.bin")):
        return ": its weights are pickles; save them as safetensors"
    if path.is_dir() and (several := len([*path.glob("*.gguf")])) > 1:
        return f": it holds {several} GGUF files, so say which"
    return ""


def _wrap(scratch: Path, flavors: Mapping[str, Any], inputs: str = "") -> Path:
    """The folder of an MLflow model."""
    description: dict[str, Any] = {"flavors": dict(flavors)}
    if inputs:
        description["signature"] = {"inputs": inputs, "outputs": None, "params": None}
    (scratch / "MLmodel").write_text(yaml.safe_dump(description))
    return scratch


def _wrap_skops(file: Path, scratch: Path) -> Path:
    shutil.copyfile(file, scratch / "model.skops")
    flavor = {"pickled_model": "model.skops", "serialization_format": "skops", "code": None}
    function = {"loader_module": "mlflow.sklearn", "model_path": "model.skops", "predict_fn": "predict"}
    return _wrap(scratch, {"sklearn": flavor, "python_function": function})


def _wrap_onnx(file: Path, scratch: Path) -> Path:
    shutil.copyfile(file, scratch / "model.onnx")
    flavor = {"data": "model.onnx", "providers": ["CPUExecutionProvider"], "code": None}
    return _wrap(scratch, {"onnx": flavor, "python_function": {"loader_module": "mlflow.onnx", "data": "model.onnx"}})


def _wrap_transformers(path: Path, scratch: Path) -> Path:
    """Hugging Face's layout in MLflow's: weights and configuration in `model`, the tokenizer beside them."""
    try:
        architectures: Sequence[str] = json.loads((path / "config.json").read_text()).get("architectures") or [""]
    except (ValueError, AttributeError) as error:
        raise InvalidData(f"{path / 'config.json'} can't be read: {error}.", ACCEPTED) from error
    task = next((task for end, task in TASKS.items() if architectures[0].endswith(end)), "")
    if not task:
        remedy = "Serve a language model from a GGUF file, or with a command such as vLLM (command: in noria.yaml)."
        raise InvalidData(
            f"{path.name} is a {architectures[0] or 'model of no architecture'}, not a classifier.", remedy
        )
    weights, tokenizer = scratch / "model", scratch / "components" / "tokenizer"
    for folder in (weights, tokenizer):
        folder.mkdir(parents=True)
    for file in path.iterdir():
        if file.is_file() and file.suffix in (".safetensors", ".json", ".txt", ".model"):
            shutil.copyfile(file, weights / file.name)
            if file.suffix != ".safetensors" and file.name != "config.json":
                shutil.copyfile(file, tokenizer / file.name)
    shutil.copyfile(path / "config.json", tokenizer / "config.json")
    flavor: dict[str, Any] = {"task": task, "model_binary": "model", "pipeline_model_type": architectures[0]}
    flavor |= {"components": ["tokenizer"], "framework": "pt", "code": None}
    function = {"loader_module": "mlflow.transformers", "task": task, "model_binary": "model"}
    return _wrap(scratch, {"transformers": flavor, "python_function": function}, _TEXTS)
