"""Model files to something that answers calls.

A scikit-learn model is loaded straight from its file, without MLflow, which takes seconds to import; formats that hold
no code are loaded by their own runtimes (`formats.py`); every other flavour goes through `mlflow.pyfunc`. Loading may
run code that lies in the file, so a file that could do so is refused unless the host says that the version is trusted.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noria.adapters.registry.packages import SAFE_TYPES, chats, describe, risks, unknown_types, within
from noria.domain.errors import InvalidRequest, MissingExtra, UnknownModel, UntrustedArtifact, UpstreamFailed
from noria.modelserver import chat, formats
from noria.modelserver.batching import Answer, Call
from noria.modelserver.rows import Signature, as_list, shaper

MOST_PROBABLE = ("CalibratedClassifierCV", "LogisticRegression")
"""Estimators whose prediction is by definition the most probable class: asking for both would cost twice."""
_SAY_SO = (
    "Save it as skops, ONNX or safetensors; or, if you know where it comes from, add it with "
    "noria model add … --trust, which tags it noria.trusted=yes."
)


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model.

    Attributes:
        predict: Answers a call.
        example: The body of a request that the model was logged with, to warm up on; None if there is none.
        chats: Whether a row is the body of a chat (`chat.call_of`).
    """

    predict: Callable[[Call], Answer]
    example: bytes | None = None
    chats: bool = False


def load(folder: Path, *, trust: bool) -> Model:
    """Bring the MLflow model in a folder to life.

    Raises:
        UnknownModel: The folder holds no MLflow model.
        UntrustedArtifact: Loading it could run code, and it isn't trusted.
        MissingExtra: Its runtime isn't installed.
        UpstreamFailed: It can't be loaded.
    """
    description = describe(folder)
    try:
        talks = chats(description) and "onnx" not in description["flavors"]
        predict = _talker(folder, description, trust) if talks else _predictor(folder, description, trust)
    except (UntrustedArtifact, MissingExtra, UnknownModel):
        raise
    except Exception as error:
        raise UpstreamFailed(
            f"The model in {folder.name} can't be loaded: {type(error).__name__}: {error}.",
            "Load it with the package versions in its requirements.txt, or register it again.",
        ) from error
    return Model(predict, None if talks else _example(folder, description), talks)


def _talker(folder: Path, description: Mapping[str, Any], trust: bool) -> Callable[[Call], Answer]:
    """A model that chats, asked through MLflow."""
    _demand_trust(folder, trust)
    import mlflow.pyfunc

    names = tuple(name for name, _ in Signature.read(description).columns if name)
    return chat.predictor(mlflow.pyfunc.load_model(str(folder)), names)


def _predictor(folder: Path, description: Mapping[str, Any], trust: bool) -> Callable[[Call], Answer]:
    """The way into a model that its flavors offer, the safest first."""
    flavors, signature = description["flavors"], Signature.read(description)
    if "sklearn" in flavors:
        return _estimator(folder, flavors["sklearn"], signature, trust)
    if "onnx" in flavors:
        return formats.onnx(folder, flavors["onnx"])
    if "transformers" in flavors and not risks(folder):
        return formats.transformers(folder, flavors["transformers"])
    return _pyfunc(folder, signature, trust)


def _example(folder: Path, description: Mapping[str, Any]) -> bytes | None:
    name = (description.get("saved_input_example_info") or {}).get("serving_input_path")
    file = within(folder, name) if name else None
    return file.read_bytes() if file is not None and file.is_file() else None


def _estimator(folder: Path, flavor: Mapping[str, Any], signature: Signature, trust: bool) -> Callable[[Call], Answer]:
    """A scikit-learn model, asked directly."""
    file = within(folder, flavor["pickled_model"])
    if flavor.get("serialization_format") == "skops":
        estimator = _skops(file, flavor.get("skops_trusted_types") or [], trust)
    else:
        _demand_trust(file, trust)
        import mlflow.sklearn

        estimator = mlflow.sklearn.load_model(str(folder))
    return _Estimator(estimator, signature)


def _skops(file: Path, declared: Sequence[str], trust: bool) -> Any:
    import skops.io

    unknown = set(unknown_types(file))
    allowed = set(declared) if trust else set()
    if strange := sorted(unknown - allowed):
        raise UntrustedArtifact(f"{file.name} holds types that nobody trusts: {', '.join(strange)}.", _SAY_SO)
    return skops.io.load(file, trusted=sorted(unknown | SAFE_TYPES))


def _demand_trust(file: Path, trust: bool) -> None:
    if not trust:
        raise UntrustedArtifact(f"Loading {file.name} can run code that lies in it.", _SAY_SO)


def _pyfunc(folder: Path, signature: Signature, trust: bool) -> Callable[[Call], Answer]:
    """Any other flavour, asked through MLflow."""
    _demand_trust(folder, trust)
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(str(folder))
    shape = shaper(signature, as_frame=True)

    def predict(call: Call) -> Answer:
        params = json.loads(call.params) if call.params else None
        try:
            return Answer(as_list(model.predict(shape(call), params=params)))
        except mlflow.exceptions.MlflowException as error:
            if error.error_code == "INVALID_PARAMETER_VALUE":
                raise InvalidRequest(error.message, "Send rows that fit the model's signature.") from error
            raise

    return predict


class _Estimator:
    """A scikit-learn estimator; a pipeline's transformers are run once for both labels and probabilities."""

    def __init__(self, estimator: Any, signature: Signature) -> None:
        steps = getattr(estimator, "steps", None)
        self._transform = estimator[:-1].transform if steps and len(steps) > 1 else lambda rows: rows
        self._final = estimator[-1] if steps and len(steps) > 1 else estimator
        self._shape = shaper(signature)
        probable = hasattr(self._final, "predict_proba") and getattr(self._final, "classes_", None) is not None
        self._classes = [str(name) for name in self._final.classes_] if probable else None
        self._most_probable = type(self._final).__name__ in MOST_PROBABLE

    def __call__(self, call: Call) -> Answer:
        features = self._transform(self._shape(call))
        if self._classes is None:
            return Answer(as_list(self._final.predict(features)))
        likely = self._final.predict_proba(features)
        labels = self._final.classes_[likely.argmax(axis=1)] if self._most_probable else self._final.predict(features)
        return Answer(as_list(labels), [dict(zip(self._classes, row, strict=True)) for row in likely.tolist()])
