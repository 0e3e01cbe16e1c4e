"""MLflow's scoring wire: bodies of `/invocations` to rows, answers to bodies.

Source: MLflow, "Accepted Input Formats" of the inference server; exactly one of `inputs`, `instances`,
`dataframe_split`, `dataframe_records`, with optional `params`; or CSV with a header.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from noria.domain.errors import InvalidRequest, UnsupportedMedia
from noria.modelserver.batching import Answer, Call

FORMATS = "inputs, instances, dataframe_split, dataframe_records"
encode = msgspec.json.Encoder(enc_hook=lambda value: value.item() if hasattr(value, "item") else str(value)).encode
"""JSON bytes of any value, NumPy's scalars included."""


def parse(body: bytes, content_type: str) -> Call:
    """The call that a request makes.

    Raises:
        UnsupportedMedia: Neither JSON nor CSV, or not UTF-8.
        InvalidRequest: Not what the wire allows; the sentence says what is wrong.
    """
    media, charset = _media_type(content_type)
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMedia(f"The character set {charset} isn't known here.", "Send UTF-8.")
    if media == "text/csv":
        return _csv(body)
    if media in ("", "application/json"):
        return parse_json(body)
    raise UnsupportedMedia(f"The content type {media} isn't known here.", "Send application/json or text/csv.")


def parse_json(body: bytes) -> Call:
    """The call in a JSON body.

    Raises:
        InvalidRequest: See `parse`.
    """
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The body isn't JSON: {error}.", f"Send a JSON object with one of {FORMATS}.") from error
    if not isinstance(document, dict):
        raise InvalidRequest("The body isn't a JSON object.", f"Send an object with one of {FORMATS}.")
    given = [name for name in _READERS if name in document]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise InvalidRequest(f"The body must have exactly one of {FORMATS}; it has {found}.", "Send one.")
    rows, columns = _READERS[given[0]](document[given[0]])
    params = document.get("params")
    if params is not None and not isinstance(params, dict):
        raise InvalidRequest("params isn't an object.", "Send params as names and values.")
    return Call(rows, columns, msgspec.json.encode(params, order="sorted").decode() if params else "")


def reply(answer: Answer) -> bytes:
    """The body of an answer: `predictions`, and beside them `probabilities` if the model knows them."""
    body: dict[str, Any] = {"predictions": answer.predictions}
    if answer.probabilities is not None:
        body["probabilities"] = answer.probabilities
    return encode(body)


def _media_type(header: str) -> tuple[str, str]:
    media, _, options = header.partition(";")
    charset = next(
        (o.split("=", 1)[1] for o in options.split(";") if o.strip().lower().startswith("charset=")), "utf-8"
    )
    return media.strip().lower(), charset.strip(' "').lower()


_Rows = tuple[list[Any], tuple[str, ...]]


def _tensor(value: Any) -> _Rows:
    """`inputs`: a list of rows, a lone value, or named columns."""
    if isinstance(value, dict):
        return _named_columns(value)
    if isinstance(value, list):
        return _records(value) if value and all(isinstance(row, dict) for row in value) else (value, ())
    return [value], ()


def _named_columns(columns: Mapping[str, Any]) -> _Rows:
    """`{"name": [value of each row], …}`."""
    values = [column if isinstance(column, list) else [column] for column in columns.values()]
    if len({len(column) for column in values}) > 1:
        raise InvalidRequest("The columns of inputs differ in length.", "Give each column one value for each row.")
    return list(zip(*values, strict=True)), tuple(columns)


def _records(value: Any) -> _Rows:
    """`[{"name": value, …}, …]`; what a row lacks is null."""
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise InvalidRequest("dataframe_records isn't a list of objects.", 'Send [{"column": value}, …].')
    columns = tuple(dict.fromkeys(name for row in value for name in row))
    return [tuple(row.get(name) for name in columns) for row in value], columns


def _split(value: Any) -> _Rows:
    """`{"columns": […], "data": [[…], …]}`; columns may be left out."""
    data = value.get("data") if isinstance(value, dict) else None
    if not isinstance(data, list):
        raise InvalidRequest("dataframe_split has no data.", 'Send {"columns": […], "data": [[…], …]}.')
    rows = [tuple(row) if isinstance(row, list) else (row,) for row in data]
    widths = {len(row) for row in rows}
    columns = value.get("columns", list(range(next(iter(widths), 0))))
    if not isinstance(columns, list) or widths - {len(columns)}:
        raise InvalidRequest("The rows of dataframe_split don't match its columns.", "Give each row all columns.")
    return rows, tuple(map(str, columns))


def _csv(body: bytes) -> Call:
    """Rows of a CSV with a header; values stay text, the model's signature says what they are."""
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The body isn't CSV: {error}.", "Send UTF-8 text with a header.") from error
    if not lines:
        raise InvalidRequest("The CSV is empty.", "Send a header and at least one row.")
    columns, rows = tuple(lines[0]), [tuple(line) for line in lines[1:] if line]
    _same_width(rows, columns)
    return Call(list(rows), columns)


def _same_width(rows: Sequence[tuple[str, ...]], columns: tuple[str, ...]) -> None:
    for number, row in enumerate(rows, start=2):
        if len(row) != len(columns):
            raise InvalidRequest(f"Line {number} of the CSV has {len(row)} values for {len(columns)} columns.", "")


_READERS: dict[str, Callable[[Any], _Rows]] = {
    "inputs": _tensor,
    "instances": _tensor,
    "dataframe_split": _split,
    "dataframe_records": _records,
}
