"""`training.parameters` of the project file → a trainer's options, each checked against its default's type."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from noria.domain.errors import InvalidProject

T = TypeVar("T")


def read_options(kind: type[T], trainer: str, parameters: Mapping[str, Any]) -> T:
    """A trainer's options.

    Args:
        kind: A frozen dataclass whose fields all have a default: a text, a number above 0 (or not below, where the
            default is 0), or several whole numbers.
        trainer: Its name, for errors.
        parameters: As the project file gives them.

    Raises:
        InvalidProject: There is no such parameter, or its value makes no sense.
    """
    known = {f.name: f.default for f in fields(kind)}  # type: ignore[arg-type]
    read: dict[str, Any] = {}
    for name, value in parameters.items():
        if name not in known:
            raise InvalidProject(
                f"The trainer {trainer} has no parameter {name}.", f"Write one of {', '.join(known)} in parameters."
            )
        read[name] = tuple(value) if isinstance(value, list) else value
        if not _sound(read[name], known[name]):
            raise InvalidProject(f"{value!r} can't be the {name} of {trainer}.", _wanted(known[name]))
    return kind(**read)


def _sound(value: Any, default: Any) -> bool:
    if isinstance(default, str):
        return isinstance(value, str)
    if isinstance(default, tuple):
        return isinstance(value, tuple) and bool(value) and all(type(each) is int and each >= 0 for each in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return (isinstance(default, float) or isinstance(value, int)) and (value > 0 or value == default == 0)


def _wanted(default: Any) -> str:
    if isinstance(default, str):
        return "Write a text."
    return "Write whole numbers, none below 0." if isinstance(default, tuple) else "Write a number above 0."
