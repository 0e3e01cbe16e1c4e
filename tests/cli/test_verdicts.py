"""What the command line shows of verdicts that wait for people, and what those may do."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fakes.story import PASSED, REFUSED, tell
from noria import bootstrap
from noria.adapters.state.sql import SqlState
from noria.cli import app
from noria.cli.status import look
from noria.domain.approval import Approval, ApprovalState
from noria.domain.endpoint import Route
from noria.domain.errors import NoriaError
from noria.domain.events import GatePassed
from noria.release.account import keep
from noria.release.approvals import asked
from noria.settings import ApprovalRule

ID = "triage-4-ab12"


class Shop:
    def __init__(self, root: Path, state: SqlState) -> None:
        self.root, self.state = root, state

    def run(self, *words: str) -> Result:
        return CliRunner(env={"COLUMNS": "400"}).invoke(app, ["--project", str(self.root), *words])

    def verdict(self, *words: str) -> Result:
        done = self.run("verdict", *words)
        assert done.exception is None, done.output
        return done

    def refuses(self, *words: str) -> str:
        done = self.run("verdict", *words)
        assert isinstance(done.exception, NoriaError), done.output
        return done.exception.problem

    @property
    def told(self) -> bool:
        return GatePassed(endpoint="triage", verdict_id=ID) in self.state.pending_events()

    def json(self, *words: str) -> Any:
        return json.loads(self.verdict(*words, "--json").stdout)


@pytest.fixture
def shop(project: Path):
    state = bootstrap.state(bootstrap.settings(project))
    tell(state)
    bootstrap.apply(state, bootstrap.settings(project), (project / "noria.yaml").read_text(), "ada", "start")
    route = state.get(Route, "triage")
    assert route is not None
    verdict = replace(
        PASSED,
        id=ID,
        version="4",
        champion=route.champion.ref,
        decided_at=bootstrap.clock().now(),
        needs_approval=True,
    )
    approval = asked(verdict, ApprovalRule(people=("ada", "bob", "grace")), ("bob",))
    keep(state, verdict, "noria", "verdict.passed", "all gates passed", approval)
    yield Shop(project, state)
    state.close()


def test_the_list_says_what_waits_and_for_whom(shop: Shop) -> None:
    [waiting] = shop.json("list", "--waiting")
    assert (waiting["id"], waiting["standing"], waiting["approval"]["whom"]) == (ID, "waiting", "ada or grace")
    assert {v["id"]: v["standing"] for v in shop.json("list")} == {
        ID: "waiting", PASSED.id: "passed", REFUSED.id: "refused"
    }  # fmt: skip
    assert "waits for approval by ada or grace until" in shop.verdict("list", "--endpoint", "triage").stdout


def test_a_waiting_verdict_shows_whom_it_waits_for_and_how_to_decide(shop: Shop) -> None:
    said = shop.verdict("show", ID).stdout
    assert "it waits for approval by ada or grace until" in said
    assert "asked for by bob" in said
    assert f"noria verdict approve {ID} --by NAME --reason TEXT" in said


def test_a_named_person_approves_and_the_loop_is_told(shop: Shop) -> None:
    assert not shop.told
    assert "approved by ada" in shop.verdict("approve", ID, "--by", "ada", "--reason", "the numbers hold").stdout
    assert shop.told
    assert "approved by ada: the numbers hold" in shop.verdict("show", ID).stdout
    trail = shop.run("audit", "show", "--json").stdout
    assert '"approval.given"' in trail
    assert "waits for nobody" in shop.refuses("approve", ID, "--by", "grace", "--reason", "again")
    assert "No verdict waits" in shop.verdict("list", "--waiting").stdout


@pytest.mark.parametrize(
    ("by", "says"), [("bob", "wants a second person"), ("mallory", "may not decide"), (" ", "a person and a reason")]
)
def test_nobody_else_does(shop: Shop, by: str, says: str) -> None:
    assert says in shop.refuses("approve", ID, "--by", by, "--reason", "fine")
    kept = shop.state.get(Approval, ID)
    assert kept is not None
    assert kept.waits
    assert not shop.told


def test_a_named_person_refuses(shop: Shop) -> None:
    assert "gets no traffic" in shop.verdict("refuse", ID, "--by", "grace", "--reason", "wrong tone").stdout
    kept = shop.state.get(Approval, ID)
    assert kept is not None
    assert (kept.state, kept.by) == (ApprovalState.REFUSED, "grace")
    assert not shop.told
    assert "refused by grace: wrong tone" in shop.verdict("show", ID).stdout


def test_who_decides_has_to_be_said(shop: Shop) -> None:
    for command in ("approve", "refuse"):
        assert shop.run("verdict", command, ID, "--reason", "fine").exit_code == 2


def test_the_id_has_to_be_the_verdicts_own(shop: Shop) -> None:
    assert "no verdict triage" in shop.refuses("approve", "triage", "--by", "ada", "--reason", "fine")
    assert "Nobody is asked" in shop.refuses("approve", PASSED.id, "--by", "ada", "--reason", "fine")


def test_the_status_shows_that_it_waits_and_for_whom(shop: Shop) -> None:
    newest = look(bootstrap.settings(shop.root), shop.state)["verdicts"][0]
    assert (newest["standing"], newest["approval"]["whom"]) == ("waiting", "ada or grace")
    done = shop.run("status")
    assert done.exception is None
    assert "waiting" in done.stdout
    assert "waits for approval by ada or grace" in " ".join(done.stdout.split())
