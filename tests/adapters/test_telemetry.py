"""Traces and metrics over OTLP: what a real collector, over real HTTP, gets to hear of records."""

import logging
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Wire
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

from fakes.collector import collecting
from fakes.entries import intent, outcome
from noria.adapters.telemetry import genai, outlet
from noria.adapters.telemetry.exports import telemetry
from noria.adapters.telemetry.genai import Place, Places, attributes
from noria.adapters.telemetry.outlet import Outlet
from noria.domain.endpoint import Role
from noria.domain.inference import OutcomeKind
from noria.projectfile import parse_project

TRACE, SPAN, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
YAML = """
project: shop
telemetry: {{{telemetry}}}
upstreams:
  azure: {{url: "https://shop.openai.azure.com/openai", kind: azure, auth: none}}
  hosted: {{url: "https://api.openai.com/v1", auth: none}}
  lab: {{url: "http://10.0.0.7:8000/v1", auth: none, private: true}}
endpoints:
  triage: {{task: classification, policy: p.yaml, training: {{data: d.csv}}}}
  assistant: {{task: chat, policy: p.yaml, deployment: {{upstream: azure, model: gpt}}}}
  hosted: {{task: chat, policy: p.yaml, deployment: {{upstream: hosted, model: gpt}}}}
  lab: {{task: chat, policy: p.yaml, model: labs, deployment: {{upstream: lab, model: m}}}}
  small: {{task: chat, policy: p.yaml, gguf: {{gguf: m.gguf, licence: MIT, source: here}}}}
  own: {{task: chat, policy: p.yaml, command: {{run: [/opt/vllm, "{{port}}"], licence: MIT, source: here}}}}
"""
CHAT_REQUEST = (
    b'{"model": "assistant", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 7, "temperature": 0.5,'
    b' "top_p": 1, "seed": 3, "stop": "x", "n": 1, "stream": true, "unknown": {"a": [1]}}'
)
CHAT_ANSWER = (
    b'{"id": "chatcmpl-1", "model": "gpt-4o-2024", "choices": [{"index": 0, "finish_reason": "stop", "message":'
    b' {"role": "assistant", "content": "hello"}}], "usage": {}}'
)


def settings(tmp_path, telemetry: str = ""):
    return parse_project(YAML.format(telemetry=telemetry), tmp_path)


def no_experiment() -> str:
    raise AssertionError("MLflow gets nothing")


@pytest.fixture
def places(tmp_path) -> Places:
    return Places(settings(tmp_path).project)


def asked(n: int = 1, **changes):
    """A chat's intent in a trace."""
    fields = {
        "endpoint": "assistant",
        "model": "assistant",
        "request": CHAT_REQUEST,
        "trace_id": TRACE,
        "span_id": SPAN,
        "parent_span_id": PARENT,
    }
    return intent(n, **(fields | changes))


def answered(n: int = 1, **changes):
    fields = {"response": CHAT_ANSWER, "duration_us": 250_000, "ttft_us": 50_000, "input_tokens": 5}
    return outcome(n, **(fields | {"output_tokens": 3, "tries": 2, "cost_usd": 0.001} | changes))


@pytest.fixture
def collector():
    with collecting() as made:
        yield made


@pytest.fixture
def told(tmp_path, collector):
    """Begins to tell a collector; closed before the collector is."""
    opened = []

    def begin(url: str = "", **kwargs):
        opened.append(telemetry(settings(tmp_path, f'otlp: "{url or collector.url}"'), no_experiment, **kwargs))
        return opened[-1]

    yield begin
    for one in opened:
        one.close()


@pytest.fixture
def loud():
    """What reaches the process's own log."""
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    yield heard
    logging.getLogger().removeHandler(handler)


# --- names ---


