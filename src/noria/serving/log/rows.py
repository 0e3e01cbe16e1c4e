"""Turns log entries into rows of the tables. What no row can hold becomes a dead letter, and its neighbours don't."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, TypeVar

import msgspec
import pyarrow as pa

from noria.domain.inference import Feedback, Intent, Outcome
from noria.ports import Poison
from noria.tables import DEAD_LETTER, FEEDBACK, INFERENCE

Answered = tuple[int, Intent, Outcome]
"""A request that has ended, with the sequence number of its outcome."""
Said = tuple[int, Feedback]
"""A feedback with its sequence number."""
T = TypeVar("T")

INVALID_UTF8: Final = "INVALID_UTF8"
"""Error code of a body in which bytes that are no text were replaced."""

LATEST_US: Final = 253_402_300_799_999_999
"""The end of the year 9999."""


@dataclass(frozen=True, slots=True)
class Dead:
    """A dead letter: the number of the last entry concerned, why, and what is left of it."""

    number: int
    reason: str
    payload: bytes


def poisoned(poison: Poison, shipped: int) -> Dead:
    """The dead letter for what a spool could not read back. Up to number `shipped`, all that had ended is in the
    tables, and only the intent of a request under way can be missing."""
    which = f"entries {poison.first} to {poison.last}: " if poison.first < poison.last else ""
    known = f"; what had ended by {shipped} is in the tables" if poison.first <= shipped else ""
    return Dead(poison.last, f"{which}{poison.reason}{known}", poison.payload)


def without_intent(number: int, outcome: Outcome) -> Dead:
    """The dead letter for an outcome whose intent is not in its spool."""
    return Dead(number, "outcome without an intent", msgspec.json.encode(outcome))


def inference(spool: str, answered: Sequence[Answered]) -> tuple[pa.Table, list[Dead]]:
    """Rows of the inference table, and the requests that none can hold."""
    return _each(spool, answered, _inference)


def feedback(spool: str, said: Sequence[Said]) -> tuple[pa.Table, list[Dead]]:
    """Rows of the feedback table, and the feedback that none can hold."""
    return _each(spool, said, _feedback)


def dead_letters(spool: str, dead: Sequence[Dead], found_us: int) -> pa.Table:
    """Rows of the dead-letter table."""
    columns = {
        "spool": [spool] * len(dead),
        "sequence": [letter.number for letter in dead],
        "found_time": pa.array([found_us] * len(dead), pa.int64()),
        "reason": [letter.reason for letter in dead],
        "payload": [letter.payload for letter in dead],
    }
    return _table(columns, DEAD_LETTER)


def _each(spool: str, items: Sequence[T], build: Callable[[str, Sequence[T]], pa.Table]) -> tuple[pa.Table, list[Dead]]:
    """All items as one table; if that fails, one by one, so that only those which can't be a row are left out."""
    try:
        return build(spool, items), []
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        pass
    tables, dead = [build(spool, [])], list[Dead]()
    for item in items:
        try:
            tables.append(build(spool, [item]))
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            number: int = item[0]  # type: ignore[index]  # both kinds of item begin with their number
            dead.append(Dead(number, f"no row can hold it: {error}", msgspec.json.encode(item)))
    return pa.concat_tables(tables), dead


