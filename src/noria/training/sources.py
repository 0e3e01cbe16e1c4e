"""Where training rows come from: the project's own file, and production records that somebody has labelled."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from noria.domain.endpoint import Role
from noria.domain.errors import InvalidData
from noria.evaluation.payloads import inputs
from noria.evaluation.statements import newest
from noria.ports import RecordStore

NEEDED = ("text", "label")
"""Columns that a data file must have; `group` is optional."""
_FIX = "Correct the file that training.data names in noria.yaml."


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One labelled text. `origin` is `baseline` for the project's own data and `production` for a record."""

    text: str
    label: str
    group: str = ""
    origin: str = "baseline"
    request_id: str = ""
    time: datetime | None = None
    """When the record was requested; None for the project's own data."""


def read_file(path: Path, redact: Callable[[str], str]) -> list[Row]:
    """The project's own rows, redacted like the records, so that both look alike to a monitor.

    Args:
        path: CSV (UTF-8, with a header) or Parquet.
        redact: Takes out of a text what must not be kept.

    Raises:
        InvalidData: The file, a column or a row can't be used; the sentence names it.
    """
    if not path.is_file():
        raise InvalidData(f"The training data {path} isn't there.", "Correct training.data in noria.yaml.")
    read = _parquet if path.suffix.lower() in (".parquet", ".pq") else _csv
    return [
        Row(text=redact(text), label=label, group=group)
        for place, text, label, group in read(path)
        if _sound(path, place, text, label)
    ]


def _csv(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Place, text, label and group of each row; a place is a line as an editor counts it."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(path, list(reader.fieldnames or ()))
            for row in reader:
                if None in row or None in row.values():
                    raise InvalidData(
                        f"Line {reader.line_num} of {path.name} has not as many cells as the header.", _FIX
                    )
                yield f"Line {reader.line_num}", row["text"], row["label"], row.get("group", "")
    except UnicodeDecodeError as error:
        raise InvalidData(f"{path.name} is not UTF-8: {error.reason} at byte {error.start}.", _FIX) from error
    except csv.Error as error:
        raise InvalidData(f"Line {reader.line_num} of {path.name} is not CSV: {error}.", _FIX) from error


def _parquet(path: Path) -> Iterator[tuple[str, str, str, str]]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InvalidData(f"{path.name} is not a Parquet file: {error}.", _FIX) from error
    _check_columns(path, table.column_names)
    try:
        text, label = (table[name].cast(pa.string()).to_pylist() for name in NEEDED)
        group = table["group"].cast(pa.string()).to_pylist() if "group" in table.column_names else [""] * len(text)
    except pa.ArrowException as error:
        raise InvalidData(f"A column of {path.name} holds something that isn't text: {error}.", _FIX) from error
    for number, row in enumerate(zip(text, label, group, strict=True), 1):
        yield f"Row {number}", row[0] or "", row[1] or "", row[2] or ""


def _check_columns(path: Path, names: list[str]) -> None:
    for name in NEEDED:
        if name not in names:
            raise InvalidData(
                f"{path.name} has no column {name}; it has {', '.join(names) or 'none'}.",
                "Give it the columns text, label and, if you like, group.",
            )
        if names.count(name) > 1:
            raise InvalidData(f"{path.name} has the column {name} twice.", _FIX)


def _sound(path: Path, place: str, text: str, label: str) -> bool:
    for name, value in (("text", text), ("label", label)):
        if not value.strip():
            raise InvalidData(f"{place} of {path.name} has an empty {name}.", _FIX)
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Labelled production records, and the table versions they were read from (-1 for a table that isn't there).

    Attributes:
        rows: One for each record, with the label that came last, in order of request.
        skipped: Labelled records that can't be learnt from: no text, or several texts and one label.
        inference_version: Version of the inference table.
        feedback_version: Version of the feedback table.
    """

    rows: list[Row]
    skipped: int
    inference_version: int
    feedback_version: int


def read_labelled(records: RecordStore, endpoint: str, group_key: str | None) -> Labelled:
    """Join the records of an endpoint with the labels that people gave them.

    Args:
        records: The tables; both are read at one version each, which the result names.
        endpoint: Endpoint.
        group_key: Key in a record's metadata that names its group.
    """
    versions = {table: records.snapshot(table) for table in ("inference", "feedback")}
    labels = _labels(records, endpoint, _pin(versions["feedback"]))
    table = records.scan(
        "inference",
        columns=["databricks_request_id", "request_time", "request", "metadata", "route"],
        endpoint=endpoint,
        snapshot=_pin(versions["inference"]),
    )
    table = table.filter(pc.is_in(table["databricks_request_id"], pa.array(labels, pa.string())))
    rows, skipped = [], 0
    for record in table.sort_by("request_time").to_pylist():
        if record["route"] == Role.SHADOW:
            continue
        texts = [text for text in inputs(record["request"] or "") if text.strip()]
        if len(texts) != 1:
            skipped += 1
            continue
        request_id = record["databricks_request_id"]
        rows.append(
            Row(
                text=texts[0],
                label=labels[request_id],
                group=dict(record["metadata"] or ()).get(group_key or "", ""),
                origin="production",
                request_id=request_id,
                time=record["request_time"],
            )
        )
    return Labelled(
        rows=rows,
        skipped=skipped,
        inference_version=versions["inference"],
        feedback_version=versions["feedback"],
    )


def count_labels(records: RecordStore, endpoint: str, since: datetime | None = None) -> int:
    """How many of an endpoint's records are labelled; only records requested since then, if a time is given."""
    labels = _labels(records, endpoint, None, since)
    if since is None:
        return len(labels)
    asked = records.scan("inference", columns=["databricks_request_id"], endpoint=endpoint, since=since)
    return int(pc.sum(pc.is_in(asked["databricks_request_id"], pa.array(labels, pa.string()))).as_py() or 0)


def _labels(records: RecordStore, endpoint: str, snapshot: int | None, since: datetime | None = None) -> dict[str, str]:
    """Request id → the label that was given last; sending one again doesn't give it again."""
    table = records.scan(
        "feedback",
        columns=["feedback_id", "request_id", "label", "feedback_time"],
        endpoint=endpoint,
        since=since,
        snapshot=snapshot,
    )
    given = table.filter(pc.fill_null(pc.not_equal(table["label"], ""), False))
    return {row["request_id"]: row["label"] for row in newest(given.to_pylist())}


def _pin(version: int) -> int | None:
    """A table that isn't there has no version to read at."""
    return version if version >= 0 else None
