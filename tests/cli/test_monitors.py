"""`noria monitor run` on a real project on disk."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fakes.traffic import HOUR, Traffic, route
from noria import bootstrap
from noria.cli import app

YAML = """\
project: care
endpoints:
  triage:
    task: classification
    policy: policies/triage.yaml
    registered: {version: "1"}
    monitors: {watch: [error], floors: {error: 0.1}, baseline_records: 5000, granularities: [1d]}
"""
POLICY = """\
name: triage
intended_use: Sort customers' messages by mood.
forbidden_use: [decide about people]
owner: Ada
review_by: 2030-01-31
"""
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=3)


class Care:
    """A project whose endpoint has answered for some hours, three days ago."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "policies").mkdir()
        (root / "policies" / "triage.yaml").write_text(POLICY)
        (root / "noria.yaml").write_text(YAML)
        self.settings = bootstrap.settings(root)
        self.state, self.records = bootstrap.state(self.settings), bootstrap.records(self.settings)
        Traffic(self.records).ask(["a late flight"] * 90, ["bad"] * 90, NOON, within=3 * HOUR)

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["--project", str(self.root), "monitor", "run", *words])

    def rows(self, table: str) -> list[str]:
        found = self.records.scan(table).to_pylist()
        for row in found:
            row.pop("logging_table_commit_version", None)
        return sorted(map(repr, found))


@pytest.fixture
def care(tmp_path: Path) -> Care:
    return Care(tmp_path)


def test_history_is_computed_as_often_as_one_likes(care: Care) -> None:
    with care.state.change("noria", "version.promoted", "1") as change:
        change.put(route("1"))
    since = ["--since", NOON.isoformat(), "--until", (NOON + 3 * HOUR).isoformat()]
    first = json.loads(care.run(*since, "--json").stdout)
    assert first == [{"endpoint": "triage", "windows": 3, "longer": 1, "records": 90, "alarms": []}]
    tables = {name: care.rows(name) for name in ("monitor_states", "profile_metrics", "drift_metrics")}
    assert all(tables.values())
    again = care.run(*since, "--endpoint", "triage")
    assert again.exit_code == 0
    assert "4 windows of 1 endpoint." in again.stdout
    assert {name: care.rows(name) for name in tables} == tables


def test_what_cannot_be_computed_is_said_in_a_sentence(care: Care) -> None:
    assert "no version that answers" in str(care.run("--since", "7d").exception)
    assert "no endpoint nothing" in str(care.run("--since", "7d", "--endpoint", "nothing").exception)
    assert "is no time" in str(care.run("--since", "soon").exception)
