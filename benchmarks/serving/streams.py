"""Streams: what a chunk costs, how much later the first one comes, and whether many paced ones keep their pace."""

import operator
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.serving import gateways
from benchmarks.serving.load import Load, Target
from benchmarks.serving.rounds import Plan, alternate

STREAMS = 128
CHUNKS = 100
PAUSE_S = 0.025
"""Between two chunks of a stream, in seconds: 40 tokens a second, as large models give them."""


def _asking(target: Target, chunks: int, pause_s: float) -> Target:
    value = msgspec.json.decode(gateways.BODY) | {"stream": True, "max_tokens": chunks, "pause_ms": pause_s * 1000}
    return Target(target.port, target.path, msgspec.json.encode(value).decode())


def measure(load: Load, work: Path, plan: Plan) -> dict[str, Any]:
    """Figures."""
    with gateways.running(work, "durable") as (servers, plain):
        paced = {name: _asking(target, CHUNKS, PAUSE_S) for name, target in plain.items()}
        whole = Plan(plan.rounds, max(plan.seconds * 1.5, CHUNKS * PAUSE_S))
        before = servers["durable"].cpu_s()
        table = alternate(load, paced, {STREAMS: tuple(paced)}, whole)
        spent = servers["durable"].cpu_s() - before
        ours, direct = table.results["durable", STREAMS], table.results["direct", STREAMS]
        warm = 1 + 0.3 / whole.seconds  # chunks of the while that doesn't count cost too
        short = {name: _asking(target, 8, 0) for name, target in plain.items()}
        first = alternate(load, short, {1: tuple(short)}, plan)
        added = first.difference_ms("durable", "direct", 1, operator.attrgetter("first_ms"))
    return {
        "sse_cpu_us_per_chunk": spent / (sum(result.chunks for result in ours) * warm) * 1e6,
        "sse_added_ttfb_ms": added,
        "sse_128_vs_direct": sum(r.chunks for r in ours) / sum(r.chunks for r in direct),
        "sse_chunks_per_s": sum(r.chunks for r in ours) / sum(r.seconds for r in ours),
    }
