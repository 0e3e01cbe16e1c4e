"""Pydantic's errors in words that say what to write instead."""

import difflib
import json
import types
from collections.abc import Mapping
from datetime import timedelta
from enum import Enum
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from noria.projectfile.lines import KeyPath, dotted

_PATTERNS = {
    r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$": "write lower case letters, digits, - and _, at most 63, "
    "with a letter or digit at both ends",
    r"^\d{4}-\d{2}-\d{2}$": "write a date as YYYY-MM-DD",
    r"^https?://[^\s?#]+$": "write an address such as https://api.openai.com",
    r"^(https?://[^\s?#]+)?$": "write an address such as http://127.0.0.1:4318",
    "^/": "write a path that begins with /",
}
"""What a pattern of the schema means to a person."""

_WRITE = {
    "less_than": "write a number below {lt:g}",
    "less_than_equal": "write {le:g} or less",
    "greater_than": "write a number above {gt:g}",
    "greater_than_equal": "write {ge:g} or more",
    "string_too_short": "it needs a length of {min_length} or more",
    "too_short": "it needs {min_length} or more entries",
    "string_type": "write text, in quotes if it looks like something else",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "int_type": "write a whole number",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number",
    "float_parsing": "write a number",
    "tuple_type": "write a list, for example [one, two]",
}
"""What to write, by pydantic's type of error; `{…}` are its own values."""


def on(model: type[BaseModel], error: ErrorDetails) -> str:
    """`key: what is wrong; what to write instead`, for one of pydantic's errors on that model."""
    at = tuple(part for part in error["loc"] if part != "[key]")
    what = _what(model, error, at)
    return f"{dotted(at)}: {what}" if at else what


def shown(value: object) -> str:
    """A value as it would be written in a file, cut at 60 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:59] + "…"


def _what(model: type[BaseModel], error: ErrorDetails, at: KeyPath) -> str:
    """What is wrong at a key, and what to write there."""
    kind, context, given = error["type"], error.get("ctx", {}), error["input"]
    match kind:
        case "extra_forbidden":
            return f"there is no such key; {_suggest(str(at[-1]), list(_fields(model, at[:-1])))}"
        case "missing":
            return f"is missing; write `{at[-1]}:` ({_about(model, at)})"
        case "enum":
            return f"{shown(given)} isn't known; {_suggest(str(given), _words(type_at(model, at)))}"
        case "string_pattern_mismatch":
            advice = _PATTERNS.get(context["pattern"], f"write something that matches {context['pattern']}")
            return f"{shown(given)} won't do; {advice}"
        case "model_type" | "mapping_type" | "dict_type":
            known = ", ".join(_fields(model, at))
            return f"{shown(given)} won't do; write {f'keys ({known})' if known else 'names'} below it, with values"
        case "greater_than" if type_at(model, at) is timedelta:
            return f"{shown(given)} won't do; write a duration above zero, such as 10s, 5m, 1h or 1d"
        case _ if kind in _WRITE:
            return f"{shown(given)} won't do; {_WRITE[kind].format(**context)}"
        case _:
            return error["msg"] if isinstance(given, Mapping) else f"{shown(given)} won't do; {error['msg']}"


def _suggest(written: str, allowed: list[str]) -> str:
    """The nearest allowed word, then all of them."""
    every = ", ".join(allowed)
    close = difflib.get_close_matches(written.lower(), allowed, n=1)
    return f"did you mean {close[0]}? Allowed: {every}" if close else f"write one of {every}"


def _about(model: type[BaseModel], at: KeyPath) -> str:
    """The schema's own description of a key."""
    field = _fields(model, at[:-1]).get(str(at[-1]))
    return (field.description or "").rstrip(".") if field is not None and field.description else "it has to be given"


def type_at(model: type[BaseModel], at: KeyPath) -> Any:
    """The type that the schema wants at a key; None if it knows no such key."""
    current: Any = model
    for part in at:
        current = _plain(current)
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            current = field.annotation if field is not None else None
        else:
            arguments = get_args(current)
            current = arguments[-1 if isinstance(part, str) else 0] if arguments else None
    return _plain(current)


def _plain(annotation: Any) -> Any:
    """A type without Annotated and without `| None`."""
    while get_origin(annotation) in (Annotated, Union, types.UnionType):
        options = get_args(annotation)
        is_annotated = get_origin(annotation) is Annotated
        annotation = options[0] if is_annotated else next(a for a in options if a is not type(None))
    return annotation


def _fields(model: type[BaseModel], at: KeyPath) -> Mapping[str, FieldInfo]:
    """The keys that the schema knows at a place; none where it takes any name."""
    found = type_at(model, at)
    return found.model_fields if isinstance(found, type) and issubclass(found, BaseModel) else {}


def _words(annotation: Any) -> list[str]:
    """The words of an enumeration."""
    is_enum = isinstance(annotation, type) and issubclass(annotation, Enum)
    return [str(member.value) for member in annotation] if is_enum else []
