"""What is known of each request as such: how long it took, what it cost, how it ended. One row a request."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.domain.inference import OutcomeKind

NUMBERS: Final = (
    "status_code", "execution_duration_ms", "ttft_ms", "input_tokens", "output_tokens", "cost_usd", "tries",
)  # fmt: skip
"""The inference table's own numbers, as doubles."""
FLAGS: Final = ("error", "rejected", "disconnected", "guardrail_hit", "cache_hit", "pii", "refusal")
"""1 or 0, null where nobody knows.

| column | 1 |
|---|---|
| `error` | the model server failed or took too long, or the process died that held the request |
| `rejected` | the caller's mistake, or beyond a limit |
| `disconnected` | the caller left before the last byte |
| `guardrail_hit` | a guardrail of Noria's (code `GUARDRAIL_…`) or the model server's own filter stopped it |
| `cache_hit` | the answer came from memory |
| `pii` | personal data was taken out of one of the two bodies (code `REDACTED_…`); 0 too where nobody looked for any |
| `refusal` | one of its answers declines; null where there is no answer in words |
"""
WORDS: Final = ("request_id", "request_time", "model", "route", "requester", "outcome", "metadata")
"""The other columns; `model` is `name/version`."""
_FAILED: Final = (OutcomeKind.FAILED, OutcomeKind.TIMED_OUT, OutcomeKind.INTERRUPTED)
_METADATA: Final = pa.map_(pa.string(), pa.string())


def requests(rows: pa.Table, stopped: Sequence[bool | None], refused: pa.Array) -> pa.Table:
    """The columns of `WORDS`, `NUMBERS` and `FLAGS` for each of these rows of the inference table.

    Args:
        rows: A column that they lack is null.
        stopped: Of each, whether the model server's own filter stopped it; None where nobody looked.
        refused: Of each, 1 if an answer declines, 0 if none does, null where there is none.
    """
    outcome = column(rows, "outcome", pa.string())
    codes = column(rows, "logging_error_codes", pa.list_(pa.string()))
    model = pc.binary_join_element_wise(
        *(pc.fill_null(column(rows, name, pa.string()), "") for name in ("model_name", "model_version")), "/"
    )
    words = {
        "request_id": column(rows, "databricks_request_id", pa.string()),
        "request_time": column(rows, "request_time", pa.timestamp("us", tz="UTC")),
        "model": model,
        "route": column(rows, "route", pa.string()),
        "requester": column(rows, "requester", pa.string()),
        "outcome": outcome,
        "metadata": column(rows, "metadata", _METADATA),
    }
    flags: dict[str, Any] = {
        "error": pc.is_in(outcome, pa.array(list(map(str, _FAILED)))),
        "rejected": pc.equal(outcome, str(OutcomeKind.REJECTED)),
        "disconnected": pc.equal(outcome, str(OutcomeKind.DISCONNECTED)),
        "guardrail_hit": _either(pa.array(stopped, pa.bool_()), having(codes, "GUARDRAIL_")),
        "cache_hit": column(rows, "cache_hit", pa.bool_()),
        "pii": having(codes, "REDACTED_"),
        "refusal": refused,
    }
    numbers = {name: column(rows, name, pa.float64()) for name in NUMBERS}
    return pa.table(words | numbers | {name: flag.cast(pa.float64()) for name, flag in flags.items()})


def column(rows: pa.Table, name: str, wanted: pa.DataType) -> pa.Array:
    """A column of a table as one array; null where the table has none of that name."""
    if name not in rows.column_names:
        return pa.nulls(rows.num_rows, wanted)
    found = rows[name].combine_chunks() if rows.num_rows else pa.array([], rows.schema.field(name).type)
    if isinstance(found, pa.ChunkedArray):  # more than two gigabytes
        found = pa.concat_arrays(found.chunks)
    return found if found.type == wanted else found.cast(wanted)


def having(codes: pa.Array, beginning: str) -> pa.Array:
    """Of each list of codes, whether one begins so; false where the list is null."""
    found = np.zeros(len(codes), bool)
    begin = pc.fill_null(pc.starts_with(pc.list_flatten(codes), beginning), False)
    found[pc.list_parent_indices(codes).filter(begin).to_numpy()] = True
    return pa.array(found)


def of_items(record: pa.Array, values: pa.Array, rows: int) -> pa.Array:
    """Of each of `rows` records the largest value of its items; null where no item has one."""
    groups: Mapping[str, Any] = (
        pa.table({"record": record, "value": values}).group_by("record").aggregate([("value", "max")])
    )
    made = np.full(rows, np.nan)
    made[groups["record"].to_numpy()] = groups["value_max"].cast(pa.float64()).to_numpy()
    return pa.array(made, from_pandas=True)


def _either(maybe: pa.Array, surely: pa.Array) -> pa.Array:
    """True where the second says so, else what the first says, null included."""
    return pc.if_else(surely, True, maybe)