def test_the_names_are_those_of_the_conventions():
    known = {v for k, v in vars(gen_ai_attributes).items() if k.startswith("GEN_AI_") and isinstance(v, str)}
    ours = {v for v in vars(genai).values() if isinstance(v, str) and v.startswith("gen_ai.")}
    assert ours | set(genai.SETTINGS.values()) <= known
    assert {genai.CHAT, genai.COMPLETION, genai.EMBEDDINGS} <= {
        v.value for v in gen_ai_attributes.GenAiOperationNameValues
    }


def test_who_runs_a_model_is_named_as_the_conventions_name_him(places):
    assert places.of("triage") == Place("mlflow")
    assert places.of("assistant") == Place("azure.ai.openai", "shop.openai.azure.com", 443)
    assert places.of("hosted") == Place("openai", "api.openai.com", 443)
    assert places.of("labs") == Place("lab", "10.0.0.7", 8000)
    assert places.of("small") == Place("llama.cpp")
    assert places.of("own") == Place("vllm")
    assert places.of("whoever") == Place("noria")


# --- attributes ---


def test_a_chats_attributes_hold_what_was_asked_for_and_what_came_but_not_what_was_said(places):
    found = attributes(places, asked(), answered())
    assert found == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "azure.ai.openai",
        "gen_ai.request.model": "assistant",
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1,
        "gen_ai.request.seed": 3,
        "gen_ai.request.stop_sequences": ["x"],
        "gen_ai.request.stream": True,
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.model": "gpt-4o-2024",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": 0.05,
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 3,
        "server.address": "shop.openai.azure.com",
        "server.port": 443,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "noria.request_id": f"{1:032x}",
        "noria.endpoint": "assistant",
        "noria.model": "assistant",
        "noria.version": "1",
        "noria.role": "champion",
        "noria.outcome": "answered",
        "noria.requester": "local",
        "noria.tries": 2,
        "noria.cache_hit": False,
        "noria.cost_usd": 0.001,
    }


def test_bodies_go_along_only_if_they_are_asked_for(places):
    found = attributes(places, asked(), answered(), payloads=True)
    assert found["gen_ai.input.messages"] == '[{"role":"user","parts":[{"type":"text","content":"hi"}]}]'
    assert '"content":"hello"' in found["gen_ai.output.messages"]
    assert '"finish_reason":"stop"' in found["gen_ai.output.messages"]
    found = attributes(places, intent(1), outcome(1), payloads=True)
    assert (found["noria.request"], found["noria.response"]) == ('{"input":"hello"}', '{"label":"positive"}')
    long = b'"' + b"x" * 70_000 + b'"'
    assert "noria.response" not in attributes(places, intent(1), outcome(1, response=long), payloads=True)


def test_tools_are_parts_of_a_message(places):
    body = b"""{"messages": [
        {"role": "user", "content": [{"type": "text", "text": "sky?"}, {"type": "image_url", "image_url": {}}]},
        {"role": "assistant", "content": null,
         "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "blue"}]}"""
    found = attributes(places, asked(request=body), answered(), payloads=True)["gen_ai.input.messages"]
    assert '{"type":"text","content":"sky?"}' in found
    assert '{"type":"tool_call","id":"c","name":"f","arguments":"{}"}' in found
    assert '{"type":"tool_call_response","id":"c","response":"blue"}' in found


