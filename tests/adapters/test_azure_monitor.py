"""Traces and metrics to Azure Monitor: what a double of its ingestion endpoint gets from Microsoft's own exporter."""

import json
import sys
import time

import pytest

from fakes.collector import collecting
from fakes.entries import intent, outcome
from noria.adapters.telemetry.exports import telemetry
from noria.domain.inference import OutcomeKind
from noria.projectfile import parse_project

TRACE, SPAN, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
KEY = "00000000-0000-0000-0000-000000000001"
YAML = "project: shop\nendpoints: {triage: {task: classification, policy: p.yaml, training: {data: d.csv}}}"


def took(post) -> tuple[int, bytes]:
    """What Azure says when it took everything."""
    count = len(json.loads(post.body))
    return 200, json.dumps({"itemsReceived": count, "itemsAccepted": count, "errors": []}).encode()


def no_experiment() -> str:
    raise AssertionError("MLflow gets nothing")


@pytest.fixture
def azure(monkeypatch):
    with collecting(took) as made:
        monkeypatch.setenv(
            "APPLICATIONINSIGHTS_CONNECTION_STRING", f"InstrumentationKey={KEY};IngestionEndpoint={made.url}"
        )
        yield made


@pytest.fixture
def told(tmp_path):
    opened = []

    def begin(**kwargs):
        opened.append(telemetry(parse_project(YAML, tmp_path), no_experiment, **kwargs))
        return opened[-1]

    yield begin
    for one in opened:
        one.close()


def record(n: int = 1, **changes):
    begun = intent(n, trace_id=TRACE, span_id=SPAN, parent_span_id=PARENT)
    return n, begun, outcome(n, duration_us=250_000, input_tokens=5, output_tokens=3, **changes)


def envelopes(azure, kind: str) -> list[dict]:
    """The envelopes of one kind that were taken."""
    found = [one for post in azure.posts for one in json.loads(post.body)]
    return [one for one in found if one["data"]["baseType"] == kind]


def test_a_request_and_its_metrics_arrive_as_application_insights_knows_them(azure, told):
    one = told()
    one.shipped([record(1), record(2, kind=OutcomeKind.FAILED, status=502, errors=("upstream_failed",))])
    one.close()
    assert one.problems == ()

    good, bad = envelopes(azure, "RequestData")
    assert good["iKey"] == KEY
    assert (good["tags"]["ai.operation.id"], good["tags"]["ai.operation.parentId"]) == (TRACE, PARENT)
    assert good["tags"]["ai.cloud.role"] == "noria.shop"
    data = good["data"]["baseData"]
    assert (data["name"], data["id"], data["duration"]) == ("predict triage", SPAN, "0.00:00:00.250")
    assert (data["responseCode"], data["success"]) == ("200", True)
    assert data["properties"]["noria.request_id"] == f"{1:032x}"
    assert (bad["data"]["baseData"]["responseCode"], bad["data"]["baseData"]["success"]) == ("502", False)
    assert b"hello" not in b"".join(post.body for post in azure.posts)

    metrics = [one["data"]["baseData"] for one in envelopes(azure, "MetricData")]
    counts = {(m["metrics"][0]["name"], m["properties"].get("gen_ai.token.type")): 0 for m in metrics}
    assert set(counts) == {
        ("gen_ai.client.operation.duration", None),
        ("gen_ai.client.token.usage", "input"),
        ("gen_ai.client.token.usage", "output"),
    }


def test_metrics_are_sent_as_what_was_new_since_the_last_time(azure, told):
    one = told(metrics_every_s=0.1)
    for n in range(3):
        one.shipped([record(n)])
        azure.wait(lambda n=n: durations(azure) == n + 1)
    one.close()
    assert durations(azure) == 3


def durations(azure) -> int:
    points = [m["data"]["baseData"]["metrics"][0] for m in envelopes(azure, "MetricData")]
    return sum(point["count"] for point in points if point["name"] == "gen_ai.client.operation.duration")


def test_an_endpoint_that_refuses_is_quoted(azure, told):
    azure.answer = lambda _: (400, b'{"errors": []}')
    one = told()
    one.shipped([record()])
    azure.wait(lambda: one.problems)
    assert one.problems[0].startswith("azure_monitor takes no traces: ")
    assert KEY not in one.problems[0]


def test_without_the_package_the_problem_names_the_extra_and_nothing_else_is_held_up(azure, told, monkeypatch):
    monkeypatch.setitem(sys.modules, "azure.monitor.opentelemetry.exporter", None)
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        one = told()
        assert ["noria[azure]" in problem for problem in one.problems] == [True]
        one.shipped([record()])
        collector.wait(lambda: collector.spans)
        one.close()
    assert azure.posts == []


def test_a_connection_string_that_is_none_is_a_problem_and_no_crash(told, monkeypatch):
    monkeypatch.setenv("APPLICATIONINSIGHTS_CONNECTION_STRING", "InstrumentationKey=nonsense")
    one = told()
    assert "APPLICATIONINSIGHTS_CONNECTION_STRING can't be read" in one.problems[0]
    one.shipped([record()])


def test_nobody_else_is_called(azure, told, monkeypatch):
    import socket

    called, connect = [], socket.socket.connect

    def watched(self, address):
        called.append(address)
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", watched)
    one = told()
    one.shipped([record()])
    one.close()
    time.sleep(0.2)
    assert {address[0] for address in called} == {"127.0.0.1"}
