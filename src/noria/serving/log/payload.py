"""How much of a body the log keeps, and what it says where that isn't all: nothing is ever cut silently.

| a body of | is kept | with the code |
|---|---|---|
| up to 1 MiB | whole | |
| up to `log.max_payload_bytes` | whole | `MAX_REQUEST_SIZE_EXCEEDED`: Databricks' own tables would not have kept it |
| more | its first bytes, its size and its checksum, as a JSON object | the same and `REQUEST_TRUNCATED` |

Of answers the codes say `RESPONSE`.
"""

import re
from enum import StrEnum
from hashlib import sha256
from typing import Final

import msgspec

DATABRICKS_BYTES: Final = 1 << 20
"""Bodies beyond this are not in the inference tables of Databricks, which names the same code."""
TRUNCATED: Final = "truncated"
"""The one key of what stands for a body that was too long."""
_HALF_A_MARK: Final = re.compile(r"\[[a-z_]{0,16}$")


class Side(StrEnum):
    """Which of the two bodies of a record."""

    REQUEST = "REQUEST"
    RESPONSE = "RESPONSE"


class Truncated(msgspec.Struct, frozen=True):
    """What is kept of a body that was too long.

    Attributes:
        bytes: Its size, redacted.
        sha256: Of all of it, redacted.
        first: How it began, as text; bytes that are no UTF-8 replaced.
    """

    bytes: int
    sha256: str
    first: str


def kept(body: bytes, longest: int, side: Side) -> tuple[bytes, tuple[str, ...]]:
    """What the log keeps of a redacted body, and the codes that say why it isn't all, or why others hadn't kept it.

    Args:
        body: The body.
        longest: Bytes that are kept whole; what stands for a longer one takes no more either.
        side: Which body it is.
    """
    if len(body) <= longest:
        return body, (f"MAX_{side}_SIZE_EXCEEDED",) if len(body) > DATABRICKS_BYTES else ()
    codes = (f"MAX_{side}_SIZE_EXCEEDED", f"{side}_TRUNCATED")
    checksum, room = sha256(body).hexdigest(), longest
    while True:
        first = _HALF_A_MARK.sub("", body[: max(room, 0)].decode(errors="replace").rstrip("\ufffd"))
        whole = msgspec.json.encode({TRUNCATED: Truncated(bytes=len(body), sha256=checksum, first=first)})
        if len(whole) <= longest or not first:
            return whole, codes
        room = min(room - 1, room * longest // (len(whole) + 64))  # some characters take six bytes in JSON
