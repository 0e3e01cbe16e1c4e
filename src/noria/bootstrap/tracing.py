"""What lineage reads of the log and of the runs' datasets."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noria.bootstrap.parts import log
from noria.domain.run import Run
from noria.ports import StateStore
from noria.settings import Settings

if TYPE_CHECKING:
    from noria.governance.lineage import Given, Learnt, Lineage
    from noria.serving.log.records import Log

SPLITS = ("train", "holdout")
"""A snapshot's files, by what their rows are for."""
_ID = re.compile(r"[0-9a-f]{12}7[0-9a-f]{19}")
"""A request's id, whose first 48 bits are the time in milliseconds."""
_A_DAY = timedelta(days=1)


def lineage(settings: Settings, store: StateStore, most: int = 5) -> "Lineage":
    """What tells where an answer comes from.

    Args:
        settings: The project in service.
        store: Its state.
        most: How many records or answers of each kind are named.
    """
    from noria.governance.lineage import Lineage

    return Lineage(store, _Reading(log(settings), settings.work_dir), most)


@dataclass(frozen=True, slots=True)
class _Reading:
    """`governance.lineage.Log` over the log as people read it and the runs' folders."""

    log: "Log"
    work_dir: Path

    def answer(self, name: str) -> Mapping[str, Any] | None:
        found = self._rows("*", f"inference WHERE databricks_request_id = {_text(name)}{_day_of(name)} LIMIT 1")
        if not found:
            by_caller = f"client_request_id = {_text(name)} ORDER BY request_time DESC LIMIT 1"
            found = self._rows("*", f"inference WHERE {by_caller}")
        return found[0] if found else None

    def feedback(self, request_id: str) -> Sequence[Mapping[str, Any]]:
        return self._rows("*", f"feedback WHERE request_id = {_text(request_id)} ORDER BY feedback_time")

    def given(self, model: str, version: str, most: int) -> "Given":
        from noria.governance.lineage import Given

        of = f"inference WHERE model_name = {_text(model)} AND model_version = {_text(version)}"
        of += " AND coalesce(shadow_of, '') = ''"
        (totals,) = self._rows("count(*) AS n, min(request_time) AS first, max(request_time) AS last", of)
        newest = self._rows("databricks_request_id AS id", f"{of} ORDER BY request_time DESC LIMIT {int(most)}")
        ids = tuple(str(row["id"]) for row in newest)
        return Given(count=totals["n"], first=totals["first"], last=totals["last"], newest=ids)

    def learnt(self, run: Run, most: int) -> "Learnt | None":
        """From the table `datasets`; from the run's own files where it has none of its rows."""
        from noria.governance.lineage import Learnt

        of = f"datasets WHERE run_id = {_text(run.id)}"
        rows = {row["split"]: row["n"] for row in self._rows("split, count(*) AS n", f"{of} GROUP BY split")}
        if not rows:
            return self._from_files(run, most)
        of += " AND origin = 'production'"
        (total,) = self._rows("count(*) AS n", of)
        named = self._rows("request_id, label, split", f"{of} ORDER BY request_id DESC LIMIT {int(most)}")
        return Learnt(
            id=run.id,
            says=f"{rows.get('train', 0)} rows to learn from, {rows.get('holdout', 0)} to judge on",
            facts={"rows": rows, "table": "datasets", **_summary(self.work_dir / run.id)},
            count=total["n"],
            records=tuple({name: str(each[name] or "") for name in each} for each in named),
        )

    def _from_files(self, run: Run, most: int) -> "Learnt | None":
        import pyarrow.parquet as pq

        from noria.governance.lineage import Learnt

        folder = self.work_dir / run.id
        files = {split: folder / f"{split}.parquet" for split in SPLITS}
        if not all(file.is_file() for file in files.values()):
            return None
        count, records, rows = 0, list[dict[str, str]](), dict[str, int]()
        for split, file in files.items():
            rows[split] = pq.read_metadata(file).num_rows
            real = pq.read_table(file, columns=["request_id", "label"], filters=[("origin", "=", "production")])
            count += real.num_rows
            named = real.slice(0, max(most - len(records), 0)).to_pylist()
            records += [{"request_id": r["request_id"], "label": r["label"], "split": split} for r in named]
        return Learnt(
            id=run.id,
            says=f"{rows['train']} rows to learn from, {rows['holdout']} to judge on",
            facts={"rows": rows, **_summary(folder)},
            count=count,
            records=tuple(records),
        )

    def lessons(self, runs: Sequence[Run], request_id: str) -> Mapping[str, str]:
        import pyarrow.parquet as pq

        kept = self._rows("run_id, split", f"datasets WHERE request_id = {_text(request_id)}")
        found = {str(row["run_id"]): str(row["split"]) for row in kept}
        for run in (run for run in runs if run.id not in found):
            for split in SPLITS:
                file = self.work_dir / run.id / f"{split}.parquet"
                if file.is_file() and pq.read_table(
                    file, columns=["request_id"], filters=[("request_id", "=", request_id)]
                ):
                    found[run.id] = split
        return found

    def _rows(self, columns: str, source: str) -> list[dict[str, Any]]:
        """The rows of a query; every text in it went through `_text`."""
        rows: list[dict[str, Any]] = self.log.query(f"SELECT {columns} FROM {source}").to_pylist()  # noqa: S608
        return rows


def _summary(folder: Path) -> dict[str, object]:
    """Table versions and checksums that the snapshot wrote down."""
    try:
        written = json.loads((folder / "dataset.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return {name: written[name] for name in ("inference_version", "feedback_version", "data_sha256") if name in written}


def _text(value: str) -> str:
    """A text as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"


def _day_of(request_id: str) -> str:
    """A condition on the day, so that other days' folders aren't read: the id says when it was given."""
    if not _ID.fullmatch(request_id):
        return ""
    try:
        day = datetime.fromtimestamp((int(request_id, 16) >> 80) / 1000, UTC).date()
        return f" AND request_date BETWEEN DATE '{day - _A_DAY}' AND DATE '{day + _A_DAY}'"
    except (ValueError, OverflowError):
        return ""
