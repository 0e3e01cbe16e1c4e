"""The description at `/openapi.json` says what is served, and schemathesis finds nothing that contradicts it."""

import asyncio
import json

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from fakes.site import running
from fakes.upstream import chat, completion, events, reply
from noria.api.addresses import ADDRESSES

EXAMPLES = 12
"""Cases for each operation, endpoint and way of making them."""
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
NAMES = ("triage", "assistant")


def predicts(asked):
    """A model that takes any of MLflow's formats, and has a prediction for each row."""
    if asked.headers["content-type"].startswith("text/csv"):
        return reply({"predictions": ["a"]})
    body = asked.json
    given = next(body[key] for key in ("dataframe_split", "dataframe_records", "instances", "inputs") if key in body)
    rows = given["data"] if "dataframe_split" in body else given
    return reply({"predictions": ["a"] * len(rows)})


def chats(asked):
    """A model that answers whatever OpenAI's wire asks."""
    if asked.path == "/v1/embeddings":
        return reply(
            {"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]}
        )
    if asked.json.get("stream"):
        return events(*chat("hi"))
    return reply(completion("hi"))


@pytest.fixture
async def site(tmp_path):
    async with running(tmp_path, predicts, chats) as made:
        yield made


async def described(site) -> dict:
    status, body, headers = await site.get("/openapi.json")
    assert (status, headers["content-type"]) == (200, "application/json")
    return json.loads(body)


async def test_everything_that_routes_is_described_and_nothing_else(site):
    document = await described(site)
    pages = {path.replace(":path}", "}") for path in site.app.addresses if path == "/" or path[-1] != "/"}
    assert set(document["paths"]) == pages | {a.path for a in ADDRESSES} | {"/feedback"}
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))


async def test_the_description_is_valid_and_names_no_endpoint(site):
    document = await described(site)
    schemathesis.openapi.from_dict(document).validate()
    assert not any(f'"{name}"' in json.dumps(document) for name in NAMES)


async def test_probes_need_no_key_and_all_else_may(site):
    document = await described(site)
    free = {path for path, item in document["paths"].items() if next(iter(item.values())).get("security") == [{}]}
    assert free == {"/livez", "/readyz", "/ping", "/health", "/version"}
    assert set(document["components"]["securitySchemes"]) == {"bearer", "apiKey", "xApiKey"}


def explore(schema, operation, mode: GenerationMode, name: str, tried: list[int]) -> None:
    """Put many requests of one kind to an operation, and check every answer."""
    fixed = {"path_parameters": {"endpoint": name}} if "{endpoint}" in operation.path and name else {}

    @seed(1)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode, **fixed))
    def ask(case) -> None:
        if name and isinstance(case.body, dict) and "{endpoint}" not in operation.path and "/v1/" in operation.path:
            case.body = {**case.body, "model": name}
        response = case.call()
        tried.append(response.status_code)
        assert response.status_code < 500, f"{case.as_curl_command()}\n{response.text}"
        case.validate_response(response, checks=CHECKS)

    ask()


@pytest.mark.slow
async def test_schemathesis_finds_no_fault_of_ours_and_no_answer_that_is_not_described(site):
    def run() -> list[int]:
        schema = schemathesis.openapi.from_url(f"{site.url}/openapi.json")
        tried: list[int] = []
        for result in schema.get_all_operations():
            operation = result.ok()
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)[: 1 + (operation.method == "post")]:
                for name in (*NAMES, "") if operation.method == "post" else ("",):
                    explore(schema, operation, mode, name, tried)
        return tried

    tried = await asyncio.to_thread(run)
    assert {200, 400, 404} <= set(tried)
    assert tried.count(200) > 150
    assert len(site.endings) == len(site.intents)
