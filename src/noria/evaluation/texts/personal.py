"""Whether personal data was taken out of a text."""

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from noria.settings import Redaction

_MARKERS: Final = r"\[(?:" + "|".join(kind.value for kind in Redaction) + r")\]"


def pii(texts: pa.Array) -> pa.Array:
    """1 for a text in which redaction left a marker (`[email]`, `[card]`), else 0.

    The log keeps no personal data to count; what is counted is what was taken out, as the endpoint's `redact` says:
    what nobody looks for isn't seen. A text that was sent with such a marker in it counts only if something was taken
    out of its record (`REDACTED_…` in `logging_error_codes`).
    """
    return pc.match_substring_regex(texts, _MARKERS).cast(pa.float64())