@pytest.mark.parametrize(
    ("endpoint", "request_body", "response", "doing"),
    [
        ("triage", b'{"input": "x"}', b"{}", "predict"),
        ("triage", b'{"messages": []}', b"{}", "predict"),
        ("assistant", b'{"messages": []}', b"{}", "chat"),
        ("assistant", b'{"prompt": "x"}', b"{}", "text_completion"),
        ("assistant", b'{"model": "assistant", "input": "x"}', b"{}", "embeddings"),
        ("assistant", b'{"input": "x"}', b'{"object": "list", "data": []}', "embeddings"),
        ("assistant", b'{"input": "x"}', b'"hello"', "chat"),
        ("assistant", b"{broken", b"\xff", "chat"),
    ],
)
def test_what_a_model_was_asked_to_do_is_told_by_the_endpoint_and_the_body(
    places, endpoint, request_body, response, doing
):
    found = attributes(places, asked(endpoint=endpoint, request=request_body), answered(response=response))
    assert found["gen_ai.operation.name"] == doing


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_whatever_the_bodies_are_there_are_attributes(request_body, response):
    found = attributes(
        Places(settings(Path("/nowhere")).project),
        asked(request=request_body),
        answered(response=response),
        payloads=True,
    )
    assert found["gen_ai.operation.name"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": [], "temperature": "hot", "max_tokens": true, "stop": [1, null], "n": {}}',
        b'{"messages": "no list", "temperature": null}',
        b'{"messages": [1, 2]}',
        b"[]",
        b"null",
    ],
)
def test_settings_of_a_wrong_type_are_left_out(places, body):
    found = attributes(places, asked(request=body), answered(response=b'{"choices": [{"finish_reason": 1}]}'), True)
    assert not any(name.startswith("gen_ai.request.") for name in found if name != "gen_ai.request.model")
    assert "gen_ai.response.finish_reasons" not in found


# --- over the wire ---


def test_a_record_becomes_a_span_below_the_callers_with_the_records_own_times(told, collector):
    told().shipped([(1, asked(), answered())])
    collector.wait(lambda: collector.spans)
    (span,) = collector.spans
    start = asked().received_us * 1000
    assert (span.name, span.kind, span.status) == ("chat assistant", Wire.SPAN_KIND_SERVER, Status.STATUS_CODE_UNSET)
    assert (span.trace_id, span.span_id, span.parent_span_id) == (TRACE, SPAN, PARENT)
    assert (span.start, span.end) == (start, start + 250_000_000)
    assert span.events == {"first_token": start + 50_000_000}
    assert span.attributes["gen_ai.usage.output_tokens"] == 3
    assert span.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert (span.resource["service.name"], span.resource["service.namespace"]) == ("shop", "noria")


def test_a_fault_is_an_error_and_names_its_type(told, collector):
    failed = answered(kind=OutcomeKind.TIMED_OUT, status=504, errors=("upstream_timeout",), ttft_us=None)
    told().shipped([(1, asked(), failed)])
    collector.wait(lambda: collector.spans)
    (span,) = collector.spans
    assert span.status == Status.STATUS_CODE_ERROR
    assert span.attributes["error.type"] == "upstream_timeout"
    assert span.events == {}


def test_a_callers_mistake_is_told_but_is_no_error_of_ours(told, collector):
    rejected = answered(kind=OutcomeKind.REJECTED, status=400, errors=("invalid_request",))
    told().shipped([(1, asked(), rejected)])
    collector.wait(lambda: collector.spans)
    (span,) = collector.spans
    assert (span.status, span.attributes["error.type"]) == (Status.STATUS_CODE_UNSET, "invalid_request")


def test_a_shadows_copy_is_a_call_of_ours_and_who_answered_instead_is_named(told, collector):
    shadow = asked(role=Role.SHADOW, shadow_of="f" * 32)
    told().shipped([(1, shadow, answered(model="labs", version="4"))])
    collector.wait(lambda: collector.spans)
    (span,) = collector.spans
    assert span.kind == Wire.SPAN_KIND_CLIENT
    assert (span.attributes["noria.model"], span.attributes["noria.version"]) == ("labs", "4")
    assert (span.attributes["gen_ai.provider.name"], span.attributes["noria.shadow_of"]) == ("lab", "f" * 32)


def test_traces_that_are_not_sampled_stay_home_except_for_faults(told, collector):
    fault = answered(3, kind=OutcomeKind.FAILED, status=502)
    one = told()
    one.shipped([(1, asked(1, sampled=False), answered(1)), (2, asked(2), answered(2))])
    one.shipped([(3, asked(3, sampled=False), fault), (4, asked(4, trace_id="", span_id=""), answered(4))])
    one.close()
    ids = [span.attributes["noria.request_id"] for span in collector.spans]
    points = collector.histograms["gen_ai.client.operation.duration"]
    assert ids == [f"{2:032x}", f"{3:032x}"]
    assert sum(point.count for _, point in points) == 4


