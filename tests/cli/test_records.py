"""`noria records`: the log in the spool and in the tables, read and exported as one."""

import asyncio
import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from fakes.entries import feedback, intent, outcome
from noria import bootstrap
from noria.adapters.clock import SystemClock
from noria.adapters.spool.reader import SpoolFolder
from noria.adapters.spool.writer import SqliteSpool
from noria.cli import app
from noria.domain.errors import InvalidRequest, UnknownEndpoint
from noria.serving.log.shipping import Shipper
from noria.tables import INFERENCE


class Place:
    """A project on disk, its spool, and somebody who ships when told to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings = bootstrap.settings(root)

    def write(self, *entries) -> None:
        async def append() -> None:
            spool = SqliteSpool(self.settings.spool_dir, "api-0")
            for entry in entries:
                await spool.append(entry)
            spool.close()

        asyncio.run(append())

    def ship(self) -> None:
        folder = SpoolFolder(self.settings.spool_dir)
        Shipper(folder.readers, bootstrap.records(self.settings), SystemClock()).turn()
        folder.close()

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["--project", str(self.root), "records", *words])

    def refuses(self, kind, *words: str) -> str:
        done = self.run(*words)
        assert isinstance(done.exception, kind), done.output
        return done.exception.problem


@pytest.fixture
def place(project: Path) -> Place:
    place = Place(project)
    place.write(intent(1), outcome(1), feedback(1), intent(2, request='{"input":"é, \\"q\\"\n"}'.encode()), outcome(2))
    place.ship()
    place.write(intent(3, endpoint="other"), outcome(3), intent(4), feedback(1), feedback(3, comment="fine"))
    return place


def test_what_is_not_shipped_yet_shows_in_tail_and_query(place):
    found = json.loads(place.run("tail", "--json").stdout)
    assert [row["endpoint"] for row in found] == ["triage", "triage", "other"]
    assert "databricks_request_id" not in found[0]
    found = json.loads(place.run("query", "SELECT count(*) AS n FROM feedback", "--json").stdout)
    assert found == [{"n": 2}]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_an_export_holds_every_request_once_in_the_kind_that_its_name_says(place, tmp_path, kind):
    file = tmp_path / f"log.{kind}"
    file.write_text("what was there before")
    done = place.run("export", "--to", str(file))
    assert done.stdout == f"3 rows are in {file}.\n"
    rows = read(file)
    assert sorted(row["sequence"] for row in rows) == [2, 5, 7]
    row = next(row for row in rows if row["sequence"] == 5)
    assert row["request"] == '{"input":"é, \\"q\\"\n"}'
    assert (row["metadata"], row["logging_error_codes"]) == ({"group": "united"}, [])
    assert [path.name for path in tmp_path.iterdir() if "log" in path.name] == [file.name]


def read(file: Path) -> list[dict]:
    if file.suffix == ".parquet":
        assert pq.read_schema(file).names == INFERENCE.names
        return [{**row, "metadata": dict(row["metadata"])} for row in pq.read_table(file).to_pylist()]
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text().splitlines()]
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    nested = ("metadata", "logging_error_codes", "sequence")
    return [{**row, **{name: json.loads(row[name]) for name in nested}} for row in rows]


def test_an_export_can_be_narrowed_by_time_and_endpoint(place, tmp_path):
    def rows(*words: str) -> int:
        return json.loads(place.run("export", "--to", str(tmp_path / "x.jsonl"), "--json", *words).stdout)["rows"]

    assert rows("--endpoint", "triage") == 2
    assert rows("--since", "2025-01-01T00:00:02+00:00") == 2
    assert rows("--until", "2025-01-01T00:00:02+00:00") == 1
    assert rows("--since", "2025-01-01T00:00:01+00:00", "--until", "2025-01-01T00:00:03+00:00") == 2
    assert rows("--since", "1h") == 0
    assert rows("--table", "feedback") == 2


def test_an_export_that_cannot_be_done_says_why_and_leaves_nothing(place, tmp_path):
    assert "log.xlsx" in place.refuses(InvalidRequest, "export", "--to", str(tmp_path / "log.xlsx"))
    said = place.refuses(InvalidRequest, "export", "--to", str(tmp_path / "no" / "log.csv"))
    assert "log.csv can't be written: No such file or directory." in said
    assert "no time" in place.refuses(InvalidRequest, "export", "--to", str(tmp_path / "log.csv"), "--since", "soon")
    place.refuses(UnknownEndpoint, "export", "--to", str(tmp_path / "log.csv"), "--endpoint", "' OR 1=1 --")
    assert not list(tmp_path.glob("*log*"))


def test_an_export_of_nothing_is_a_file_with_columns(project, tmp_path):
    done = CliRunner().invoke(
        app, ["--project", str(project), "records", "export", "--to", str(tmp_path / "x.parquet")]
    )
    assert done.exit_code == 0
    assert pq.read_table(tmp_path / "x.parquet").schema.names == INFERENCE.names


def test_who_follows_gets_a_line_for_each_request_until_he_stops(place):
    words = ["--project", str(place.root), "records", "tail", "--follow", "--json", "-n", "1"]
    process = subprocess.Popen([sys.executable, "-m", "noria.cli", *words], stdout=subprocess.PIPE, text=True)
    try:
        lines = [json.loads(process.stdout.readline())]
        place.write(outcome(4), intent(5), outcome(5))
        lines += [json.loads(process.stdout.readline()) for _ in range(2)]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        process.stdout.close()
    assert [row["request_time"][17:19] for row in lines] == ["03", "04", "05"]
    assert {"ms", "request", "response", "status_code"} <= lines[1].keys()
