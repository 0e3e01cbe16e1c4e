"""What is observed of a part of the inference table: numbers of each request, and each text or prediction in it.

A request counts once in `records`, whatever it holds; what it holds stands in `items`. A null says that there is
nothing to observe: a request that failed has no answer, one that wasn't streamed no time to first token. Such nulls
count in a profile and never in the cells of a monitor. Only in `feature.` columns a null is a value that is missing.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from noria.domain.endpoint import Role
from noria.domain.inference import OutcomeKind
from noria.evaluation.frames import PREFIX
from noria.evaluation.items import Items
from noria.evaluation.operations import column, having, of_items, requests
from noria.evaluation.texts import MEASURES, Measuring
from noria.settings import Task

NEEDED: Final = (
    "databricks_request_id", "request_time", "status_code", "execution_duration_ms", "request", "response",
    "logging_error_codes", "requester", "model_name", "model_version", "route", "outcome", "ttft_ms", "input_tokens",
    "output_tokens", "metadata", "tries", "cache_hit", "cost_usd",
)  # fmt: skip
"""Columns of the inference table that `observe` reads; one that isn't there is null."""
_TEXTUAL: Final = ("input", "output", "prediction")

Scorer = Callable[[Sequence[str | None]], Sequence[float | None]]
"""Texts → a score for each, 0 to 1, or None where it can't say (`adapters.scorers`)."""


@dataclass(frozen=True, slots=True)
class Observations:
    """What was observed of some requests.

    Attributes:
        records: A row for each request: `request_id, request_time, model` (`name/version`), `route, requester, outcome,
            metadata`, and the columns of `operations.NUMBERS` and `operations.FLAGS`.
        items: A row for each text or prediction: `record` (its row of `records`), `input`, `output` or `prediction`,
            `confidence`, `feature.NAME`, and measures of the texts such as `input_length` and `output_refusal`.
    """

    records: pa.Table
    items: pa.Table


def observe(
    rows: pa.Table,
    task: Task,
    columns: Collection[str] | None = None,
    *,
    types: Mapping[str, pa.DataType] | None = None,
    scorers: Mapping[str, Scorer] | None = None,
) -> Observations:
    """What is to be seen in rows of the inference table; shadows are left out: nobody saw their answers.

    Nothing that a body may hold makes this raise.

    Args:
        rows: With the columns of `NEEDED`, or some of them.
        task: What the endpoint does: a classifier's answers are `prediction`, others are `output`.
        columns: The columns of `records` and `items` that somebody wants, by name; a feature that these rows don't hold
            is there and null. None is for all that cost next to nothing. Bodies that nobody wants anything of aren't
            read.
        types: What features are known to be (`double` or `string`, by name): a value that is no number is a NaN then.
        scorers: What measures texts besides, or instead of, the measures of that name; what they raise is passed on.
    """
    rows = _seen(rows)
    read = _read(rows, columns)
    items = _items(read.columns(types or {}), rows, task, columns, scorers or {})
    refused = (
        of_items(items["record"], items["output_refusal"], rows.num_rows)
        if "output_refusal" in items.column_names
        else pa.nulls(rows.num_rows, pa.float64())
    )
    return Observations(requests(rows, read.stopped, refused), items)


def _seen(rows: pa.Table) -> pa.Table:
    """The rows that somebody saw the answer of."""
    return rows.filter(pc.fill_null(pc.not_equal(column(rows, "route", pa.string()), str(Role.SHADOW)), True))


def _read(rows: pa.Table, columns: Collection[str] | None) -> Items:
    """The items in the bodies, in those of which anything is wanted."""
    asks, says = _sides(columns)
    nothing = [None] * rows.num_rows
    questions = column(rows, "request", pa.binary()).to_pylist() if asks else nothing
    answers = column(rows, "response", pa.binary()).to_pylist() if says else nothing
    answered = pc.equal(column(rows, "outcome", pa.string()), str(OutcomeKind.ANSWERED)).to_pylist()
    items = Items(columns)
    for record, (question, answer, good) in enumerate(zip(questions, answers, answered, strict=True)):
        items.read(record, question, answer, answered=bool(good))
    return items


def _sides(columns: Collection[str] | None) -> tuple[bool, bool]:
    """Whether anything of requests, and anything of responses, is wanted; an answer is shown with its question."""
    if columns is None:
        return True, True
    says = any(c.startswith(("output", "prediction", "confidence", "refusal", "guardrail")) for c in columns)
    asks = any(c.startswith(("input", PREFIX)) for c in columns) or any(c in _TEXTUAL for c in columns)
    return asks, says


def _items(
    found: Mapping[str, pa.Array],
    rows: pa.Table,
    task: Task,
    columns: Collection[str] | None,
    scorers: Mapping[str, Scorer],
) -> pa.Table:
    """The items with those of their measures that are wanted."""
    made = {
        "record": found["record"],
        "input": found["asked"],
        "prediction" if task is Task.CLASSIFICATION else "output": found["said"],
        "confidence": found["confidence"],
    }
    made |= {name: values for name, values in found.items() if name.startswith(PREFIX)}
    measures = {m.name: m.compute for m in MEASURES.values()} | {n: _scoring(s) for n, s in scorers.items()}
    for side in ("input", "output"):
        for name, compute in measures.items():
            if side in made and _wants(columns, side, name):
                made[f"{side}_{name}"] = compute(made[side])
    return pa.table(_completed(made, found["refused"], rows))


def _wants(columns: Collection[str] | None, side: str, name: str) -> bool:
    """Whether a measure of inputs or outputs is to be computed."""
    measure = MEASURES.get(name)
    if measure is not None and side not in measure.of:
        return False
    if columns is None:
        return measure is None or measure.cheap
    return f"{side}_{name}" in columns or (name == "refusal" and name in columns)


def _completed(made: dict[str, pa.Array], refused: pa.Array, rows: pa.Table) -> dict[str, pa.Array]:
    """Measures with what the record says beside the text: a refusal by name, that nothing was taken out."""
    if "output_refusal" in made:
        made["output_refusal"] = pc.if_else(refused, 1.0, made["output_refusal"])
    if "logging_error_codes" in rows.column_names and {"input_pii", "output_pii"} & set(made):
        some = having(column(rows, "logging_error_codes", pa.list_(pa.string())), "REDACTED_").take(made["record"])
        for name in {"input_pii", "output_pii"} & set(made):
            made[name] = pc.multiply(made[name], some.cast(pa.float64()))
    return made


def _scoring(scorer: Scorer) -> Measuring:
    """A scorer as a measure."""
    return lambda texts: pa.array(scorer(texts.to_pylist()), pa.float64())
