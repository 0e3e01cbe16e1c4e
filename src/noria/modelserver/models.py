"""Model files to something that answers calls.

A scikit-learn model is loaded straight from its file, without MLflow, which takes seconds to import; every other
flavour goes through `mlflow.pyfunc`. Loading may run code that lies in the file, so a file that could do so is refused
unless the host says that the version is trusted.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from noria.domain.errors import InvalidRequest, UnknownModel, UntrustedArtifact, UpstreamFailed
from noria.modelserver.batching import Answer, Call

SAFE_TYPES = frozenset(
    f"sklearn.calibration.{name}" for name in ("_CalibratedClassifier", "_SigmoidCalibration", "_TemperatureScaling")
)
"""Types that skops doesn't trust by itself and that hold nothing but numbers and other estimators."""
MOST_PROBABLE = ("CalibratedClassifierCV", "LogisticRegression")
"""Estimators whose prediction is by definition the most probable class: asking for both would cost twice."""
_SAY_SO = "Tag the version noria.trusted=yes if you know where it comes from, or save it in the skops format."
_NUMERIC = {"integer": int, "long": int, "float": float, "double": float}


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model.

    Attributes:
        predict: Answers a call.
        example: The body of a request that the model was logged with, to warm up on; None if there is none.
    """

    predict: Callable[[Call], Answer]
    example: bytes | None = None


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs that a model was logged with.

    Attributes:
        columns: Name (empty if unnamed) and MLflow type of each column, for models of data frames.
        tensor: NumPy type of the one tensor, for models of arrays; empty otherwise.
    """

    columns: tuple[tuple[str, str], ...] = ()
    tensor: str = ""

    @property
    def one_text(self) -> bool:
        """Whether a row is one text."""
        return self.tensor in ("str", "object") or [kind for _, kind in self.columns] == ["string"]

    @classmethod
    def read(cls, description: Mapping[str, Any]) -> "Signature":
        """The signature in an MLmodel file; empty if it has none."""
        inputs = json.loads((description.get("signature") or {}).get("inputs") or "[]")
        if len(inputs) == 1 and inputs[0]["type"] == "tensor":
            return cls(tensor=inputs[0]["tensor-spec"]["dtype"])
        return cls(tuple((column.get("name", ""), str(column["type"])) for column in inputs))


def load(folder: Path, *, trust: bool) -> Model:
    """Bring the MLflow model in a folder to life.

    Raises:
        UnknownModel: The folder holds no MLflow model.
        UntrustedArtifact: Loading it could run code, and it isn't trusted.
        UpstreamFailed: It can't be loaded.
    """
    try:
        description = yaml.safe_load((folder / "MLmodel").read_text())
    except OSError as error:
        raise UnknownModel(f"{folder} holds no MLflow model.", "Give the folder that has the file MLmodel.") from error
    signature = Signature.read(description)
    flavor = description.get("flavors", {}).get("sklearn")
    try:
        predict = _estimator(folder, flavor, signature, trust) if flavor else _pyfunc(folder, signature, trust)
    except UntrustedArtifact:
        raise
    except Exception as error:
        raise UpstreamFailed(
            f"The model in {folder.name} can't be loaded: {type(error).__name__}: {error}.",
            "Load it with the package versions in its requirements.txt, or register it again.",
        ) from error
    return Model(predict, _example(folder, description))


def _example(folder: Path, description: Mapping[str, Any]) -> bytes | None:
    name = (description.get("saved_input_example_info") or {}).get("serving_input_path")
    return (folder / name).read_bytes() if name and (folder / name).is_file() else None


def _estimator(folder: Path, flavor: Mapping[str, Any], signature: Signature, trust: bool) -> Callable[[Call], Answer]:
    """A scikit-learn model, asked directly."""
    file = folder / flavor["pickled_model"]
    if flavor.get("serialization_format") == "skops":
        estimator = _skops(file, flavor.get("skops_trusted_types") or [], trust)
    else:
        _demand_trust(file, trust)
        import mlflow.sklearn

        estimator = mlflow.sklearn.load_model(str(folder))
    return _Estimator(estimator, signature)


