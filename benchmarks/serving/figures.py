"""The marks, and whether they are met."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Mark(NamedTuple):
    """What a figure should be: at most or at least that much."""

    figure: str
    sign: str
    bound: float
    says: str


MARKS = (
    Mark("added_p50_ms_c1", "≤", 0.25, "ms that the bare proxy adds to a request's median, 1 at a time"),
    Mark("throughput_vs_direct_c64", "≥", 0.35, "bare proxy's throughput by the upstream's own, 64 at a time"),
    Mark("durable_commits_c1", "≤", 2.5, "FULL commits that durable rows add to the median, 1 at a time"),
    Mark("durable_vs_proxy_c16", "≥", 0.4, "throughput with durable rows by the bare proxy's, 16"),
    Mark("durable_vs_proxy_c64", "≥", 0.4, "the same, 64"),
    Mark("durable_p99_ms_c64", "≤", 20, "ms that 99% of the requests stay under, 64"),
    Mark("api_rss_mb", "≤", 60, "MB that an API process holds after the load"),
    Mark("vs_litellm_c1", "≥", 10, "× LiteLLM's proxy, 1"),
    Mark("vs_litellm_c16", "≥", 50, "× LiteLLM's proxy, 16"),
    Mark("vs_mlflow_gateway_c1", "≥", 1.2, "× MLflow's AI gateway, 1"),
    Mark("vs_mlflow_gateway_c16", "≥", 4, "× MLflow's AI gateway, 16"),
    Mark("vs_mlflow_gateway_c64", "≥", 8, "× MLflow's AI gateway, 64"),
    Mark("vs_mlflow_serve_c1", "≥", 1.5, "× mlflow models serve, 1"),
    Mark("vs_mlflow_serve_c16", "≥", 9, "× mlflow models serve, 16"),
    Mark("vs_mlflow_serve_c64", "≥", 15, "× mlflow models serve, 64"),
    Mark("vs_mlserver_c16", "≥", 2.5, "× MLServer, 16"),
    Mark("vs_mlserver_c64", "≥", 2.5, "× MLServer, 64"),
    Mark("vs_bentoml_c16", "≥", 2.5, "× BentoML, 16"),
    Mark("vs_bentoml_c64", "≥", 2.5, "× BentoML, 64"),
    Mark("vs_lab_flask_c16", "≥", 40, "× a Flask app that loads the model at each request, 16"),
    Mark("sse_cpu_us_per_chunk", "≤", 50, "µs of CPU for a streamed chunk"),
    Mark("sse_added_ttfb_ms", "≤", 1.5, "ms that a stream's first byte comes later"),
    Mark("sse_128_vs_direct", "≥", 0.97, "pace of 128 streams by the upstream's own"),
    Mark("ship_rows_per_s", "≥", 40_000, "rows a second from the spool into Delta"),
    Mark("ship_size_ratio", "≤", 0.45, "bytes in Delta by bytes in SQLite"),
    Mark("ship_vs_peak", "≥", 1, "rows shipped a second by the most requests answered a second"),
    Mark("help_ms", "≤", 150, "ms of noria --help"),
    Mark("ready_ms", "≤", 600, "ms until an API process answers"),
    Mark("pyfunc_ready_ms", "≤", 4000, "ms until a model server answers"),
    Mark("rss_growth_mb", "≤", 2, "MB that an API process grows by over many requests"),
)
_SIGNS = {"≤": operator.le, "≥": operator.ge}


def verdict(mark: Mark, figures: Mapping[str, Any]) -> str:
    """`met`, `missed`, or empty where there is no figure."""
    value = figures.get(mark.figure)
    if value is None:
        return ""
    return "met" if _SIGNS[mark.sign](value, mark.bound) else "missed"


def table(figures: Mapping[str, Any], reasons: Mapping[str, str], marks: Sequence[Mark] = MARKS) -> str:
    """All marks and what was measured, for people."""
    lines = []
    for mark in marks:
        shown = _shown(figures.get(mark.figure))
        lines.append(
            f"{mark.figure:29} {shown:>9}  {mark.sign} {mark.bound:<7,g} {verdict(mark, figures):7} {mark.says}"
        )
    lines += [f"{name} is missing: {reason}" for name, reason in reasons.items()]
    return "\n".join(lines)


def markdown(figures: Mapping[str, Any], marks: Sequence[Mark] = MARKS) -> str:
    """The same as a table for `docs/benchmarks.md`."""
    rows = [
        f"| {mark.says} | `{mark.figure}` | {mark.sign} {mark.bound:,g} | {_shown(figures.get(mark.figure))} |"
        for mark in marks
    ]
    return "\n".join(["| what | figure | mark | measured |", "|---|---|---|---|", *rows])


def _shown(value: float | None) -> str:
    return "—" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
