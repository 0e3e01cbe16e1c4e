"""`noria audit`: roots are made, checked against what was kept elsewhere, and the account is written out whole."""

import json
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from noria import bootstrap
from noria.adapters.anchors import new_key
from noria.cli import app


def run(project: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["--project", str(project), "audit", *words])


@pytest.fixture
def written(project: Path) -> Path:
    state = bootstrap.state(bootstrap.settings(project))
    for n in range(4):
        with state.change("ada", "version.promoted", f"triage/{n}", reason="why", evidence={"endpoint": "triage"}):
            pass
    return project


def test_a_root_is_made_once_for_what_has_none(written: Path) -> None:
    assert "Root 000001 of events 1 to 4" in run(written, "anchor").stdout
    assert "its root already" in run(written, "anchor").stdout
    assert "1 roots hold the first 4" in run(written, "verify").stdout
    assert json.loads(run(written, "verify", "--json").stdout)["anchored"] == 4


def test_roots_are_signed_with_the_key_that_the_project_names(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = new_key()
    monkeypatch.setenv("AUDIT_KEY", private)
    with (written / "noria.yaml").open("a") as file:
        file.write("\naudit:\n  anchors: kept\n  key: AUDIT_KEY\n")
    assert "(signed), in" in run(written, "anchor").stdout
    assert (written / "kept" / "000001.json").is_file()
    assert run(written, "verify", "--key", public).exit_code == 0
    other = run(written, "verify", "--key", new_key()[1])
    assert other.exit_code == 1
    assert "not signed with the key that was asked for" in other.stdout
    assert "AUDIT_KEY" in bootstrap.settings(written).secrets


def test_an_event_that_was_altered_and_sealed_anew_is_found_by_roots_kept_elsewhere(
    written: Path, tmp_path: Path
) -> None:
    run(written, "anchor")
    elsewhere = shutil.copytree(written / ".noria" / "anchors", tmp_path / "elsewhere")
    settings = bootstrap.settings(written)
    engine = sa.create_engine(settings.state_url)
    with engine.begin() as connection:
        for table in ("audit", "nouns"):
            connection.exec_driver_sql(
                f"DELETE FROM {table}" + (" WHERE kind = 'AuditHead'" if table == "nouns" else "")
            )
    engine.dispose()
    state = bootstrap.state(settings)
    for n in range(4):
        with state.change("eve", "version.promoted", f"triage/{n}"):
            pass
    found = run(written, "verify", "--anchors", str(elsewhere))
    assert found.exit_code == 1
    assert "BROKEN at event 1" in found.stdout
    assert "000001" in found.stdout


def test_the_account_is_written_out_so_that_anybody_can_check_it(written: Path, tmp_path: Path) -> None:
    file = tmp_path / "account.jsonl"
    assert "4 events are in" in run(written, "export", "--out", str(file)).stdout
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert [event["sequence"] for event in events] == [1, 2, 3, 4]
    assert [event["previous_hash"] for event in events[1:]] == [event["hash"] for event in events[:-1]]


def test_a_key_that_is_made_signs(written: Path) -> None:
    lines = run(written, "key").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["private:", "public:"]
