"""A share of the traces in MLflow, read back with MLflow's own client."""

import json
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from fakes.entries import intent, outcome
from noria.adapters.registry.client import connect
from noria.adapters.registry.mlflow import MlflowRegistry
from noria.adapters.telemetry import mlflow_traces
from noria.adapters.telemetry.exports import telemetry
from noria.domain.inference import OutcomeKind
from noria.projectfile import parse_project

YAML = """
project: shop
telemetry: {{mlflow_sample: {share}}}
mlflow: {{tracking_uri: "{uri}"}}
endpoints:
  assistant: {{task: chat, policy: p.yaml, gguf: {{gguf: m.gguf, licence: MIT, source: here}}}}
"""
ASKED = b'{"model": "assistant", "messages": [{"role": "user", "content": "gr\xc3\xbc\xc3\x9f dich"}]}'
SAID = b'{"id": "c1", "model": "m", "choices": [{"finish_reason": "stop", "message": {"content": "hello"}}]}'


def record(n: int, trace: str = "", **changes):
    fields = {"endpoint": "assistant", "model": "assistant", "request": ASKED, "metadata": {"conversation": "c7"}}
    ended = {"response": SAID, "input_tokens": 5, "output_tokens": 3, "cost_usd": 0.25, "duration_us": 250_000}
    begun = intent(n, **fields, trace_id=trace or f"{n:032x}", span_id=f"{n + 1:016x}", parent_span_id="f" * 16)
    return n, begun, outcome(n, **(ended | changes))


def told(tmp_path, uri: str = "", share: float = 1.0):
    uri = uri or f"sqlite:///{tmp_path / 'm.db'}"
    settings = parse_project(YAML.format(share=share, uri=uri), tmp_path)
    registry = MlflowRegistry(settings.tracking_uri, settings.artifacts_dir, settings.experiment)
    return telemetry(settings, registry.prepare), connect(uri)


def ended(one, count: int) -> None:
    """Wait until something became of so many records: what is on its way when it is closed may take longer."""
    deadline = time.monotonic() + 60
    while sum((one.status()["mlflow"].sent, one.status()["mlflow"].dropped)) != count:
        assert time.monotonic() < deadline, one.status()
        time.sleep(0.02)


def check(trace) -> None:
    """Everything that a person looks for is there."""
    begun = record(7)[1]
    assert (trace.info.state.value, trace.info.execution_duration) == ("OK", 250)
    assert trace.info.request_time == begun.received_us // 1000
    assert trace.info.tags["noria.request_id"] == begun.request_id
    assert trace.info.tags["noria.model_version"] == "assistant/1"
    assert trace.info.token_usage == {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}
    assert trace.info.trace_metadata["mlflow.trace.session"] == "c7"
    (span,) = trace.data.spans
    assert (span.name, span.span_type, span.parent_id) == ("chat assistant", "CHAT_MODEL", None)
    assert span.inputs["messages"][0]["content"] == "grüß dich"
    assert span.outputs == json.loads(SAID)
    assert span.attributes["gen_ai.usage.output_tokens"] == 3
    assert (span.start_time_ns, span.end_time_ns - span.start_time_ns) == (begun.received_us * 1000, 250_000_000)


def test_a_record_is_a_trace_that_its_request_id_leads_to(tmp_path):
    one, client = told(tmp_path)
    one.shipped([record(7), record(8, kind=OutcomeKind.FAILED, status=502, response=b"no json")])
    one.close()
    ended(one, 2)
    assert one.problems == ()
    assert one.status()["mlflow"].sent == 2
    check(client.get_trace("tr-" + record(7)[1].request_id))
    failed = client.get_trace("tr-" + record(8)[1].request_id)
    assert (failed.info.state.value, failed.data.spans[0].outputs) == ("ERROR", "no json")
    experiment = client.get_experiment_by_name("shop").experiment_id
    found = client.search_traces(locations=[experiment], filter_string="tags.`noria.outcome` = 'failed'")
    assert [trace.info.trace_id for trace in found] == [failed.info.trace_id]


def test_a_trace_that_is_stored_again_is_the_same(tmp_path):
    for _ in range(2):
        one, client = told(tmp_path)
        one.shipped([record(7)])
        one.close()
        ended(one, 1)
    experiment = client.get_experiment_by_name("shop").experiment_id
    (trace,) = client.search_traces(locations=[experiment])
    check(trace)


def test_the_trace_alone_says_whether_mlflow_gets_it(tmp_path):
    one, client = told(tmp_path, share=0.5)
    one.shipped([record(1, "f" * 16 + "0" * 15 + "1"), record(2, "0" * 16 + "f" * 16)])
    one.close()
    ended(one, 1)
    experiment = client.get_experiment_by_name("shop").experiment_id
    assert [t.info.trace_id for t in client.search_traces(locations=[experiment])] == ["tr-" + f"{1:032x}"]


def test_mlflow_never_gets_more_than_it_can_take(tmp_path):
    one, _ = told(tmp_path)
    one.shipped([record(n) for n in range(1000)])
    now = one.status()["mlflow"]
    assert now.dropped >= 1000 - mlflow_traces.WAITING - 2 * mlflow_traces.RATE
    one.close()
    ended(one, 1000)


def test_an_mlflow_that_is_gone_is_a_problem_and_nothing_more(tmp_path):
    one, _ = told(tmp_path, "http://ada:s3cret@127.0.0.1:9")
    one.shipped([record(1)])
    deadline = time.monotonic() + 60
    while not one.problems and time.monotonic() < deadline:
        time.sleep(0.02)
    assert one.problems[0].startswith("mlflow takes no traces: ")
    assert "s3cret" not in one.problems[0]
    one.close()


def test_databricks_is_told_where_its_traces_go(tmp_path):
    said = mlflow_traces.MlflowTraces("databricks", lambda: "1", None, None).send([record(1)[1:]])
    assert "telemetry.otlp" in said


@pytest.mark.slow
def test_a_tracking_server_takes_traces_too(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 's.db'}", "--artifacts-destination", str(tmp_path / "a")]
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path)
    try:
        uri, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while not alive(uri):
            assert server.poll() is None, (tmp_path / "server.log").read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        one, client = told(tmp_path, uri)
        one.shipped([record(7)])
        while one.status()["mlflow"].waiting or not (one.status()["mlflow"].sent or one.problems):
            time.sleep(0.05)
        one.close()
        assert one.problems == ()
        check(client.get_trace("tr-" + record(7)[1].request_id))
    finally:
        server.terminate()
        server.wait(30)


def alive(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False
