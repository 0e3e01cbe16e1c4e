"""`noria trace` over a real log, a run's real files and a real state."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from fakes.entries import START_US, feedback, intent, outcome
from noria import bootstrap
from noria.adapters.clock import SystemClock
from noria.adapters.spool.reader import SpoolFolder
from noria.adapters.spool.writer import SqliteSpool
from noria.cli import app
from noria.domain.errors import UnknownTrace
from noria.domain.gate import GateResult, Verdict
from noria.domain.run import Run, RunState, Trigger, TriggerKind
from noria.serving.log.shipping import Shipper
from noria.tables import DATASETS

AT = datetime.fromtimestamp(START_US / 1e6, UTC)
UUID7 = f"{START_US // 1000 << 80 | 7 << 76 | 5:032x}"
"""An id as the gateway makes them: its day is in it."""
RUN = Run(
    id="triage-ab12",
    endpoint="triage",
    state=RunState.SUCCEEDED,
    model="triage",
    version="1",
    trigger=Trigger(kind=TriggerKind.PERSON, cause="retrain:1", actor="ada", reason="to see"),
    started_at=AT,
)
VERDICT = Verdict(
    id="triage-1-cd34",
    endpoint="triage",
    model="triage",
    version="1",
    champion="",
    decided_at=AT,
    policy_hash="p",
    results=(GateResult(gate="quality", passed=True, summary="good"),),
)


@pytest.fixture
def root(project: Path) -> Path:
    settings = bootstrap.settings(project)
    state = bootstrap.state(settings)
    with state.change("noria", "run.started", RUN.id) as change:
        change.put(RUN)
        change.put(VERDICT)
    work = settings.work_dir / RUN.id
    work.mkdir(parents=True)
    columns = {"label": ["positive"] * 2, "origin": ["production", "baseline"]}
    pq.write_table(pa.table({"request_id": [f"{1:032x}", ""], **columns}), work / "train.parquet")
    pq.write_table(pa.table({"request_id": [f"{3:032x}", ""], **columns}), work / "holdout.parquet")
    entries = [intent(1), outcome(1), feedback(1), intent(2, client_request_id="it's mine"), outcome(2)]
    entries += [intent(5, request_id=UUID7), outcome(5, request_id=UUID7)]

    async def write(*written) -> None:
        spool = SqliteSpool(settings.spool_dir, "api-0")
        for entry in written:
            await spool.append(entry)
        spool.close()

    asyncio.run(write(*entries))
    folder = SpoolFolder(settings.spool_dir)
    Shipper(folder.readers, bootstrap.records(settings), SystemClock()).turn()
    folder.close()
    asyncio.run(write(intent(4), outcome(4)))  # on its way to the tables
    return project


def run(root: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["--project", str(root), "trace", *words])


def test_an_answer_is_told_as_a_tree(root: Path) -> None:
    lines = run(root, f"{1:032x}").output.splitlines()
    assert lines[0].startswith(f"answer {1:032x} at 2025-01-01 00:00:01: triage: answered (200) as champion")
    assert lines[1] == "├─ version triage/1: answered for triage"
    assert lines[2].startswith("│  ├─ run triage-ab12")
    assert any("2 labelled production records: " in line and f"{3:032x}" in line for line in lines)
    assert any("verdict triage-1-cd34" in line and "passed, the first version" in line for line in lines)
    assert any(line.startswith("├─ feedback f1") and "human: label positive" in line for line in lines)
    assert lines[-1].startswith("└─ lesson triage-ab12")
    assert lines[-1].endswith("learnt from it and made triage/1")


@pytest.mark.parametrize("name", [f"{2:032x}", f"{4:032x}", UUID7, "it's mine"])
def test_every_request_is_found_by_its_id_or_the_callers_shipped_or_not(root: Path, name: str) -> None:
    found = json.loads(run(root, name, "--json").output)
    assert found["kind"] == "answer"
    assert found["links"][0]["links"][0]["id"] == RUN.id


def test_a_version_names_the_newest_of_its_answers(root: Path) -> None:
    found = json.loads(run(root, "triage/1", "--most", "2", "--json").output)
    answers = found["links"][-1]
    assert (answers["kind"], answers["facts"]["count"]) == ("answers", 4)
    assert answers["facts"]["newest"] == [UUID7, f"{4:032x}"]


def test_a_dataset_is_read_from_its_table_where_the_run_has_rows_there(root: Path) -> None:
    row = {"endpoint": "triage", "run_id": RUN.id, "frozen_time": AT, "text": "hello", "label": "positive"}
    rows = [
        {**row, "split": "train", "origin": "production", "request_id": f"{2:032x}"},
        {**row, "split": "holdout", "origin": "baseline", "request_id": ""},
    ]
    whole = [{name: each.get(name) for name in DATASETS.names} for each in rows]
    table = pa.Table.from_pylist(whole, schema=DATASETS)
    bootstrap.records(bootstrap.settings(root)).append("datasets", table, "test", 1)
    lines = run(root, f"{2:032x}").output
    assert "1 rows to learn from, 1 to judge on" in lines
    assert f"1 labelled production records: {2:032x}" in lines
    assert "learnt from it and made triage/1" in lines


def test_what_is_not_there_is_said(root: Path) -> None:
    assert isinstance(run(root, "triage/7").exception, UnknownTrace)
    assert isinstance(run(root, "f" * 32).exception, UnknownTrace)
