"""`noria label` and `noria dataset`, over the log as it lies on disk."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fakes.entries import intent, outcome
from noria import bootstrap
from noria.adapters.spool.writer import SqliteSpool
from noria.cli import app
from noria.domain.errors import InvalidData, InvalidRequest, UnknownEndpoint


def run(root: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["--project", str(root), *words])


@pytest.fixture
def logged(project: Path) -> Path:
    settings = bootstrap.settings(project)

    async def append() -> None:
        spool = SqliteSpool(settings.spool_dir, "api-0")
        for n, sure in ((1, 0.99), (2, 0.51)):
            said = {"predictions": ["good"], "probabilities": [{"good": sure, "bad": 1 - sure}]}
            asked = json.dumps({"input": f"text number {n}"}).encode()
            for entry in (intent(n, request=asked), outcome(n, response=json.dumps(said).encode())):
                await spool.append(entry)
        spool.close()

    asyncio.run(append())
    return project


def asked_next(root: Path, endpoint: str) -> list[dict[str, object]]:
    done = run(root, "label", "next", endpoint, "--json")
    assert done.exit_code == 0, done.output
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def test_the_least_sure_record_is_asked_first_and_not_again_once_it_has_a_label(logged: Path) -> None:
    endpoint = intent(1).endpoint
    first, second = asked_next(logged, endpoint)
    assert (first["text"], second["text"]) == ("text number 2", "text number 1")
    given = run(logged, "label", "give", str(first["request_id"]), "bad", "--endpoint", endpoint, "--by", "ann")
    assert given.exit_code == 0, given.output
    assert [one["text"] for one in asked_next(logged, endpoint)] == ["text number 1"]
    assert "text number 1" in run(logged, "label", "next", endpoint).stdout


def test_strangers_and_ids_that_are_none_are_refused(logged: Path) -> None:
    assert isinstance(run(logged, "label", "next", "nobody").exception, UnknownEndpoint)
    assert isinstance(run(logged, "label", "give", "xyz", "bad", "--by", "ann").exception, InvalidRequest)


def test_an_endpoint_without_a_dataset_says_what_to_do(project: Path) -> None:
    done = run(project, "dataset", "export", intent(1).endpoint, str(project / "rows.jsonl"))
    assert isinstance(done.exception, InvalidData)
    assert not (project / "rows.jsonl").exists()
