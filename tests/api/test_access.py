"""A line for each request, if the project wants it, and in it nothing that was sent."""

import json
import logging

import pytest

from fakes.site import running, until
from fakes.story import PROJECT
from fakes.upstream import labels, talker
from noria.adapters.logs import JsonLines

ON = PROJECT.model_copy(update={"server": PROJECT.server.model_copy(update={"access_log": True})})
SECRET = "s3cret-of-a-caller"


@pytest.fixture
def lines(caplog):
    """The lines so far, as they are written."""
    caplog.set_level(logging.INFO, "noria.access")

    def read() -> list[dict]:
        return [json.loads(JsonLines().format(r)) for r in caplog.records if r.name == "noria.access"]

    return read


async def test_each_request_leaves_a_line_that_names_its_record(tmp_path, lines):
    async with running(tmp_path, labels, talker("hi"), ON) as site:
        await site.post(f"/predict/triage?token={SECRET}", {"input": SECRET}, headers={"x-token": SECRET})
        await site.post(
            "/openai/deployments/assistant/chat/completions", {"messages": [{"role": "user", "content": SECRET}]}
        )
        await site.get("/runs/some-run")
        await site.get(f"/nope/{SECRET}")
        await site.post(f"/predict/{SECRET}%0a..%2f", {"input": "a"})
        await until(lambda: len(lines()) == 5)
    predicted, chatted, page, unknown, trick = lines()
    shown = [predicted[key] for key in ("method", "path", "endpoint", "version", "status", "level")]
    assert shown == ["POST", "/predict/{endpoint}", "triage", "triage/1", 200, "info"]
    assert predicted["request_id"] == site.intents[0].request_id
    assert predicted["ms"] > 0
    assert (chatted["path"], chatted["endpoint"]) == ("/openai/deployments/{endpoint}/chat/completions", "assistant")
    assert (page["path"], page["status"]) == ("/runs/{id:path}", 404)
    assert (unknown["path"], unknown["status"]) == ("other", 404)
    assert (trick["endpoint"], trick["status"]) == ("", 404)
    assert SECRET not in json.dumps(lines())


async def test_without_the_setting_there_is_no_line(tmp_path, lines):
    async with running(tmp_path, labels) as site:
        await site.post("/predict", {"input": "a"})
    assert lines() == []
