"""How long starts take."""

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.serving import project
from benchmarks.serving.processes import Server


def measure(work: Path, model: Path, times: int) -> dict[str, Any]:
    """Figures.

    Args:
        work: Folder for what is made.
        model: Folder of an MLflow model, for the model server.
        times: How often each start is measured.
    """
    root = work / "start-project"
    project.make(root, "http://127.0.0.1:9")
    api = [sys.executable, "-m", "noria.api", "--project", str(root), "--port", "{port}"]
    scorer = ["--path", str(model), "--listen", "tcp:127.0.0.1:{port}", "--name", "bench", "--version", "1", "--trust"]
    started = [_started(work, "api", api, "/livez") for _ in range(times)]
    loaded = [
        _started(work, "scorer", [sys.executable, "-m", "noria.modelserver", *scorer], "/ping")
        for _ in range(max(2, times // 2))
    ]
    return {
        "help_ms": statistics.median(_help_s() for _ in range(times)) * 1e3,
        "ready_ms": statistics.median(s for s, _ in started) * 1e3,
        "api_rss_at_start_mb": statistics.median(rss for _, rss in started),
        "pyfunc_ready_ms": statistics.median(s for s, _ in loaded) * 1e3,
    }


def _help_s() -> float:
    begun = time.perf_counter()
    subprocess.run([str(Path(sys.prefix, "bin", "noria")), "--help"], check=True, capture_output=True)
    return time.perf_counter() - begun


def _started(work: Path, name: str, command: list[str], path: str) -> tuple[float, float]:
    """Seconds until it answers, and the megabytes that it holds then."""
    with Server(name, command, work) as server:
        return server.wait(path=path), server.rss_mb()