def test_metrics_are_the_conventions_with_their_buckets(told, collector):
    one = told()
    one.shipped([(n, asked(n), answered(n)) for n in range(3)])
    one.shipped([(9, intent(9, trace_id=TRACE, span_id=SPAN), outcome(9))])
    one.close()
    found = collector.histograms
    assert set(found) == {
        gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION,
        gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE,
        gen_ai_metrics.GEN_AI_SERVER_TIME_TO_FIRST_TOKEN,
        gen_ai_metrics.GEN_AI_SERVER_TIME_PER_OUTPUT_TOKEN,
    }
    durations = {point["gen_ai.request.model"]: data for point, data in found["gen_ai.client.operation.duration"]}
    assert (durations["assistant"].count, durations["assistant"].sum) == (3, pytest.approx(0.75))
    assert list(durations["assistant"].explicit_bounds)[:3] == [0.01, 0.02, 0.04]
    assert len(durations["assistant"].explicit_bounds) == 14
    assert durations["triage"].count == 1
    tokens = {point["gen_ai.token.type"]: data for point, data in found["gen_ai.client.token.usage"]}
    assert (tokens["input"].sum, tokens["output"].sum) == (15, 9)
    assert list(tokens["input"].explicit_bounds) == [4.0**n for n in range(14)]
    ((where, first),) = found["gen_ai.server.time_to_first_token"]
    assert (first.count, first.sum) == (3, pytest.approx(0.15))
    assert where == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "azure.ai.openai",
        "gen_ai.request.model": "assistant",
        "gen_ai.response.model": "assistant",
        "server.address": "shop.openai.azure.com",
        "server.port": 443,
        "noria.version": "1",
        "noria.role": "champion",
    }
    ((_, per_token),) = found["gen_ai.server.time_per_output_token"]
    assert per_token.sum == pytest.approx(3 * 0.1)


def test_the_standard_variables_are_honoured(tmp_path, monkeypatch, collector):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url + "/")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20s3cret")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "till")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    one = telemetry(settings(tmp_path), no_experiment)
    one.shipped([(1, asked(), answered())])
    one.close()
    assert {post.path for post in collector.posts} == {"/v1/traces", "/v1/metrics"}
    assert {post.headers["authorization"] for post in collector.posts} == {"Bearer s3cret"}
    assert {post.headers["content-encoding"] for post in collector.posts} == {"gzip"}
    assert collector.spans[0].resource["service.name"] == "till"
    assert collector.spans[0].resource["deployment.environment.name"] == "test"


def test_nobody_is_told_unless_somebody_asks(tmp_path, monkeypatch):
    assert telemetry(settings(tmp_path), no_experiment) is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert telemetry(settings(tmp_path), no_experiment) is None


def test_the_project_file_comes_before_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t.example/x")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://e.example")
    bare = settings(tmp_path)
    assert (bare.otlp_traces_url, bare.otlp_metrics_url) == ("http://t.example/x", "http://e.example/v1/metrics")
    said = settings(tmp_path, 'otlp: "http://c.example:4318"')
    assert said.otlp_traces_url == "http://c.example:4318/v1/traces"


