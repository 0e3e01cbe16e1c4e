"""`noria key`: what a person sees of keys, and what only the one who makes one sees."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from noria import bootstrap
from noria.cli import app
from noria.domain.errors import Conflict, InvalidRequest, UnknownEndpoint, UnknownKey
from noria.domain.key import ApiKey, digest


def run(project: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["--project", str(project), "key", *words])


def listed(project: Path) -> list[dict[str, Any]]:
    return json.loads(run(project, "list", "--json").stdout)


def test_a_token_is_printed_once_and_alone_on_standard_output(project: Path) -> None:
    made = run(project, "create", "shop", "--by", "ada")
    token = made.stdout.strip()
    assert token.startswith("sk-noria-")
    assert "the only time" in made.stderr
    assert "from now on every request needs one" in made.stderr
    [key] = bootstrap.state(bootstrap.settings(project)).find(ApiKey)
    assert (key.hash, key.created_by) == (digest(token), "ada")
    assert token not in run(project, "list").output
    assert key.hash not in run(project, "list", "--json").output
    assert "from now on" not in run(project, "create", "other").stderr


def test_what_a_key_may_do_is_said_and_shown(project: Path) -> None:
    words = ("--endpoint", "triage", "--role", "viewer", "--role", "client", "--expires", "30d")
    limits = ("--requests-per-minute", "60", "--tokens-per-minute", "1000", "--usd-per-day", "2.5")
    made = json.loads(run(project, "create", "shop", *words, *limits, "--json").stdout)
    [shown] = listed(project)
    assert {**shown, "token": made["token"]} == {**made, "usd_today": 0.0}
    assert (shown["state"], shown["endpoints"], shown["roles"]) == ("active", ["triage"], ["viewer", "client"])
    assert shown["limits"] == {"requests_per_minute": 60, "tokens_per_minute": 1000, "usd_per_day": 2.5}
    assert shown["expires_at"] > shown["created_at"]
    table = run(project, "list").output
    assert all(word in table for word in ("shop", "active", "triage", "viewer, client", "requests_per_minute=60"))


def test_a_revoked_key_stays_in_the_list(project: Path) -> None:
    run(project, "create", "shop")
    assert "revoked shop (key-" in run(project, "revoke", "shop", "--reason", "leaked").output
    assert [key["state"] for key in listed(project)] == ["revoked"]
    run(project, "create", "shop")
    assert [key["state"] for key in listed(project)] == ["revoked", "active"]


def test_before_the_first_key_the_list_says_who_may_ask(project: Path) -> None:
    assert "only this machine can ask" in run(project, "list").output
    assert listed(project) == []


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (UnknownEndpoint, ("create", "a", "--endpoint", "nope")),
        (InvalidRequest, ("create", "a b")),
        (InvalidRequest, ("create", "a", "--expires", "soon")),
        (InvalidRequest, ("create", "a", "--usd-per-day", "0")),
        (InvalidRequest, ("create", "a", "--usd-per-day", "nan")),
        (UnknownKey, ("revoke", "nobody", "--reason", "x")),
    ],
)
def test_what_can_not_be_meant_is_refused(project: Path, kind: type[Exception], words: tuple[str, ...]) -> None:
    assert isinstance(run(project, *words).exception, kind)
    assert listed(project) == []


def test_two_keys_in_force_never_share_a_name(project: Path) -> None:
    run(project, "create", "shop")
    assert isinstance(run(project, "create", "shop").exception, Conflict)
