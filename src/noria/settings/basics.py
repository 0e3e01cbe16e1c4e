"""What every part of the project file is made of: names, durations, and models that take no unknown key."""

from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

NAME_PATTERN = r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$"
"""What a name looks like."""
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""Names that go into URLs, file names and table rows: lower case letters, digits, `-` and `_`."""

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(value: object) -> object:
    """Read `10s`, `5m`, `1h`, `1d` or a number of seconds."""
    if isinstance(value, str):
        for unit in ("ms", "s", "m", "h", "d"):
            number = value.removesuffix(unit)
            if number != value and number.replace(".", "", 1).isdigit():
                return timedelta(seconds=float(number) * _UNITS[unit])
        raise PydanticCustomError("duration", "write a duration such as 10s, 5m, 1h or 1d")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return timedelta(seconds=value)
    return value


Duration = Annotated[timedelta, BeforeValidator(_duration, json_schema_input_type=str | float), Field(gt=timedelta(0))]


class Strict(BaseModel):
    """A part of the project file: frozen, and a key that nobody knows is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
