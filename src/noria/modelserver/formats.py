"""Formats that hold no code: ONNX files, and transformers' models whose weights are safetensors.

They are loaded by their own runtimes, not through MLflow, whose loaders would also take a pickle or code beside them.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from noria.adapters.registry.packages import weights, within
from noria.domain.errors import InvalidRequest, MissingExtra
from noria.modelserver.batching import Answer, Call
from noria.modelserver.rows import texts

_STRINGS = "tensor(string)"
_NUMBERS = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(int64)": "int64", "tensor(int32)": "int32"}


def onnx(folder: Path, flavor: Mapping[str, Any]) -> Callable[[Call], Answer]:
    """An ONNX model on the processor; a classifier as skl2onnx writes it gives probabilities too.

    Raises:
        MissingExtra: onnxruntime isn't installed.
        UnknownModel: The MLmodel file leads out of its folder.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("ONNX models need onnxruntime.", "Run pip install 'noria[onnx]'.") from error
    file = within(folder, flavor.get("data", "model.onnx"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()

    def predict(call: Call) -> Answer:
        said = session.run(None, _feed(inputs, call))
        labels = said[0].tolist()
        return Answer(labels if isinstance(labels, list) else [labels], _likely(said, len(call.rows)))

    return predict


def _feed(inputs: list[Any], call: Call) -> dict[str, Any]:
    """What the session takes: its one input made of whole rows, or each input made of the column of its name."""
    if len(inputs) == 1:
        rows = [list(row) if isinstance(row, tuple) else row for row in call.rows]
        return {inputs[0].name: _tensor(inputs[0], rows)}
    if missing := [each.name for each in inputs if each.name not in call.columns]:
        raise InvalidRequest(f"There is no column {', '.join(missing)}.", "Send a data frame with the model's inputs.")
    places = {each.name: call.columns.index(each.name) for each in inputs}
    return {each.name: _tensor(each, [row[places[each.name]] for row in call.rows]) for each in inputs}


def _tensor(wanted: Any, rows: list[Any]) -> Any:
    """Rows as an array of the input's type and number of dimensions."""
    import numpy as np

    try:
        if wanted.type == _STRINGS:
            if not all(isinstance(value, str) for row in rows for value in (row if isinstance(row, list) else [row])):
                raise ValueError("a row isn't a text")
            made = np.array(rows, dtype=object)
        else:
            made = np.asarray(rows, dtype=_NUMBERS.get(wanted.type))
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"The rows don't fit the model: {error}.", f"Send {wanted.type} rows.") from error
    while made.ndim < len(wanted.shape):
        made = made[..., np.newaxis]
    if made.ndim != len(wanted.shape):
        raise InvalidRequest(f"The rows have {made.ndim} dimensions.", f"Send rows for {len(wanted.shape)}.")
    return made


def _likely(said: list[Any], rows: int) -> list[dict[str, float]] | None:
    """Class → probability, where the second output is that (ZipMap)."""
    if len(said) < 2 or not isinstance(said[1], list) or len(said[1]) != rows:
        return None
    return [{str(name): float(chance) for name, chance in row.items()} for row in said[1]]


def transformers(folder: Path, flavor: Mapping[str, Any]) -> Callable[[Call], Answer]:
    """A pipeline of transformers from safetensors; no code of the repository is run.

    Raises:
        MissingExtra: transformers or its framework isn't installed.
        InvalidRequest: (When called) a row isn't a text.
    """
    try:
        torch, library = import_module("torch"), import_module("transformers")
    except ImportError as error:
        remedy = "Run pip install transformers torch."
        raise MissingExtra("A model of transformers needs transformers and torch.", remedy) from error
    torch.set_num_threads(1)
    task, beside = str(flavor.get("task", "text-classification")), folder / "components" / "tokenizer"
    where = weights(folder, flavor)
    asked: Any = library.pipeline(
        task,
        model=str(where),
        tokenizer=str(beside if beside.is_dir() else where),
        trust_remote_code=False,
        device="cpu",
        model_kwargs={"use_safetensors": True},
    )

    def classify(call: Call) -> Answer:
        said = asked(texts(call, ""), top_k=None, truncation=True, batch_size=len(call.rows))
        best = [max(row, key=lambda chance: chance["score"])["label"] for row in said]
        return Answer(best, [{chance["label"]: float(chance["score"]) for chance in row} for row in said])

    return classify if task == "text-classification" else lambda call: Answer(_plain(asked(texts(call, ""))))


def _plain(value: Any) -> Any:
    """What a pipeline says, as JSON values: NumPy's numbers become Python's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.item() if hasattr(value, "item") else value
