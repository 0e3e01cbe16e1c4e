"""Rows of a call to what a model takes, by its signature, and what a model says to JSON values."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noria.domain.errors import InvalidRequest
from noria.modelserver.batching import Call

_NUMERIC = {"integer": int, "long": int, "float": float, "double": float}


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
