"""The rows of one run, frozen: what is learnt from, and what nothing is ever learnt from.

`sides` says which is which.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from noria.domain.errors import InvalidData
from noria.evaluation.near import normalised
from noria.ports import RecordStore
from noria.settings import Settings, Task, Training
from noria.tables import DATASET_ROWS, DATASETS
from noria.training.datasets.sides import held_out, latest, split, without_rare
from noria.training.sources import Row, read_file, read_labelled

__all__ = [
    "DatasetSummary",
    "HeldOut",
    "held_out",
    "keep",
    "latest",
    "normalised",
    "read_holdout",
    "read_learnt",
    "snapshot",
    "training_of",
    "validate",
    "without_rare",
]

SCHEMA = DATASET_ROWS
"""Columns of `train.parquet` and `holdout.parquet`; for a chat endpoint `label` is the wanted answer."""
ANSWERS = "(answers)"
"""What the rows of chats are counted under: each wants an answer of its own."""
MIN_TRAIN, MIN_HOLDOUT = 20, 10
"""Rows below which a run makes no sense."""
MAX_SHARE = 0.99
"""One label with more of the training rows than that leaves nothing to tell apart."""
SUMMARY = "dataset.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSummary:
    """What a snapshot holds; all of it is JSON.

    Attributes:
        train: Parquet file to learn from.
        holdout: Parquet file that nothing is learnt from.
        train_labels: Label → rows of `train`.
        holdout_labels: Label → rows of `holdout`.
        production_rows: Rows of both that are production records.
        duplicates: Rows left out because the same text came again.
        conflicts: Among those, texts whose label changed; the latest holds.
        left_out: Labels that were too rare, with their rows.
        skipped: Labelled records without exactly one text.
        inference_version: Version of the inference table that was read.
        feedback_version: Version of the feedback table that was read.
        data_sha256: Checksum of the project's own file.
        near: Rows left out because one before them with the same label is nearly the same.
        crossing: Rows left out because one before them on the other side is nearly the same.
        frozen: Rows left out because they are in the endpoint's own held-out file, exactly or nearly.
        rejected: Rows with an answer that was given and corrected.
        dataset_version: Version of the table `datasets` that holds the rows; -1 before they are in it.
    """

    train: str
    holdout: str
    train_labels: dict[str, int]
    holdout_labels: dict[str, int]
    production_rows: int
    duplicates: int
    conflicts: int
    left_out: dict[str, int]
    skipped: int
    inference_version: int
    feedback_version: int
    data_sha256: str
    near: int = 0
    crossing: int = 0
    frozen: int = 0
    rejected: int = 0
    dataset_version: int = -1

    def numbers(self) -> dict[str, float]:
        """The counts that a run's step shows."""
        return {
            "train_rows": float(sum(self.train_labels.values())),
            "holdout_rows": float(sum(self.holdout_labels.values())),
            "production_rows": float(self.production_rows),
            "duplicates": float(self.duplicates),
            "conflicts": float(self.conflicts),
            "near_duplicates": float(self.near),
            "crossing_rows": float(self.crossing),
            "frozen_rows": float(self.frozen),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Held-out rows as gates read them; all four are equally long."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    origins: tuple[str, ...]


def snapshot(
    endpoint: str, settings: Settings, records: RecordStore, folder: Path, redact: Callable[[str], str]
) -> DatasetSummary:
    """Freeze the rows of a run as `train.parquet` and `holdout.parquet` in a folder.

    Args:
        endpoint: Endpoint with training.
        settings: Project and where its files lie.
        records: The tables.
        folder: Where to write; files of an attempt before are replaced.
        redact: Takes out of the project's own texts what records of this endpoint don't hold either.

    Raises:
        InvalidData: The project's own file can't be used.
    """
    training = training_of(endpoint, settings)
    data = settings.root / training.data
    own = read_file(data, redact)
    declared = settings.project.endpoints[endpoint]
    chat = declared.task is Task.CHAT
    labelled = read_labelled(records, endpoint, declared.group, unit_key=training.split_key, chat=chat, redact=redact)
    frozen = read_file(settings.root / declared.holdout, redact) if declared.holdout is not None else []
    rows, duplicates, conflicts = latest([*own, *labelled.rows])
    rows, left_out = without_rare(rows)
    sides = split(rows, training.holdout, training.split, [row.key for row in frozen])
    train, holdout = sides.train, sides.holdout
    folder.mkdir(parents=True, exist_ok=True)
    summary = DatasetSummary(
        train=_write(train, folder / "train.parquet"),
        holdout=_write(holdout, folder / "holdout.parquet"),
        train_labels=_count(train),
        holdout_labels=_count(holdout),
        production_rows=sum(row.origin == "production" for row in [*train, *holdout]),
        duplicates=duplicates,
        conflicts=conflicts,
        left_out=left_out,
        skipped=labelled.skipped,
        inference_version=labelled.inference_version,
        feedback_version=labelled.feedback_version,
        data_sha256=sha256(data.read_bytes()).hexdigest(),
        near=sides.near,
        crossing=sides.crossing,
        frozen=sides.frozen,
        rejected=sum(row.rejected is not None for row in [*train, *holdout]),
    )
    (folder / SUMMARY).write_text(json.dumps(asdict(summary), indent=2))
    return summary


def keep(
    endpoint: str, run_id: str, records: RecordStore, folder: Path, now: datetime, make: Callable[[], DatasetSummary]
) -> DatasetSummary:
    """Write a run's snapshot into the table `datasets`, once; a repeat after that gives what was written.

    Args:
        endpoint: Endpoint that is trained.
        run_id: Its run.
        records: The tables.
        folder: Where the snapshot lies.
        now: When it is taken.
        make: Takes the snapshot.
    """
    app_id, file = f"dataset/{run_id}", folder / SUMMARY
    if records.last_version("datasets", app_id) and file.is_file():
        summary = DatasetSummary(**json.loads(file.read_text()))
    else:
        summary = make()
        sides = [_marked(summary.train, "train"), _marked(summary.holdout, "holdout")]
        rows = [{"endpoint": endpoint, "run_id": run_id, "frozen_time": now} | row for side in sides for row in side]
        records.append("datasets", pa.Table.from_pylist(rows, DATASETS), app_id, 1)
    if summary.dataset_version < 0:
        summary = replace(summary, dataset_version=records.snapshot("datasets"))
        file.write_text(json.dumps(asdict(summary), indent=2))
    return summary


def _marked(file: str, split: str) -> list[dict[str, Any]]:
    return [{"split": split} | row for row in pq.read_table(file).to_pylist()]


def training_of(endpoint: str, settings: Settings) -> Training:
    """How the endpoint is trained.

    Raises:
        InvalidData: It isn't.
    """
    found = settings.project.endpoints.get(endpoint)
    if found is None or found.training is None:
        raise InvalidData(f"{endpoint} has no training.", f"Give endpoints.{endpoint} a training part in noria.yaml.")
    return found.training


def validate(summary: DatasetSummary) -> None:
    """See whether a snapshot can be trained and judged on.

    Raises:
        InvalidData: It can't; the sentence says what is missing.
    """
    train, holdout = sum(summary.train_labels.values()), sum(summary.holdout_labels.values())
    left_out = "".join(f" ({rows} rows of label {label} were left out)" for label, rows in summary.left_out.items())
    chats = ANSWERS in summary.train_labels
    if len(summary.train_labels) < 2 and not chats:
        only = ", ".join(summary.train_labels) or "none"
        raise InvalidData(f"The training rows have fewer than two labels: {only}{left_out}.", "Add labelled rows.")
    if train < MIN_TRAIN or holdout < MIN_HOLDOUT:
        raise InvalidData(
            f"{train} rows to learn from and {holdout} to judge on are too few{left_out}.",
            f"Give at least {MIN_TRAIN} and {MIN_HOLDOUT}, in training.data or as labels through /feedback.",
        )
    label, rows = max(summary.train_labels.items(), key=lambda item: item[1])
    if rows / train > MAX_SHARE and not chats:
        raise InvalidData(
            f"{rows} of {train} training rows have the label {label}: there is nothing to tell apart.",
            "Add rows of the other labels.",
        )
    if unjudged := sorted(set(summary.train_labels) - set(summary.holdout_labels)):
        raise InvalidData(
            f"No held-out row has the label {', '.join(unjudged)}.", "Add rows of it, or raise training.holdout."
        )
    _check_schema(summary)


def _check_schema(summary: DatasetSummary) -> None:
    for file in (summary.train, summary.holdout):
        try:
            found = pq.read_schema(file)
        except (OSError, pa.ArrowException) as error:
            raise InvalidData(f"{file} can't be read: {error}.", "Start the run again.") from error
        if not found.equals(SCHEMA):
            raise InvalidData(f"{file} has other columns than a dataset should.", "Start the run again.")


def read_holdout(folder: Path) -> HeldOut | None:
    """The held-out rows in a run's folder; None if it has none."""
    file = folder / "holdout.parquet"
    if not file.is_file():
        return None
    columns: dict[str, list[str]] = pq.read_table(file, columns=["text", "label", "group", "origin"]).to_pydict()
    return HeldOut(
        texts=tuple(columns["text"]),
        labels=tuple(columns["label"]),
        groups=tuple(columns["group"]),
        origins=tuple(columns["origin"]),
    )


def read_learnt(folder: Path) -> list[str]:
    """The texts to learn from in a run's folder; none if it has none."""
    file = folder / "train.parquet"
    texts: list[str] = pq.read_table(file, columns=["text"])["text"].to_pylist() if file.is_file() else []
    return texts


def _count(rows: Iterable[Row]) -> dict[str, int]:
    return dict(sorted(Counter(ANSWERS if row.messages else row.label for row in rows).items()))


def _write(rows: Sequence[Row], file: Path) -> str:
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names}
    pq.write_table(pa.table(columns, schema=SCHEMA), file)
    return str(file)