def _inference(spool: str, answered: Sequence[Answered]) -> pa.Table:
    numbers = [number for number, _, _ in answered]
    intents = [intent for _, intent, _ in answered]
    outcomes = [outcome for _, _, outcome in answered]
    errors = [[*intent.errors, *outcome.errors] for _, intent, outcome in answered]
    received = _times([intent.received_us for intent in intents])
    served = [(outcome.model or intent.model, outcome.version or intent.version) for _, intent, outcome in answered]
    columns: dict[str, Any] = {
        "databricks_request_id": [intent.request_id for intent in intents],
        "request_date": _dates(received),
        "client_request_id": [intent.client_request_id or None for intent in intents],
        "request_time": received,
        "status_code": [outcome.status for outcome in outcomes],
        "sampling_fraction": pa.repeat(pa.scalar(1.0, pa.float64()), len(answered)),
        "execution_duration_ms": [(outcome.duration_us + 500) // 1000 for outcome in outcomes],
        "request": _text([intent.request for intent in intents], errors),
        "response": _text([outcome.response for outcome in outcomes], errors),
        "logging_error_codes": errors,
        "served_entity_id": [f"{model}/{version}" for model, version in served],
        "requester": [intent.requester for intent in intents],
        "endpoint": [intent.endpoint for intent in intents],
        "model_name": [model for model, _ in served],
        "model_version": [version for _, version in served],
        "route": [str(intent.role) for intent in intents],
        "outcome": [str(outcome.kind) for outcome in outcomes],
        "finished_time": _times([outcome.finished_us for outcome in outcomes]),
        "ttft_ms": [None if outcome.ttft_us is None else outcome.ttft_us / 1000 for outcome in outcomes],
        "input_tokens": [outcome.input_tokens for outcome in outcomes],
        "output_tokens": [outcome.output_tokens for outcome in outcomes],
        "metadata": _maps([intent.metadata for intent in intents]),
        "shadow_of": [intent.shadow_of or None for intent in intents],
        "policy_hash": [intent.policy_hash or None for intent in intents],
        "spool": pa.repeat(pa.scalar(spool, pa.string()), len(answered)),
        "sequence": numbers,
        "tries": [outcome.tries for outcome in outcomes],
        "cache_hit": [outcome.cache_hit for outcome in outcomes],
        "cost_usd": [outcome.cost_usd for outcome in outcomes],
        "trace_id": [intent.trace_id or None for intent in intents],
        "span_id": [intent.span_id or None for intent in intents],
        "parent_span_id": [intent.parent_span_id or None for intent in intents],
    }
    return _table(columns, INFERENCE)


def _feedback(spool: str, said: Sequence[Said]) -> pa.Table:
    received = _times([entry.received_us for _, entry in said])
    columns: dict[str, Any] = {
        "feedback_id": [entry.feedback_id for _, entry in said],
        "request_id": [entry.request_id for _, entry in said],
        "endpoint": [entry.endpoint for _, entry in said],
        "feedback_date": _dates(received),
        "feedback_time": received,
        "label": [entry.label for _, entry in said],
        "score": [entry.score for _, entry in said],
        "comment": [entry.comment for _, entry in said],
        "source": [entry.source for _, entry in said],
        "spool": [spool] * len(said),
        "sequence": [number for number, _ in said],
    }
    return _table(columns, FEEDBACK)


def _table(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    arrays = [
        column.cast(field.type) if isinstance(column, pa.Array) else pa.array(column, field.type)
        for field, column in ((field, columns[field.name]) for field in schema)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _times(microseconds: list[int]) -> pa.Array:
    """Microseconds since the epoch, checked to lie in years that a date can name."""
    if microseconds and not 0 <= min(microseconds) <= max(microseconds) <= LATEST_US:
        raise ValueError("a time is not between 1970 and 9999")
    return pa.array(microseconds, pa.int64())


def _maps(maps: list[Mapping[str, str]]) -> pa.Array:
    """Maps as one array, built from its parts: several times as fast as from a list of pairs for each."""
    offsets = list(accumulate(map(len, maps), initial=0))
    keys = [key for each in maps for key in each]
    values = [value for each in maps for value in each.values()]
    return pa.MapArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(keys, pa.string()), pa.array(values, pa.string())
    )


def _dates(microseconds: pa.Array) -> pa.Array:
    return microseconds.cast(pa.timestamp("us")).cast(pa.date32())


def _text(bodies: list[bytes], errors: list[list[str]]) -> pa.Array:
    """Bodies as text; where bytes had to be replaced, the row's error codes say so."""
    try:
        return pa.array(bodies, pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([_decoded(body, codes) for body, codes in zip(bodies, errors, strict=True)], pa.string())


def _decoded(body: bytes, codes: list[str]) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        if INVALID_UTF8 not in codes:
            codes.append(INVALID_UTF8)
        return body.decode(errors="replace")
