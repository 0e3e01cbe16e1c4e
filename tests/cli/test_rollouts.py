"""What the command line shows of rollouts, and what a person may do with one."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fakes.story import ROLLOUT, tell
from noria import bootstrap
from noria.adapters.state.sql import SqlState
from noria.cli import app
from noria.domain.endpoint import Role
from noria.domain.errors import NoriaError
from noria.domain.inference import Intent, Outcome, OutcomeKind
from noria.domain.rollout import Rollout, Stage
from noria.serving.log import rows


class Shop:
    def __init__(self, root: Path, state: SqlState) -> None:
        self.root, self.state = root, state

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["--project", str(self.root), "rollout", *words])

    def json(self, *words: str) -> Any:
        done = self.run(*words, "--json")
        assert done.exception is None, done.exception
        return json.loads(done.stdout)

    def refuses(self, *words: str) -> str:
        done = self.run(*words)
        assert isinstance(done.exception, NoriaError), done.output
        return done.exception.problem


@pytest.fixture
def shop(project: Path):
    state = bootstrap.state(bootstrap.settings(project))
    tell(state)
    bootstrap.apply(state, bootstrap.settings(project), (project / "noria.yaml").read_text(), "ada", "start")
    yield Shop(project, state)
    state.close()


def test_the_list_says_where_each_rollout_stands_and_why(shop: Shop) -> None:
    [shown] = shop.json("list")
    assert (shown["version"], shown["stage"], shown["weight"], shown["finished"]) == ("3", "canary", 50, False)
    text = shop.run("list", "--endpoint", "triage").stdout
    assert "triage/3" in text
    assert "no evidence against it" in text


def test_a_rollout_is_shown_with_its_guards_and_history(shop: Shop) -> None:
    said = shop.run("show", "triage").stdout
    assert "triage/3 for triage: canary at 50 % of the traffic" in said
    assert "1 of 598 answers failed" in said
    assert "200 shadow answers without a fault" in said
    assert "No shadow answer was compared" in said
    assert shop.json("show", "triage/3")["log_threshold"] == pytest.approx(ROLLOUT.log_threshold)
    assert "There is no rollout nonsense" in shop.refuses("show", "nonsense")


def test_a_rollout_that_is_over_shows_all_that_was_seen(shop: Shop) -> None:
    weighed = {"errors": (3, 500, 9, 200), "feedback": (1, 50, 2, 40)}
    ended = replace(ROLLOUT, weighed=weighed).enter(Stage.PROMOTED, ROLLOUT.changed_at, "as good", weight=100)
    with shop.state.note() as note:
        note.put(ended)
    assert "9 of 200 answers failed" in shop.run("show", "triage").stdout


def test_answers_that_differ_are_read_from_the_log(shop: Shop) -> None:
    settings = bootstrap.settings(shop.root)

    def record(name: str, version: str, role: Role, label: str, of: str = "") -> tuple[int, Intent, Outcome]:
        intent = Intent(
            request_id=name, endpoint="triage", model="triage", version=version, role=role, received_us=10**15,
            request=b'{"input": "hello"}', shadow_of=of,
        )  # fmt: skip
        body = json.dumps({"predictions": [label]}).encode()
        outcome = Outcome(
            request_id=name, kind=OutcomeKind.ANSWERED, status=200, finished_us=10**15, duration_us=9, response=body
        )
        return (1 if of else 2, intent, outcome)

    pair = [record("a1", "1", Role.CHAMPION, "negative"), record("b1", "3", Role.SHADOW, "positive", "a1")]
    bootstrap.records(settings).append("inference", rows.inference("s", pair)[0], "test", 1)
    with shop.state.note() as note:
        note.put(replace(ROLLOUT, compared=10, agreed=9, similarity=9.0, differing=("a1", "gone")))
    assert shop.json("show", "triage")["examples"] == [
        {"request": "a1", "champion": "negative", "candidate": "positive"}
    ]
    assert "90.0% got the same answer" in shop.run("show", "triage").stdout


def test_a_rollout_is_paused_resumed_and_aborted_by_name_and_with_a_reason(shop: Shop) -> None:
    assert "takes a person and a reason" in shop.refuses("pause", "triage", "--reason", " ")
    assert shop.run("pause", "triage", "--by", "ada", "--reason", "look first").exit_code == 0
    assert "canary, paused" in shop.run("show", "triage").stdout
    assert shop.run("resume", "triage", "--by", "ada", "--reason", "fine").exit_code == 0
    assert "isn't paused" in shop.refuses("resume", "triage", "--by", "ada", "--reason", "fine")
    assert "out of the traffic" in shop.run("abort", "triage", "--by", "ada", "--reason", "bad data").stdout
    found = shop.state.get(Rollout, ROLLOUT.id)
    assert found is not None
    assert found.stage is Stage.ROLLED_BACK
    account = [(e.action, e.actor, e.reason) for e in shop.state.audit_trail()][-3:]
    assert account == [
        ("rollout.paused", "ada", "look first"),
        ("rollout.resumed", "ada", "fine"),
        ("rollout.aborted", "ada", "bad data"),
    ]


def test_an_endpoint_that_the_project_has_not_is_named(shop: Shop) -> None:
    assert "no endpoint nowhere" in shop.refuses("pause", "nowhere", "--reason", "x")
    assert isinstance(shop.run("abort", "nowhere", "--reason", "x").exception, NoriaError)


def test_what_a_person_waits_for_loads_no_library_that_it_can_do_without(shop: Shop) -> None:
    shop.state.close()
    look = "import sys; from noria.cli import app; app(sys.argv[1:], standalone_mode=False); print(*sys.modules)"
    words = ["rollout", "abort", "triage", "--reason", "at once", "--project", str(shop.root)]
    done = subprocess.run([sys.executable, "-c", look, *words], capture_output=True, text=True, check=True, timeout=60)
    assert "out of the traffic" in done.stdout
    loaded = set(done.stdout.split())
    assert "noria.release.steering" in loaded
    assert not loaded & {"sqlalchemy", "mlflow", "pandas", "numpy", "pyarrow", "rich", "starlette", "httpx", "aiohttp"}


def test_a_rollback_loads_no_library_that_it_can_do_without(shop: Shop) -> None:
    shop.state.close()
    look = (
        "import sys; from noria.cli import app\n"
        "try: app(sys.argv[1:], standalone_mode=False)\n"
        "finally: print(*sys.modules)"
    )
    words = ["rollback", "triage", "--reason", "at once", "--project", str(shop.root)]
    done = subprocess.run([sys.executable, "-c", look, *words], capture_output=True, text=True, check=False, timeout=60)
    loaded = set(done.stdout.split())
    assert "noria.adapters.hosts.both" in loaded
    assert not loaded & {"sqlalchemy", "mlflow", "pandas", "numpy", "pyarrow", "rich", "starlette", "httpx", "aiohttp"}