def test_grpc_is_a_problem_that_says_what_to_set(tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    one = telemetry(settings(tmp_path), no_experiment)
    assert "http/protobuf" in one.problems[0]
    one.shipped([(1, asked(), answered())])
    one.close()
    assert settings(tmp_path, 'otlp: "http://127.0.0.1:4318"').otlp_protocol == "http/protobuf"


# --- when nobody listens ---


def test_a_collector_that_is_gone_slows_nobody_and_is_shown(told, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    one = told("http://127.0.0.1:9", metrics_every_s=0.1)
    began = time.monotonic()
    for n in range(200):
        one.shipped([(n, asked(n), answered(n))] * 50)
    assert time.monotonic() - began < 20  # far less; it only must not be 200 timeouts
    deadline = time.monotonic() + 30
    while len(one.problems) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    traces, metrics = sorted(one.problems, reverse=True)
    assert "otlp takes no traces: " in traces
    assert "otlp takes no metrics: " in metrics
    one.close()
    assert one.status()["otlp"].sent == 0
    assert one.status()["otlp"].dropped > 0


def test_a_collector_that_refuses_is_quoted_and_asked_again_and_does_not_flood_the_log(told, collector, loud):
    refuse = threading.Event()
    refuse.set()
    collector.answer = lambda _: (401, b"") if refuse.is_set() else (200, b"")
    one = told()
    one.shipped([(1, asked(), answered())])
    collector.wait(lambda: one.problems)
    assert "401" in one.problems[0]
    refuse.clear()
    collector.wait(lambda: not one.problems)
    assert collector.spans[-1].span_id == SPAN
    assert one.status()["otlp"].sent == 1
    assert loud == []


# --- the queue ---


def records(count: int):
    return [(n, asked(n), answered(n)) for n in range(count)]


def test_what_there_is_no_room_for_is_dropped_and_counted():
    hold, entered = threading.Event(), threading.Event()

    def send(batch):
        entered.set()
        hold.wait(30)
        return ""

    one = Outlet("x", send, capacity=10)
    one.offer(records(1))
    assert entered.wait(30)
    one.offer(records(25))
    assert one.status() == replace(one.status(), dropped=15, waiting=10)
    hold.set()
    one.close(time.monotonic() + 30)
    assert one.status() == replace(one.status(), sent=11, dropped=15, waiting=0)


def test_long_bodies_fill_the_queue_before_their_number_does(monkeypatch):
    monkeypatch.setattr(outlet, "CAPACITY_BYTES", 10_000)
    hold = threading.Event()
    one = Outlet("x", lambda batch: "" if hold.wait(30) else "late")
    one.offer([(n, asked(n, request=b"x" * 4000), answered(n)) for n in range(10)])
    assert one.status().dropped >= 6
    hold.set()
    one.close(time.monotonic() + 30)


def test_a_batch_that_is_not_taken_is_tried_again_then_dropped():
    seen = []

    def send(batch):
        seen.append(len(batch))
        return "no" if len(seen) <= outlet.TRIES else ""

    one = Outlet("x", send, first_pause_s=0.001)
    one.offer(records(3))
    while not one.status().dropped:
        time.sleep(0.01)
    assert (seen, one.problem) == ([3] * outlet.TRIES, "no")
    one.offer(records(2))
    one.close(time.monotonic() + 30)
    assert (one.status().sent, one.status().dropped, one.problem) == (2, 3, "")


def test_a_record_that_cannot_be_exported_does_not_end_the_thread(caplog):
    def send(batch):
        if batch[0][0].request_id == f"{0:032x}":
            raise ValueError("strange")
        return ""

    one = Outlet("x", send)
    one.offer(records(1))
    while not one.problem:
        time.sleep(0.01)
    assert one.problem == "ValueError: strange"
    one.offer([(5, asked(5), answered(5))])
    one.close(time.monotonic() + 30)
    assert (one.status().sent, one.status().dropped) == (1, 1)
    caplog.clear()


def test_closing_waits_for_nobody_for_ever():
    taken, let_go = threading.Event(), threading.Event()

    def send(_batch):
        taken.set()
        return str(let_go.wait(60))

    one = Outlet("x", send)
    one.offer(records(5))
    assert taken.wait(30)
    one.offer(records(5))
    one.close(time.monotonic() + 0.1)
    assert not let_go.is_set()
    assert one.status().dropped == 5
    let_go.set()
