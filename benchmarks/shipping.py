"""How fast the worker carries records from a spool into Delta, and how small they get there.

`python -m benchmarks.shipping` writes a spool the way an API process does (groups of entries, one row each), ships it
with the worker's own shipper in turns of the worker's size, and prints rows a second and the size of the table over
that of the spool. Bodies are 300 to 600 bytes long. Their words are drawn one by one, so that nothing but the words
repeats: real conversations repeat whole phrases and get smaller than this.
"""

import json
import random
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from noria.adapters.clock import SystemClock
from noria.adapters.spool.file import SpoolFile, connect
from noria.adapters.spool.groups import pack
from noria.adapters.spool.reader import SpoolFolder
from noria.adapters.tables.delta import DeltaStore
from noria.domain.endpoint import Role
from noria.domain.inference import Entry, Intent, Outcome, OutcomeKind
from noria.serving.log.recorder import new_request_id
from noria.serving.log.shipping import Shipper
from noria.worker import A_TURN

ROWS = 60_000
GROUP = 64
"""Entries that one commit of a busy spool holds."""


def measure(rows: int = ROWS, rounds: int = 5) -> dict[str, float]:
    """Ship that many records and say how that went.

    Args:
        rows: Requests in the spool; each is an intent and an outcome.
        rounds: Repeats, each with a fresh table; the best counts, because what else runs here only ever slows it down.

    Returns:
        `ship_rows_per_s`: rows of the inference table a second; `ship_size_ratio`: bytes of the table, log included,
        over bytes of the spool's file; `ship_spool_bytes_per_row`.
    """
    with TemporaryDirectory(prefix="noria-bench-") as folder:
        spool = Path(folder) / "spool"
        spool.mkdir()
        size = _fill(spool / "api-0.db", rows)
        speeds, tables = [], 0
        for number in range(rounds):
            where = Path(folder) / f"tables-{number}"
            speeds.append(rows / _ship(spool, where))
            if (found := DeltaStore(where).scan("inference", columns=["sequence"]).num_rows) != rows:
                raise RuntimeError(f"{found} of {rows} rows arrived")
            tables = sum(file.stat().st_size for file in where.rglob("*") if file.is_file())
    return {
        "ship_rows_per_s": round(max(speeds)),
        "ship_size_ratio": round(tables / size, 3),
        "ship_spool_bytes_per_row": round(size / rows),
    }


def _ship(spool: Path, where: Path) -> float:
    """Seconds that it takes to ship the spool, which stays as it is."""
    folder = SpoolFolder(spool)
    try:
        for reader in folder.readers():
            reader.trim = lambda _: None  # type: ignore[method-assign]  # the next round needs it, too
        shipper = Shipper(folder.readers, DeltaStore(where), SystemClock())
        began = time.perf_counter()
        while any(status.unshipped for status in shipper.turn(A_TURN).values()):
            pass
        return time.perf_counter() - began
    finally:
        folder.close()


def _fill(path: Path, rows: int) -> int:
    """Write a spool; its bytes."""
    file = SpoolFile(path)
    group: list[Entry] = []
    for entry in _traffic(rows):
        group.append(entry)
        if len(group) == GROUP:
            file.append([pack(each) for each in group])
            group.clear()
    if group:
        file.append([pack(each) for each in group])
    file.close()
    connection = connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path.stat().st_size


def _traffic(rows: int, concurrency: int = 32) -> Iterator[Entry]:
    """Intents and outcomes as they come when so many requests are under way at a time."""
    choice, words, clock = random.Random(7), _vocabulary(), SystemClock()
    under_way: list[Outcome] = []
    for _ in range(rows):
        intent, outcome = _request(choice, words, clock)
        yield intent
        under_way.append(outcome)
        if len(under_way) == concurrency:
            yield under_way.pop(choice.randrange(concurrency))
    yield from under_way


def _request(choice: random.Random, words: list[str], clock: SystemClock) -> tuple[Intent, Outcome]:
    """A chat that was asked and answered."""
    request_id, now_us = new_request_id(clock), clock.now_us()
    duration_us = choice.randrange(80_000, 4_000_000)
    asked = {
        "model": "assistant",
        "messages": [
            {"role": "system", "content": "You answer in one short paragraph."},
            {"role": "user", "content": _words(choice, words, 150, 420)},
        ],
        "temperature": 0.2,
        "max_tokens": 256,
    }
    tokens = (choice.randrange(60, 140), choice.randrange(40, 120))
    message = {"role": "assistant", "content": _words(choice, words, 60, 330)}
    said = {
        "id": f"chatcmpl-{request_id}",
        "object": "chat.completion",
        "created": now_us // 1_000_000,
        "model": "assistant/3",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)},
    }
    intent = Intent(
        request_id=request_id,
        endpoint="assistant",
        model="assistant",
        version="3",
        role=Role.CHAMPION,
        received_us=now_us,
        request=msgspec.json.encode(asked),
        requester=f"team-{choice.randrange(12)}",
        metadata={"user": f"u{choice.randrange(5000)}", "conversation": f"{choice.getrandbits(64):016x}"},
        policy_hash="0f343b0931126a20f133d67c2b018a3b",
        trace_id=f"{choice.getrandbits(128):032x}",
        span_id=f"{choice.getrandbits(64):016x}",
    )
    outcome = Outcome(
        request_id=request_id,
        kind=OutcomeKind.ANSWERED,
        status=200,
        finished_us=now_us + duration_us,
        duration_us=duration_us,
        response=msgspec.json.encode(said),
        input_tokens=tokens[0],
        output_tokens=tokens[1],
        tries=1,
        cost_usd=sum(tokens) * 1.5e-7,
    )
    return intent, outcome


def _vocabulary() -> list[str]:
    """Words of the Python language reference, each as often as it stands there."""
    from pydoc_data import topics

    return re.findall(r"[a-z]+", " ".join(topics.topics.values()))


def _words(choice: random.Random, words: list[str], least: int, most: int) -> str:
    """That many bytes of words."""
    length, text = choice.randrange(least, most), ""
    while len(text) < length:
        text += f"{choice.choice(words)} "
    return text.strip().capitalize() + "."


def main() -> None:
    """Print the figures as JSON."""
    sys.stdout.write(json.dumps(measure(), indent=2) + "\n")


if __name__ == "__main__":
    main()
