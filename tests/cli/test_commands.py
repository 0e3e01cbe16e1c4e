"""The commands that read and change the state of a real project on disk."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from fakes.registry import FakeRegistry
from fakes.story import ALERT, PASSED, REFUSED, StoppedClock, tell
from noria import bootstrap
from noria.adapters.state.sql import SqlState
from noria.cli import app
from noria.cli.loop import _to_bring_up
from noria.domain.endpoint import Route
from noria.domain.errors import InvalidData, InvalidProject, InvalidRequest, NoriaError, Refused, UnknownEndpoint
from noria.domain.events import CandidateRegistered, RetrainRequested
from noria.domain.gate import Verdict
from noria.domain.model import Alias
from noria.domain.status import AppliedProject
from noria.tables import INFERENCE


@dataclass
class Shop:
    """A project on disk and the command line in front of it."""

    root: Path
    state: SqlState

    def run(self, *words: str, answer: str = "") -> Result:
        return CliRunner().invoke(app, ["--project", str(self.root), *words], input=answer)

    def json(self, *words: str) -> Any:
        done = self.run(*words, "--json")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return json.loads(done.stdout)

    def refuses(self, kind: type[NoriaError], *words: str) -> str:
        done = self.run(*words)
        assert isinstance(done.exception, kind), done.output
        return done.exception.problem


@pytest.fixture
def shop(project: Path) -> Iterator[Shop]:
    state = bootstrap.state(bootstrap.settings(project))
    yield Shop(project, state)
    state.close()


@pytest.fixture
def busy(shop: Shop) -> Shop:
    """The shop in the midst of a turn of its loop."""
    tell(shop.state)
    bootstrap.apply(shop.state, bootstrap.settings(shop.root), (shop.root / "noria.yaml").read_text(), "ada", "start")
    return shop


def test_status_is_what_the_api_says_and_what_only_this_machine_knows(busy: Shop) -> None:
    found = busy.json("status")
    assert found["up"] is None
    assert found["file_changed"] is False
    assert found["endpoints"][0]["name"] == "triage"
    assert found["audit"]["events"] == 7
    assert "nothing runs" in busy.run("status").stdout


def test_a_file_that_is_being_edited_keeps_nobody_from_looking(busy: Shop) -> None:
    (busy.root / "noria.yaml").write_text("project: [")
    assert busy.json("status")["file_changed"] is None


def test_a_broken_file_that_was_never_applied_is_named(shop: Shop) -> None:
    (shop.root / "noria.yaml").write_text("project: [")
    assert "noria.yaml:" in shop.refuses(InvalidProject, "status")


def test_apply_shows_what_changes_asks_and_leaves_an_audit_event(shop: Shop) -> None:
    file = shop.root / "noria.yaml"
    assert "never applied" in shop.run("apply", "--yes", "--by", "ada").stdout
    assert "in service as it is" in shop.run("apply").stdout
    file.write_text(file.read_text().replace("window: 5m", "window: 10m"))
    asked = shop.run("apply", answer="n\n")
    assert asked.exit_code == 1
    assert '~ endpoints.triage.monitors.window: "5m" → "10m"' in asked.stdout
    assert shop.run("apply", "--by", "ada", "--reason", "quieter", answer="y\n").exit_code == 0
    last = list(shop.state.audit_trail())[-1]
    assert (last.actor, last.action, last.reason) == ("ada", "project.applied", "quieter")
    assert last.evidence["changes"] == ['~ endpoints.triage.monitors.window: "5m" → "10m"']
    applied = shop.state.get(AppliedProject, "project")
    assert applied is not None
    assert applied.text == file.read_text()


def test_apply_says_which_changes_a_running_project_takes_over_only_when_it_is_started_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run("apply", "--yes")
    file = shop.root / "noria.yaml"
    file.write_text(file.read_text() + "server: {processes: 2, max_streams: 7}\n")
    monkeypatch.setattr("noria.cli.loop._is_up", lambda _: True)
    said = shop.run("apply", "--yes").stdout
    assert "server.processes: what runs keeps the old value" in said
    assert "max_streams: what runs" not in said


def test_apply_refuses_a_file_that_names_what_is_not_there(shop: Shop) -> None:
    (shop.root / "policies" / "triage.yaml").unlink()
    assert "there is no file policies/triage.yaml" in shop.refuses(InvalidProject, "apply", "--yes")
    assert shop.state.get(AppliedProject, "project") is None


def test_retrain_asks_the_loop_with_name_and_reason(busy: Shop) -> None:
    done = busy.run("retrain", "triage", "--reason", "new products", "--by", "ada")
    assert "it begins with the next `noria up`" in done.stdout
    [event] = [e for e in busy.state.pending_events() if isinstance(e, RetrainRequested)]
    assert (event.endpoint, event.actor, event.reason) == ("triage", "ada", "new products")


def test_an_unknown_endpoint_is_answered_with_the_known_ones(busy: Shop) -> None:
    assert busy.refuses(UnknownEndpoint, "retrain", "triagé", "--reason", "x") == "This project has no endpoint triagé."


def test_rollback_takes_a_canary_back(busy: Shop) -> None:
    done = busy.run("rollback", "triage", "--reason", "complaints", "--by", "ada")
    assert done.stdout == "triage/1 answers all of triage now.\n"
    now = busy.state.get(Route, "triage")
    assert now is not None
    assert now.canary is None


def test_rollback_without_a_version_before_is_refused(busy: Shop) -> None:
    busy.run("rollback", "triage", "--reason", "complaints")
    assert "no previous champion" in busy.refuses(Refused, "rollback", "triage", "--reason", "more complaints")


def test_alerts_are_those_that_fire_unless_all_are_asked_for(busy: Shop) -> None:
    with busy.state.note() as note:
        note.put(replace(ALERT, id="old", summary="an old one").resolve(datetime.now(UTC), "champion replaced"))
    assert [a["id"] for a in busy.json("alerts", "list")] == [ALERT.id]
    assert {a["id"] for a in busy.json("alerts", "list", "--all")} == {ALERT.id, "old"}
    assert "What callers write" in busy.run("alerts", "list").stdout


def test_no_alert_is_said_so(shop: Shop) -> None:
    assert shop.run("alerts", "list").stdout == "No alert is firing.\n"


def test_a_verdict_is_shown_by_id_and_the_newest_by_endpoint(busy: Shop) -> None:
    shown = busy.run("verdict", "show", REFUSED.id).stdout
    assert "refused" in shown
    for result in REFUSED.results:
        assert result.summary[:40] in shown
    assert busy.json("verdict", "show", "triage")["id"] == PASSED.id
    assert "no verdict nobody" in busy.refuses(NoriaError, "verdict", "show", "nobody")


def test_an_override_is_a_persons_with_a_reason(busy: Shop) -> None:
    assert busy.run("verdict", "override", REFUSED.id, "--reason", "mislabelled rows").exit_code == 2, "nobody named"
    done = busy.run("verdict", "override", REFUSED.id, "--by", "Ada", "--reason", "mislabelled rows")
    assert "on Ada's word" in done.stdout
    [overriding] = [v for v in busy.state.find(Verdict) if v.override_by]
    assert (overriding.override_by, overriding.override_reason) == ("Ada", "mislabelled rows")
    assert "overridden by Ada" in busy.run("verdict", "show", overriding.id).stdout


def test_the_audit_trail_is_shown_and_verified(busy: Shop) -> None:
    shown = busy.json("audit", "show", "--limit", "2")
    assert [event["sequence"] for event in shown] == [6, 7]
    assert "project.applied" in busy.run("audit", "show").stdout
    assert busy.run("audit", "verify").stdout.startswith("7 events, unbroken")
    verified = busy.json("audit", "verify")
    assert (verified["verified"], verified["events"], verified["head"]) == (True, 7, shown[-1]["hash"])


def test_a_trail_that_somebody_altered_fails_with_the_place(busy: Shop) -> None:
    with sqlite3.connect(busy.root / ".noria" / "state.db") as db:
        db.execute("UPDATE audit SET actor = 'eve' WHERE sequence = 3")
    db.close()
    done = busy.run("audit", "verify")
    assert done.exit_code == 1
    assert done.stdout == "BROKEN at event 3: event 3 was altered\n"
    assert busy.json("audit", "verify")["broken"]["sequence"] == 3


def record(number: int, **more: Any) -> dict[str, Any]:
    return {
        "databricks_request_id": f"{number:032x}",
        "request_date": datetime(2026, 11, 23, tzinfo=UTC).date(),
        "request_time": datetime(2026, 11, 23, 14, number, tzinfo=UTC),
        "endpoint": "triage",
        "outcome": "answered",
        "status_code": 200,
        "request": f'{{"input": "message {number}"}}',
        "metadata": [("product", "app")],
        **more,
    }


@pytest.fixture
def logged(shop: Shop) -> Shop:
    """The shop with three requests in its table."""
    rows = [record(1), record(2, endpoint="other"), record(3, request="\x1b[2Jgotcha")]
    table = pa.Table.from_pylist(rows, schema=INFERENCE)
    bootstrap.records(bootstrap.settings(shop.root)).append("inference", table, "spool", 1)
    return shop


def test_tail_shows_the_newest_last(logged: Shop) -> None:
    assert [row["request_time"][14:16] for row in logged.json("records", "tail", "-n", "2")] == ["02", "03"]
    assert len(logged.json("records", "tail", "--endpoint", "triage")) == 2


def test_what_a_caller_wrote_cannot_steer_the_terminal(logged: Shop) -> None:
    shown = logged.run("records", "tail").stdout
    assert "gotcha" in shown
    assert "\x1b" not in shown


def test_tail_of_an_unknown_endpoint_is_no_sql(logged: Shop) -> None:
    logged.refuses(UnknownEndpoint, "records", "tail", "--endpoint", "' OR 1=1 --")


def test_sql_is_answered_in_a_table_and_in_json(logged: Shop) -> None:
    sql = "SELECT endpoint, count(*) AS n FROM inference GROUP BY endpoint ORDER BY endpoint"
    assert logged.json("records", "query", sql) == [{"endpoint": "other", "n": 1}, {"endpoint": "triage", "n": 2}]
    assert logged.run("records", "query", sql).stdout.splitlines()[0].split() == ["endpoint", "n"]


def test_a_long_answer_is_cut_and_says_so(logged: Shop) -> None:
    done = logged.run("records", "query", "SELECT outcome FROM inference", "--limit", "1")
    assert len(done.stdout.splitlines()) == 2
    assert "1 of 3 rows; --limit 3 shows all." in done.stderr


def test_two_columns_of_one_name_are_refused(logged: Shop) -> None:
    sql = "SELECT a.outcome, b.outcome FROM inference a JOIN inference b USING (databricks_request_id)"
    logged.refuses(InvalidRequest, "records", "query", sql)


def test_an_empty_log_is_said_so(shop: Shop) -> None:
    assert shop.run("records", "tail").stdout == "There are no such rows.\n"


@pytest.fixture
def registry(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    fake = FakeRegistry(tmp_path / "registry", StoppedClock())
    monkeypatch.setattr(bootstrap, "registry", lambda _settings: fake)
    return fake


def with_language_model(shop: Shop) -> None:
    file = shop.root / "noria.yaml"
    head, _, rest = file.read_text().partition("#  assistant:")
    file.write_text(head + "  assistant:" + rest.replace("\n#", "\n"))


def test_models_are_listed_with_their_aliases(shop: Shop, registry: FakeRegistry) -> None:
    assert "No version is registered yet" in shop.run("model", "list").stdout
    version = registry.register(registry.log_model("r1", {"m": b"1"}), "triage", {})
    registry.log_metrics(version, {"accuracy": 0.8125})
    registry.set_alias("triage", Alias.CHAMPION, "1")
    [shown] = shop.json("model", "list")
    assert (shown["endpoint"], shown["version"], shown["aliases"]) == ("triage", "1", ["champion"])
    assert "accuracy=0.812" in shop.run("model", "list").stdout


def test_a_model_file_becomes_a_candidate(shop: Shop, registry: FakeRegistry, tmp_path: Path) -> None:
    with_language_model(shop)
    file = tmp_path / "new.gguf"
    file.write_bytes(b"GGUF and more")
    words = ("model", "add", "assistant", str(file), "--licence", "MIT", "--source", "our own", "--by", "ada")
    assert "assistant/1 is registered" in shop.run(*words).stdout
    [event] = [e for e in shop.state.pending_events() if isinstance(e, CandidateRegistered)]
    assert (event.endpoint, event.version) == ("assistant", "1")
    assert list(shop.state.audit_trail())[-1].evidence["licence"] == "MIT"


def test_what_is_no_model_file_is_refused(shop: Shop, registry: FakeRegistry) -> None:
    with_language_model(shop)
    more = ("--licence", "MIT", "--source", "x")
    text = str(shop.root / "noria.yaml")
    assert "nothing that can be served" in shop.refuses(InvalidData, "model", "add", "assistant", text, *more)
    assert "neither a path nor" in shop.refuses(InvalidData, "model", "add", "triage", "azure:gpt-4o", *more)
    assert "Trust is a person's" in shop.refuses(Refused, "model", "add", "triage", text, *more, "--trust")


def test_a_card_is_shown_without_its_front_matter(shop: Shop, registry: FakeRegistry) -> None:
    card = b"---\nlicense: mit\n---\n# Card of triage\n\nFor sorting.\n"
    registry.register(registry.log_model("r1", {"m": b"1"}, {"card/README.md": card}), "triage", {})
    registry.set_alias("triage", Alias.CHAMPION, "1")
    shown = shop.run("card", "show", "triage").stdout
    assert "Card of triage" in shown
    assert "license" not in shown
    assert "license: mit" in shop.run("card", "show", "triage", "--raw").stdout


def test_up_takes_the_file_into_service_once_and_later_only_mentions_its_changes(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    file = shop.root / "noria.yaml"
    assert _to_bring_up(shop.root).project.project == "shop"
    applied = shop.state.get(AppliedProject, "project")
    assert applied is not None
    file.write_text(file.read_text().replace("window: 5m", "window: 10m"))
    assert _to_bring_up(shop.root).project.endpoints["triage"].monitors.window.total_seconds() == 300
    assert "`noria apply` takes the changes into service" in capsys.readouterr().err
    file.write_text("project: [")
    assert _to_bring_up(shop.root).project.project == "shop"
    assert "noria.yaml:1" in capsys.readouterr().err
    assert shop.state.get(AppliedProject, "project") == applied


def test_a_first_up_refuses_a_project_whose_files_are_missing(shop: Shop) -> None:
    (shop.root / "data" / "messages.csv").unlink()
    assert "there is no file data/messages.csv" in shop.refuses(InvalidProject, "up", "--port", "0")
    assert shop.state.get(AppliedProject, "project") is None
