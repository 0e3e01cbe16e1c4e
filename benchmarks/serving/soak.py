"""Whether an API process keeps its size: memory after a warm-up, and after many requests more."""

from pathlib import Path
from typing import Any

from benchmarks.serving import gateways
from benchmarks.serving.load import Load

WINDOW_S = 10.0


def measure(load: Load, work: Path, requests: int) -> dict[str, Any]:
    """Figures: `rss_growth_mb` over so many requests with durable rows, 64 under way."""
    with gateways.running(work, "durable") as (servers, targets):
        load.run(targets["durable"], 64, 3.0)
        before, done = servers["durable"].rss_mb(), 0
        while done < requests:
            done += load.run(targets["durable"], 64, min(WINDOW_S, max(1.0, requests / 4000))).requests
        return {"rss_growth_mb": servers["durable"].rss_mb() - before, "soak_requests": done}
