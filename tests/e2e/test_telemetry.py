"""A project that is really up, and a collector that is there, is gone, and is there again."""

import json
from pathlib import Path

import pytest

from fakes.collector import collecting
from fakes.running import Running, new_project

pytestmark = pytest.mark.slow

PARENT = "00f067aa0ba902b7"
TELEMETRY = 'telemetry: {{otlp: "{url}", mlflow_sample: 1.0}}\n'


def trace(number: int) -> str:
    return f"{number + 1:032x}"


def ask(running: Running, number: int) -> str:
    """One request in a caller's trace; returns its id."""
    headers = {"traceparent": f"00-{trace(number)}-{PARENT}-01"}
    status, _, said = running.request("POST", "/predict", {"input": f"parcel {number} is late"}, headers)
    assert status == 200
    return said["x-request-id"]


def test_every_answer_is_a_span_however_the_processes_die_and_a_collector_that_is_gone_holds_nothing_up(
    tmp_path: Path,
) -> None:
    with collecting() as collector:
        running = Running(new_project(tmp_path / "shop", TELEMETRY.format(url=collector.url))).start()
        try:
            known = {ask(running, n): n for n in range(20)}
            running.kill("api-0")
            running.wait_until(lambda: running.get("/livez")[0] == 200)
            known |= {ask(running, n): n for n in range(20, 30)}
            collector.wait(lambda: spans_of(collector) >= set(known))
            seen = {span.attributes["noria.request_id"]: span for span in collector.spans}
            for request_id, number in known.items():
                span = seen[request_id]
                assert (span.trace_id, span.parent_span_id) == (trace(number), PARENT)
                assert (span.name, span.attributes["noria.version"]) == ("predict triage", "1")
            assert len(collector.spans) == len(seen)

            collector.answer = lambda _: (401, b"")
            last = ask(running, 99)
            running.wait_until(lambda: problems(running))
            assert "otlp takes no traces" in problems(running)
            assert running.get("/readyz")[0] == 200
            collector.answer = lambda _: (200, b"")
            collector.wait(lambda: last in spans_of(collector), 60)
            running.wait_until(lambda: not problems(running))
            page = running.get("/metrics")[1].decode()
            assert 'noria_export_sent_total{to="otlp"}' in page
            assert 'noria_export_sent_total{to="mlflow"}' in page
        finally:
            running.stop()
        sums = {n: sum(point.count for _, point in points) for n, points in collector.histograms.items()}
        assert sums["gen_ai.client.operation.duration"] >= len(known) + 1
    said = [line for line in running.log().splitlines() if line.startswith("{")]
    assert all(json.loads(line)["message"] for line in said)


def spans_of(collector) -> set[str]:
    return {span.attributes["noria.request_id"] for span in collector.spans}


def problems(running: Running) -> str:
    """What the worker says about its exports."""
    found = running.status()["worker"]["problems"]
    return " ".join(problem for problem in found if "export" in problem)
