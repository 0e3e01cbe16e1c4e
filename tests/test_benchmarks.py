"""The measuring tools: the load counts what came, tables say what is met, a peer that can't be had is left out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.serving import figures, gateways, peers, rounds, streams
from benchmarks.serving.load import Load, Result, Target, quantile
from benchmarks.serving.processes import free_port


def test_the_load_counts_whole_answers_and_streamed_chunks(tmp_path: Path) -> None:
    with Load() as load, gateways.running(tmp_path) as (servers, targets):
        plain = load.run(targets["direct"], 4, 0.3, warm_s=0.1)
        streamed = load.run(streams._asking(targets["direct"], 5, 0.001), 2, 0.3, warm_s=0.1)
        assert servers["direct"].rss_mb() > 1
        assert servers["direct"].cpu_s() > 0
    assert plain.requests > 10
    assert plain.failures == {}
    assert 0 < plain.p50_ms <= plain.p99_ms
    assert streamed.chunks > streamed.requests * 5  # and `[DONE]` at the end of each


def test_a_server_that_answers_nothing_is_a_failure_with_a_reason(tmp_path: Path) -> None:
    with Load() as load:
        table = rounds.alternate(load, {"gone": Target(free_port(), "/", "{}")}, {1: ("gone",)}, rounds.Plan(2, 0.1))
    assert table.per_s("gone", 1) is None
    assert table.ratio("gone", "gone", 1) is None
    assert "concurrency 1" in table.failed["gone"]


def test_ratios_are_medians_over_rounds_so_that_one_disturbed_round_changes_nothing() -> None:
    def results(*counts: int) -> list[Result]:
        return [Result(requests=count, seconds=1.0) for count in counts]

    table = rounds.Table({("a", 1): results(100, 300, 10), ("b", 1): results(10, 30, 10)})
    assert table.ratio("a", "b", 1) == 10
    assert table.per_s("a", 1) == 100
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([], 0.5) == 0.0


def test_the_table_says_of_every_mark_whether_it_is_met_and_why_a_figure_is_missing() -> None:
    found = {"added_p50_ms_c1": 0.2, "vs_litellm_c1": 9.9}
    said = figures.table(found, {"mlserver": "pip can't"})
    lines = {line.split()[0]: line for line in said.splitlines()}
    assert " met " in lines["added_p50_ms_c1"]
    assert " missed " in lines["vs_litellm_c1"]
    assert " met " not in lines["help_ms"]
    assert " missed " not in lines["help_ms"]
    assert said.endswith("mlserver is missing: pip can't")
    assert len({mark.figure for mark in figures.MARKS}) == len(figures.MARKS)


def test_a_peer_that_cannot_be_installed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "CACHE", tmp_path)
    monkeypatch.setattr(
        peers.subprocess, "run", lambda step, **_: subprocess.CompletedProcess(step, 1, "", "ERROR: no such package")
    )
    with pytest.raises(RuntimeError, match="no such package"):
        peers.installed("nobody", ("no-such-package",))
    assert not (tmp_path / "venvs" / "nobody" / ".installed").exists()


@pytest.mark.slow
def test_the_command_writes_every_figure_and_null_for_what_was_not_measured(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.serving", "--quick", "--only", "streams", "--json", str(file)]
    root = Path(__file__).parents[1]
    subprocess.run(command, check=True, capture_output=True, cwd=root, timeout=200)
    report = json.loads(file.read_text())
    assert {mark.figure for mark in figures.MARKS} <= set(report)
    assert report["sse_cpu_us_per_chunk"] > 0
    assert report["vs_litellm_c1"] is None
    assert report["machine"]["cores"] >= 1
