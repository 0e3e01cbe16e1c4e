"""MLflow's own clients work unchanged: scoring, deployments, Databricks' serving, and a table as Parquet."""

import asyncio
import io
import json
import warnings

import pandas as pd
import pytest
import requests
from mlflow.deployments import get_deploy_client

from fakes.site import running
from fakes.upstream import reply, talker
from noria.domain.inference import Outcome

with warnings.catch_warnings():  # MLflow warns of type hints of its own
    warnings.simplefilter("ignore")
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

PARQUET = {"content-type": "application/vnd.apache.parquet"}
CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "min_p": 0.1}


def rows(asked):
    """A classifier over tables: each row's first value, in upper case."""
    frame = asked.json.get("dataframe_split") or {"data": [[item] for item in asked.json["inputs"]]}
    return reply({"predictions": [str(row[0]).upper() for row in frame["data"]]})


@pytest.fixture
async def site(tmp_path):
    async with running(tmp_path, rows, talker("Hel", "lo")) as made:
        yield made


def parquet(**columns) -> bytes:
    file = io.BytesIO()
    pd.DataFrame(columns).to_parquet(file)
    return file.getvalue()


async def test_the_scoring_client_finds_us_alive_and_gets_predictions(site):
    def use() -> list[str]:
        host, _, port = site.url.removeprefix("http://").partition(":")
        client = ScoringServerClient(host, int(port))
        client.wait_server_ready(timeout=10)
        assert client.get_version().count(".") == 2
        return client.invoke(pd.DataFrame({"text": ["good", "bad"]})).get_predictions()[0].tolist()

    assert await asyncio.to_thread(use) == ["GOOD", "BAD"]
    assert site.endings == [("answered", 200)]


async def test_the_deployments_client_lists_endpoints_and_asks_them(site):
    def use() -> None:
        client = get_deploy_client(site.url)
        found = client.list_endpoints()
        assert [(e.name, e.endpoint_type) for e in found] == [
            ("triage", "mlflow/scoring"),
            ("assistant", "llm/v1/chat"),
        ]
        assert client.get_endpoint("triage").endpoint_url == f"{site.url}/endpoints/triage/invocations"
        assert client.predict(endpoint="triage", inputs={"inputs": ["good"]}) == {"predictions": ["GOOD"]}
        said = client.predict(endpoint="assistant", inputs=CHAT)
        assert said["choices"][0]["message"]["content"] == "Hello"
        with pytest.raises(requests.HTTPError, match="exactly one of"):
            client.predict(endpoint="triage", inputs={"nonsense": 1})

    await asyncio.to_thread(use)
    assert site.endings == [("answered", 200), ("answered", 200), ("rejected", 400)]


async def test_the_client_for_databricks_asks_and_streams(site, monkeypatch):
    monkeypatch.setenv("DATABRICKS_HOST", site.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", "unused")
    monkeypatch.setenv("MLFLOW_ENABLE_DB_SDK", "false")

    def use() -> None:
        client = get_deploy_client("databricks")
        ready = {e["name"]: e["state"]["ready"] for e in client.list_endpoints()}
        assert ready == {"triage": "READY", "assistant": "READY"}
        assert client.get_endpoint("triage")["config"]["served_entities"][0]["entity_version"] == "1"
        frame = {"dataframe_split": {"columns": ["text"], "data": [["good"]]}}
        assert client.predict(endpoint="triage", inputs=frame) == {"predictions": ["GOOD"]}
        assert client.predict(endpoint="assistant", inputs=CHAT)["choices"][0]["message"]["content"] == "Hello"
        chunks = list(client.predict_stream(endpoint="assistant", inputs={**CHAT, "stream": True}))
        assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks) == "Hello"

    await asyncio.to_thread(use)
    assert site.endings == [("answered", 200)] * 3
    assert json.loads(site.written(Outcome)[2].response)["choices"][0]["message"]["content"] == "Hello"


@pytest.mark.parametrize("charset", ["utf-16", "latin-1"])
@pytest.mark.parametrize("media", ["application/json", "text/csv"])
async def test_what_is_not_utf8_is_refused_by_its_charset(site, media, charset):
    body = '{"inputs": ["gut"]}' if "json" in media else "text\ngut\n"
    headers = {"content-type": f"{media}; charset={charset}"}
    status, problem, _ = await site.post("/invocations", data=body.encode(charset), headers=headers)
    assert (status, problem["error_code"]) == (415, "unsupported_media")


async def test_a_table_in_parquet_is_read_and_on_record_as_json(site):
    body = parquet(text=["good", "bad"], amount=[1.5, float("nan")], when=pd.to_datetime(["2024-01-02", "2024-01-03"]))
    for path in ("/invocations", "/endpoints/triage/invocations", "/serving-endpoints/triage/invocations"):
        status, answer, _ = await site.post(path, data=body, headers=PARQUET)
        assert (status, answer) == (200, {"predictions": ["GOOD", "BAD"]})
    recorded = json.loads(site.intents[0].request)["dataframe_split"]
    assert recorded["columns"] == ["text", "amount", "when"]
    assert recorded["data"] == [["good", 1.5, "2024-01-02T00:00:00"], ["bad", None, "2024-01-03T00:00:00"]]
    assert site.intents[0].errors == ("converted_from_parquet",)
    assert site.endings == [("answered", 200)] * 3


@pytest.mark.parametrize("body", [b"", b"PAR1", b'{"inputs": ["a"]}', parquet(text=["a"])[:-9]])
async def test_what_only_says_that_it_is_parquet_is_refused_and_on_record(site, body):
    status, problem, _ = await site.post("/invocations", data=body, headers=PARQUET)
    assert (status, problem["error_code"]) == (400, "invalid_request")
    assert "Parquet" in problem["message"]
    assert site.endings == [("rejected", 400)]


async def test_parquet_is_for_models_that_predict(site):
    body = parquet(text=["a"])
    status, problem, _ = await site.post("/predict", data=body, headers=PARQUET)
    assert (status, problem["error_code"]) == (415, "unsupported_media")
    status, problem, _ = await site.post("/endpoints/assistant/invocations", data=body, headers=PARQUET)
    assert (status, problem["error_code"]) == (400, "invalid_request")