def _skops(file: Path, declared: Sequence[str], trust: bool) -> Any:
    import skops.io

    unknown = set(skops.io.get_untrusted_types(file=file)) - SAFE_TYPES
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


def shaper(signature: Signature, *, as_frame: bool = False) -> Callable[[Call], Any]:
    """The function that turns a call into what a model of that signature takes: texts, a data frame or an array.

    Args:
        signature: The model's.
        as_frame: Whether a lone column of texts has to be a data frame too, as MLflow wants it.
    """
    if signature.one_text and not (as_frame and signature.columns):
        name = signature.columns[0][0] if signature.columns else ""
        return lambda call: texts(call, name)
    if signature.columns:
        return lambda call: frame(call, signature.columns)
    return lambda call: array(call, signature.tensor)


def texts(call: Call, column: str) -> list[str]:
    """Rows of one text each.

    Raises:
        InvalidRequest: A row isn't a text, or there is no such column.
    """
    rows = call.rows
    if call.columns:
        wanted = column if column in call.columns else call.columns[0]
        if len(call.columns) > 1 and wanted != column:
            raise InvalidRequest(f"There is no column {column or 'text'}.", "Send one text for each row.")
        place = call.columns.index(wanted)
        rows = [row[place] for row in rows]
    rows = [row[0] if isinstance(row, list) and len(row) == 1 else row for row in rows]
    for number, row in enumerate(rows):
        if not isinstance(row, str):
            raise InvalidRequest(f"Row {number} isn't a text, but {_kind(row)}.", "Send one text for each row.")
    return rows


def frame(call: Call, columns: Sequence[tuple[str, str]]) -> Any:
    """A data frame with the columns of the signature.

    Raises:
        InvalidRequest: A column is missing, or a row has too few values.
    """
    import pandas as pd

    names = [name or str(place) for place, (name, _) in enumerate(columns)]
    rows = call.rows if call.columns else [row if isinstance(row, list) else [row] for row in call.rows]
    if given := call.columns:
        if missing := [name for name in names if name not in given]:
            raise InvalidRequest(f"There is no column {', '.join(missing)}.", f"Send {', '.join(names)}.")
        places = [given.index(name) for name in names]
        rows = [[row[place] for place in places] for row in rows]
    elif any(len(row) != len(names) for row in rows):
        raise InvalidRequest(f"A row doesn't have {len(names)} values.", f"Send {', '.join(names)} in each row.")
    table = pd.DataFrame(rows, columns=names)
    for name, (_, kind) in zip(names, columns, strict=True):
        if kind in _NUMERIC:
            table[name] = _numbers(table[name], name)
    return table


def _numbers(column: Any, name: str) -> Any:
    import pandas as pd

    try:
        return pd.to_numeric(column)
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"Column {name} holds something that isn't a number: {error}.", "Send numbers.") from error


def array(call: Call, dtype: str) -> Any:
    """Rows as an array of that type, or of whatever they are.

    Raises:
        InvalidRequest: Rows differ in length or don't fit the type.
    """
    import numpy as np

    rows = [list(row) if isinstance(row, tuple) else row for row in call.rows]
    try:
        return np.asarray(rows, dtype=dtype or None)
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"The rows don't make an array: {error}.", "Send rows of one shape and type.") from error


def as_list(predictions: Any) -> list[Any]:
    """Predictions of any container MLflow allows, as one JSON value for each row."""
    if hasattr(predictions, "to_dict") and hasattr(predictions, "columns"):
        return list(predictions.to_dict(orient="records"))
    if hasattr(predictions, "tolist"):
        values = predictions.tolist()
        return values if isinstance(values, list) else [values]
    return list(predictions) if isinstance(predictions, list | tuple) else [predictions]


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__
