"""Whether trying a candidate is limited by its model or by us: a thousand rows by the trial, and by a bare client.

Both put the same rows to the same model server. The bare client sends the trial's own requests, as many at a time as
suit the server best, and throws away what comes back: what it reaches is the server's own throughput. There are two
servers: one with four slots that takes 4 ms a row, as a small language model does, and Noria's own with TF-IDF and a
logistic regression, which takes less time for a row than writing and reading it.
"""

import asyncio
import itertools
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.parts import Found
from benchmarks.serving import scorers
from benchmarks.serving.processes import Server
from noria.adapters.upstreams.own import HttpUpstream
from noria.release.trial import BATCH, SINGLES, Trial
from noria.templates.starter import messages

ROWS = 1_000
ROUNDS = {True: 5, False: 15}
AT_ONCE = (1, 2, 4, 8)
"""Requests at a time that the bare client tries."""
_HEADERS = {"content-type": "application/json"}


def measure(folder: Path, quick: bool) -> Found:
    """Rounds alternate; a ratio is that of the medians."""
    slots = Server("slots", [sys.executable, "-m", "benchmarks.loop.slots", "{port}"], folder)
    slow = _compare(slots, ROUNDS[quick])
    quickly, _ = scorers.noria(scorers.model(folder / "model"), folder)
    fast = _compare(quickly, ROUNDS[quick])
    return {"gate_throughput_vs_upstream": slow["ratio"], "gates": {"slots": slow, "tfidf": fast}}, {}


def _compare(server: Server, rounds: int) -> dict[str, float]:
    texts = [message.text for message in messages(ROWS, seed=5)]
    with server:
        server.wait(path="/ping")
        url = f"http://127.0.0.1:{server.port}"
        trial, ours, bare = Trial(HttpUpstream), list[float](), dict[int, list[float]]()
        trial.classify(url, texts)
        for _ in range(rounds):
            begun = time.perf_counter()
            answers = trial.classify(url, texts)
            ours.append(time.perf_counter() - begun)
            assert len(answers.predictions) == ROWS
            for at_once in AT_ONCE:
                bare.setdefault(at_once, []).append(asyncio.run(_bare(url, texts, at_once)))
    best = min(bare, key=lambda at_once: median(bare[at_once]))
    return {
        "ratio": median(bare[best]) / median(ours),
        "rows_per_s": ROWS / median(ours),
        "upstream_rows_per_s": ROWS / median(bare[best]),
        "upstream_at_once": best,
    }


async def _bare(url: str, texts: Sequence[str], at_once: int) -> float:
    """Seconds for the trial's requests, so many at a time."""
    singles = [texts[n : n + 1] for n in range(SINGLES)]
    batches = [texts[n : n + BATCH] for n in range(SINGLES, len(texts), BATCH)]
    todo = iter([msgspec.json.encode({"inputs": list(rows)}) for rows in itertools.chain(singles, batches)])
    async with aclosing(HttpUpstream()) as client:

        async def send() -> None:
            for body in todo:
                reply = await client.post(url, "/invocations", body, _HEADERS, 60)
                async for _ in reply.chunks:
                    pass

        begun = time.perf_counter()
        await asyncio.gather(*(send() for _ in range(at_once)))
        return time.perf_counter() - begun
