"""What a recorded request asked and what a recorded response said, whichever wire it came over.

Records keep bodies as they were sent, so everything that looks at texts or predictions reads them here. Nothing in
this module raises: a body that holds no text gives an empty list. Within one body positions are kept: where some
items are texts and others are not, the others become `""` (None where a body was parsed already), so that inputs and
outputs still match one to one.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

Texts = list[str | None]
"""One for each item of a body; None for one that holds no text."""
_decode = msgspec.json.Decoder().decode


def inputs(request: bytes | str) -> list[str]:
    """The texts that a request asks about.

    Reads the lab's `{"input": …}`, MLflow's `inputs`, `instances`, `dataframe_split` and `dataframe_records` (column
    `text`, else the first that holds text), chat `messages` (what the user said last) and `prompt`.
    """
    return [text or "" for text in asked(parse(request))]


def outputs(response: bytes | str) -> list[str]:
    """The answers in a response: labels and numbers as text, or what the model wrote.

    Reads a bare JSON value or list, MLflow's `{"predictions": …}`, chat and text completions. An error body has none.
    """
    return [text or "" for text in said(parse(response))]


def probabilities(response: bytes | str) -> list[dict[str, float]]:
    """Class → probability for each prediction, where the model server added them beside `predictions`."""
    return likely(parse(response))


def parse(body: bytes | str) -> Any:
    """The JSON value of a body; None for anything that isn't JSON, or is nested too deeply to be meant."""
    try:
        return _decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError):
        return None


def asked(request: Any) -> Texts:
    """Like `inputs`, of a parsed body; None in the place of an item that is no text."""
    if not isinstance(request, dict):
        return _texts(request)
    for key, read in _REQUESTS.items():
        if key in request:
            return read(request[key])
    return []


def said(response: Any) -> Texts:
    """Like `outputs`, of a parsed body; None where nothing was said: a call of a tool, a prediction that is null."""
    if not isinstance(response, dict):
        return _labels(response)
    if "predictions" in response:
        return _labels(response["predictions"])
    if isinstance(choices := response.get("choices"), list):
        return [_choice(c) for c in choices]
    return _labels(response)


def likely(response: Any) -> list[dict[str, float]]:
    """Like `probabilities`, of a parsed body."""
    rows = response.get("probabilities") if isinstance(response, dict) else None
    if not isinstance(rows, list):
        return []
    return [_numbers(row) if isinstance(row, dict) else {} for row in rows]


def _texts(value: Any) -> Texts:
    """A text, or a list of texts, rows with a text column, or chat messages."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return _columns(value)
    if not isinstance(value, list):
        return []
    if any(isinstance(item, dict) for item in value):
        return _messages(value) if any("role" in i for i in value if isinstance(i, dict)) else _records(value)
    return _aligned(value, lambda item: item if isinstance(item, str) else None)


def _columns(columns: Mapping[str, Any]) -> Texts:
    """Named tensors, `{"text": ["…", …], …}`."""
    return next((found for key in _preferred(columns) if (found := _texts_only(columns[key]))), [])


def _records(rows: list[Any]) -> Texts:
    """Rows as objects."""
    names = _preferred({name: None for row in rows if isinstance(row, dict) for name in row})
    column = next((n for n in names if any(isinstance(r, dict) and isinstance(r.get(n), str) for r in rows)), None)
    return [] if column is None else [_text(r.get(column)) if isinstance(r, dict) else None for r in rows]


def _split(frame: Any) -> Texts:
    """A data frame as `{"columns": […], "data": [[…], …]}`."""
    if not isinstance(frame, dict) or not isinstance(rows := frame.get("data"), list):
        return []
    names = frame.get("columns")
    keys = names if isinstance(names, list) else range(max((len(r) for r in rows if isinstance(r, list)), default=0))
    return _records([dict(zip(map(str, keys), r, strict=False)) if isinstance(r, list) else None for r in rows])


def _messages(messages: Any) -> Texts:
    """What the user said last."""
    if not isinstance(messages, list):
        return []
    said = [m for m in messages if isinstance(m, dict) and m.get("role") == "user"]
    return [text] if said and (text := _content(said[-1].get("content"))) is not None else []


def _content(content: Any) -> str | None:
    """A message's text: plain, or the text parts of a list of parts, a line each."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    parts = [p["text"] if isinstance(p, dict) and "text" in p else p for p in content]
    texts = [p for p in parts if isinstance(p, str)]
    return "\n".join(texts) if texts else None


def _choice(choice: Any) -> str | None:
    """One choice of a completion; a refusal is an answer too, a call of a tool says nothing."""
    if not isinstance(choice, dict):
        return None
    message = choice.get("message")
    if not isinstance(message, dict):
        return _text(choice.get("text"))
    said = _content(message.get("content"))
    return _text(message.get("refusal")) if said is None else said


def _labels(value: Any) -> Texts:
    """A prediction or a list of predictions."""
    return _aligned(value if isinstance(value, list) else [value], _label)


def _label(item: Any) -> str | None:
    """A prediction as text: a text, a number, or an object that holds one as `label`, `prediction` or `text`."""
    if isinstance(item, dict):
        item = next((item[key] for key in ("label", "prediction", "text") if key in item), None)
    if isinstance(item, str):
        return item
    return str(item) if isinstance(item, int | float) else None


def _aligned(items: Iterable[Any], read: Callable[[Any], str | None]) -> Texts:
    """Every item read, with None for those that hold nothing; empty if none holds anything."""
    found = [read(item) for item in items]
    return found if any(text is not None for text in found) else []


def _preferred(names: Mapping[str, Any]) -> list[str]:
    """Column names, `text` first."""
    return sorted(names, key=lambda name: name != "text")


def _texts_only(value: Any) -> Texts:
    return _texts(value) if isinstance(value, str | list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {k: float(v) for k, v in row.items() if isinstance(v, int | float) and not isinstance(v, bool)}


_REQUESTS: Mapping[str, Callable[[Any], Texts]] = {
    "messages": _messages,
    "input": _texts,
    "inputs": _texts,
    "instances": _texts,
    "dataframe_split": _split,
    "dataframe_records": _texts,
    "prompt": _texts,
}
"""Key of a request body → how its texts are read."""
