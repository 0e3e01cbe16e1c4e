"""Reads what callers send, and says what is wrong with it in a sentence that names the place."""

import csv
import io
from collections.abc import Mapping
from email.message import Message
from typing import Any

import msgspec

from noria.domain.errors import InvalidRequest, UnsupportedMedia

_JSON_REMEDY = "Send a JSON object, encoded as UTF-8."
_METADATA_REMEDY = 'Send an object of plain values, for example {"user": "u1", "group": "north"}.'


def check_media(content_type: str) -> None:
    """Refuse a body that is said to be neither UTF-8 JSON nor UTF-8 CSV; one of which nothing is said is JSON.

    Raises:
        UnsupportedMedia: It is; the sentence says what to send.
    """
    if content_type in ("", "application/json"):
        return
    header = Message()
    header["content-type"] = content_type
    if header.get_content_type() not in ("application/json", "text/csv"):
        raise UnsupportedMedia(
            f"Content type {content_type[:64]!r} can't be read.", "Send JSON with Content-Type: application/json."
        )
    if (charset := header.get_content_charset("utf-8")) not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMedia(f"Character set {charset[:32]!r} can't be read.", "Send UTF-8.")


def is_csv(content_type: str) -> bool:
    """Whether a content type says CSV."""
    return content_type.partition(";")[0].strip().lower() == "text/csv"


def load(body: bytes) -> Any:
    """The JSON value of a body.

    Raises:
        InvalidRequest: It is malformed, not UTF-8, or nested too deeply.
    """
    if not body.strip():
        raise InvalidRequest("The body is empty.", _JSON_REMEDY)
    try:
        return msgspec.json.decode(body)
    except UnicodeError:
        raise InvalidRequest("The body is not UTF-8.", _JSON_REMEDY) from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.", "Send JSON with fewer levels.") from None
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The body holds a number that JSON can't carry: {error}.", _JSON_REMEDY) from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {_place(error)}.", _JSON_REMEDY) from None


def load_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. Errors as in `load`."""
    value = load(body)
    if not isinstance(value, dict):
        raise InvalidRequest(f"The body is {_name(value)}, not an object.", _JSON_REMEDY)
    return value


def read_metadata(value: object) -> dict[str, str]:
    """What a caller said about a request: names and plain values, as text; null says nothing.

    Raises:
        InvalidRequest: It is no object, or holds something that isn't a plain value.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidRequest("`metadata` is not an object.", _METADATA_REMEDY)
    return {name: _scalar(name, item) for name, item in value.items() if item is not None}


def read_metadata_header(value: bytes) -> dict[str, str]:
    """The same from the header `x-noria-metadata`, which holds JSON; an empty one says nothing."""
    if not value:
        return {}
    try:
        return read_metadata(msgspec.json.decode(value))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise InvalidRequest("The header x-noria-metadata is not JSON.", _METADATA_REMEDY) from None


def csv_frame(body: bytes) -> dict[str, Any]:
    """A CSV file as `{"columns": […], "data": [[…], …]}`, all values as text.

    Raises:
        InvalidRequest: It isn't UTF-8, has no rows, or a row of another length than its header.
    """
    try:
        rows = [row for row in csv.reader(io.StringIO(body.decode("utf-8-sig"), newline="")) if row]
    except (UnicodeError, csv.Error) as error:
        raise InvalidRequest(f"The body is not CSV in UTF-8: {error}.", "Send a header line, then rows.") from None
    if len(rows) < 2:
        raise InvalidRequest("The CSV has no rows.", "Send a header line, then at least one row.")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(rows[0]):
            raise InvalidRequest(
                f"Row {number} of the CSV has {len(row)} values, its header {len(rows[0])}.",
                "Quote values that hold commas.",
            )
    return {"columns": rows[0], "data": rows[1:]}


def recordable(body: bytes) -> bytes:
    """A refused body as something the log can hold: itself if it is JSON, else its text as a JSON string."""
    try:
        load(body)
    except InvalidRequest:
        return msgspec.json.encode(body.decode("utf-8", "replace"))
    return body


def _scalar(name: str, value: object) -> str:
    """A plain value as text, written as JSON writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return msgspec.json.encode(value).decode()
    raise InvalidRequest(f"`metadata.{name[:64]}` is {_name(value)}, not a plain value.", _METADATA_REMEDY)


def _name(value: object) -> str:
    """What JSON calls a value."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _place(error: Exception) -> str:
    """The decoder's own words, without its prefix."""
    return str(error).removeprefix("JSON is malformed: ").rstrip(".").lower()
