"""Where training rows come from: the project's own file, and production records that somebody has labelled."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from noria.domain.endpoint import Role
from noria.domain.errors import InvalidData
from noria.evaluation.payloads import inputs, parse
from noria.evaluation.statements import newest
from noria.ports import RecordStore
from noria.training.chats import chat_of, messages_of, rejected_of

NEEDED = ("text", "label")
"""Columns that a data file must have; `group` is optional."""
_FIX = "Correct the file that training.data names in noria.yaml."


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One labelled text, or one chat with its wanted answer as `label`.

    `origin` is `baseline` for the project's own data and `production` for a record.
    """

    text: str
    label: str
    group: str = ""
    origin: str = "baseline"
    request_id: str = ""
    time: datetime | None = None
    """When the record was requested; None for the project's own data."""
    messages: str | None = None
    """JSON list of the chat's messages before the answer; None for a classification."""
    rejected: str | None = None
    """An answer to the chat that was given, and that somebody corrected."""
    unit: str = ""
    """What the row belongs to where such rows stay on one side of a split; empty for nothing."""

    @property
    def key(self) -> str:
        """What makes a row the same as another: its text, or the whole chat."""
        return self.messages or self.text


def read_file(path: Path, redact: Callable[[str], str]) -> list[Row]:
    """The project's own rows, redacted like the records, so that both look alike to a monitor.

    Args:
        path: CSV (UTF-8, with a header), Parquet, or JSONL (see `read_lines`).
        redact: Takes out of a text what must not be kept.

    Raises:
        InvalidData: The file, a column or a row can't be used; the sentence names it.
    """
    if not path.is_file():
        raise InvalidData(f"The training data {path} isn't there.", "Correct training.data in noria.yaml.")
    if path.suffix.lower() == ".jsonl":
        return read_lines(path, redact)
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


def read_lines(path: Path, redact: Callable[[str], str]) -> list[Row]:
    """Rows of a JSONL file: each line `text` and `label` (and `group`), or a chat whose last message is the answer.

    Raises:
        InvalidData: A line can't be used; the sentence names it.
    """
    rows = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            place, item = f"Line {number}", parse(line)
            if not isinstance(item, dict):
                raise InvalidData(f"{place} of {path.name} is not a JSON object.", _FIX)
            if "messages" in item:
                text, messages, label, rejected = chat_of(item, f"{place} of {path.name}", redact)
            else:
                plain: list[Any] = [item.get(name) for name in NEEDED]
                if not all(isinstance(value, str) for value in plain):
                    raise InvalidData(f"{place} of {path.name} has no text `text` or no text `label`.", _FIX)
                text, label, messages, rejected = redact(plain[0]), plain[1], "", None
            group = item.get("group", "")
            if _sound(path, place, text, label) and not isinstance(group, str):
                raise InvalidData(f"{place} of {path.name} has a group that isn't text.", _FIX)
            rows.append(Row(text=text, label=label, group=group, messages=messages or None, rejected=rejected))
    return rows


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


def read_labelled(
    records: RecordStore,
    endpoint: str,
    group_key: str | None,
    *,
    unit_key: str | None = None,
    chat: bool = False,
    redact: Callable[[str], str] = str,
) -> Labelled:
    """Join the records of an endpoint with the labels that people gave them.

    Args:
        records: The tables; both are read at one version each, which the result names.
        endpoint: Endpoint.
        group_key: Key in a record's metadata that names its group.
        unit_key: Key in a record's metadata that names what stays on one side of a split.
        chat: Whether a row is a whole chat, its label the wanted answer.
        redact: Takes out of a wanted answer what must not be kept; requests are redacted when they are recorded.
    """
    versions = {table: records.snapshot(table) for table in ("inference", "feedback")}
    labels = _labels(records, endpoint, _pin(versions["feedback"]))
    table = records.scan(
        "inference",
        columns=[
            "databricks_request_id",
            "request_time",
            "request",
            "metadata",
            "route",
            *(("response",) if chat else ()),
        ],
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
        request_id, metadata = record["databricks_request_id"], dict(record["metadata"] or ())
        label = redact(labels[request_id]) if chat else labels[request_id]
        rows.append(
            Row(
                text=texts[0],
                label=label,
                group=metadata.get(group_key or "", ""),
                unit=metadata.get(unit_key or "", ""),
                messages=messages_of(record["request"]) if chat else None,
                rejected=rejected_of(record["response"] or "", label) if chat else None,
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


def count_statements(records: RecordStore, endpoint: str) -> int:
    """How many statements about an endpoint's answers there are."""
    return len(records.scan("feedback", columns=["feedback_id"], endpoint=endpoint))


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
