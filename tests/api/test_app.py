"""What surrounds inference: probes, the list of addresses, who may ask, and how light the process is."""

import json
import subprocess
import sys

import pytest

from fakes.site import running
from fakes.upstream import Script, Step, labels, talker
from noria.api.problems import STATUS, explain, status_of
from noria.domain import errors
from noria.domain.errors import NoriaError
from noria.serving.wires import Form


@pytest.fixture
async def site(tmp_path):
    async with running(tmp_path, labels, talker("hi")) as made:
        yield made


async def test_a_site_whose_endpoints_all_answer_is_ready(site):
    status, body, _ = await site.get("/readyz")
    assert (status, json.loads(body)["status"]) == (200, "ready")


async def test_an_endpoint_without_a_version_makes_the_site_unready_and_is_named(tmp_path):
    async with running(tmp_path, labels) as site:
        status, body, headers = await site.get("/readyz")
        said = json.loads(body)
        assert (status, said["error_code"], headers["retry-after"]) == (503, "not_ready", "1")
        assert said["problems"] == ["No version of assistant is in service yet."]
        assert said["detail"] == "No version of assistant is in service yet."


async def test_a_model_server_that_does_not_answer_makes_the_site_unready(site, tmp_path):
    for socket in tmp_path.glob("*.sock"):
        socket.unlink()
    status, body, _ = await site.get("/readyz")
    assert status == 503
    assert "The model server of triage's champion triage/1 does not answer." in json.loads(body)["problems"]
    assert (await site.get("/ping"))[:2] == (404, b"\n")


async def test_mlflows_probes_are_answered_as_mlflow_does(site):
    assert (await site.get("/ping"))[:2] == (200, b"\n")
    assert (await site.get("/health"))[:2] == (200, b"\n")
    status, body, _ = await site.get("/version")
    assert (status, body.count(b".") >= 2) == (200, True)


async def test_the_process_says_that_it_lives_what_it_counts_and_how_the_loop_is(site):
    await site.post("/predict", {"input": "a"})
    assert (await site.get("/livez"))[0] == 200
    status, body, headers = await site.get("/metrics")
    assert (status, headers["content-type"].startswith("text/plain")) == (200, True)
    assert b'outcome="answered",route="champion",status="200"' in body
    status, body, _ = await site.get("/api/status")
    assert [e["name"] for e in json.loads(body)["endpoints"]] == ["triage", "assistant"]
    status, body, headers = await site.get("/")
    assert (status, headers["content-type"].startswith("text/html")) == (200, True)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/ping", "/", "/nope", "/v1/models", "/predict"])
async def test_every_response_has_a_request_id(site, path):
    ids = {(await site.get(path))[2]["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(len(i) == 32 for i in ids)


async def test_an_address_that_nobody_knows_is_a_problem_in_json(site):
    status, body, _ = await site.get("/nope")
    assert (status, json.loads(body)["error_code"]) == (404, "not_found")
    async with site.http.delete(site.url + "/livez") as response:
        assert (response.status, "GET" in response.headers["allow"]) == (405, True)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8480", "127.0.0.1.evil.example", "[::2]", "["])
async def test_a_name_that_was_made_to_point_here_is_refused(site, host):
    status, body, _ = await site.get("/api/status", headers={"host": host})
    assert (status, json.loads(body)["error_code"]) == (403, "forbidden_origin")


@pytest.mark.parametrize("host", ["localhost", "localhost:8480", "127.0.0.1:1", "127.9.9.9", "[::1]:8480"])
async def test_names_of_loopback_are_taken(site, host):
    assert (await site.get("/livez", headers={"host": host}))[0] == 200


async def test_another_sites_page_may_not_ask_from_a_browser(site):
    status, _, _ = await site.post("/predict", {"input": "a"}, headers={"origin": "https://evil.example"})
    assert status == 403
    status, _, _ = await site.post("/predict", {"input": "a"}, headers={"origin": site.url})
    assert status == 200


def test_every_error_of_the_domain_has_a_status():
    for kind in every(NoriaError):
        assert 400 <= status_of(kind("x")) < 600
    assert status_of(errors.UpstreamTimeout("x")) == 504
    assert status_of(errors.Refused("x")) == 409
    assert status_of(errors.StorageCorrupted("x")) == 500
    assert set(STATUS.values()) >= {400, 404, 413, 415, 502, 503, 504}


def test_errors_are_told_in_the_callers_own_shape():
    error = errors.InvalidRequest("`input` is missing.", "Send it.")
    ours = {"error_code": "invalid_request", "message": "`input` is missing.", "remedy": "Send it."}
    assert explain(error, Form.PREDICT) == (400, json.dumps(ours, separators=(",", ":")).encode())
    openai = json.loads(explain(error, Form.CHAT)[1])["error"]
    assert openai["message"] == "`input` is missing. Send it."
    assert openai["type"] == "invalid_request_error"
    assert json.loads(explain(errors.UpstreamFailed("x"), Form.CHAT)[1])["error"]["type"] == "server_error"


def test_an_api_process_stays_light():
    heavy = "mlflow", "pandas", "torch", "sklearn", "pyarrow", "numpy", "scipy", "deltalake", "altair", "dbos", "httpx2"
    heavy += "opentelemetry", "google.protobuf", "requests"
    code = (
        f"import sys, noria.api.__main__, noria.adapters.spool.writer; print([m for m in {heavy} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def every(kind: type) -> list[type]:
    return [kind, *(found for below in kind.__subclasses__() for found in every(below))]


async def test_the_metrics_show_breakers_streams_and_why_requests_failed(tmp_path):
    hello = [{"role": "user", "content": "hello"}]
    async with running(tmp_path, lambda _: Script(before=Step.CUT), talker("hi")) as site:
        for _ in range(6):
            await site.post("/predict", {"input": "a"})
        streamed = {"model": "assistant", "stream": True, "messages": hello}
        async with site.http.post(site.url + "/v1/chat/completions", json=streamed) as response:
            assert (await response.read()).endswith(b"[DONE]\n\n")
        _, body, _ = await site.get("/metrics")
    shown = {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in body.decode().splitlines()}
    for model in ("triage", "assistant"):
        assert shown[f'noria_breaker_state{{model="{model}",state="closed",version="1"}}'] == "1.0"
    assert shown["noria_streams_in_flight"] == "0.0"
    assert float(shown['noria_errors_total{code="upstream_failed",endpoint="triage"}']) >= 5
    assert any(name.startswith('noria_time_to_first_token_seconds_count{endpoint="assistant"') for name in shown)
