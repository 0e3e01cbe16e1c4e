"""Alternating rounds: every server is measured in each round, so that what else the machine does hits all of them."""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.serving.load import Load, Result, Target

SLOW = ("litellm", "lab_flask")
"""Servers that answer so seldom that a second says nothing of them …"""
SLOW_S = 2.0
"""… and for how long they are asked at least."""


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: How often each server gets its turn.
        seconds: Length of a turn.
    """

    rounds: int
    seconds: float


@dataclass
class Table:
    """What came back, by server and concurrency, one result a round."""

    results: dict[tuple[str, int], list[Result]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    """Server → why it has no result."""

    def median(self, name: str, concurrency: int, of: Callable[[Result], float]) -> float | None:
        """The median over the rounds; None for a server without results."""
        found = self.results.get((name, concurrency))
        return statistics.median(of(result) for result in found) if found else None

    def per_s(self, name: str, concurrency: int) -> float | None:
        """Answers a second."""
        return self.median(name, concurrency, lambda result: result.per_s)

    def ratio(self, name: str, other: str, concurrency: int) -> float | None:
        """The median over the rounds of one server's throughput by another's."""
        ours, theirs = self.results.get((name, concurrency)), self.results.get((other, concurrency))
        if not ours or not theirs:
            return None
        return statistics.median(a.per_s / b.per_s for a, b in zip(ours, theirs, strict=False))

    def difference_ms(self, name: str, other: str, concurrency: int, of: Callable[[Result], float]) -> float | None:
        """The median over the rounds of one server's latency less another's, in milliseconds."""
        ours, theirs = self.results.get((name, concurrency)), self.results.get((other, concurrency))
        if not ours or not theirs:
            return None
        return statistics.median(of(a) - of(b) for a, b in zip(ours, theirs, strict=False))


def alternate(
    load: Load,
    servers: Mapping[str, Target],
    concurrencies: Mapping[int, Sequence[str]],
    plan: Plan,
    table: Table | None = None,
    after_round: Callable[[], None] = lambda: None,
) -> Table:
    """Measure servers in turns.

    Args:
        load: Who asks.
        servers: Name → whom.
        concurrencies: Requests under way at a time → the servers that are asked so.
        plan: How much.
        table: To be continued.
        after_round: Called after each round.
    """
    table = table or Table()
    for concurrency, names in concurrencies.items():
        for _ in range(plan.rounds):
            for name in (name for name in names if name in servers and name not in table.failed):
                seconds = max(plan.seconds, SLOW_S) if name in SLOW else plan.seconds
                try:
                    result = load.run(servers[name], concurrency, seconds)
                except RuntimeError as error:
                    table.failed[name] = f"at concurrency {concurrency}: {error}"
                    print(f"{name} left out, {table.failed[name]}", file=sys.stderr)
                    continue
                table.results.setdefault((name, concurrency), []).append(result)
            after_round()
    return table
