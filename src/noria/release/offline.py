"""Versions compared beside the traffic: each is brought up on its real host and asked the same labelled rows.

No verdict is needed, since no caller is answered. Differences are paired (both answered the same rows), so they are
found with far fewer rows than on callers; their intervals hold at every row count at once.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from noria.domain.endpoint import Route, Wire
from noria.domain.errors import InvalidData, Refused
from noria.domain.experiment import Borrowed
from noria.domain.price import Price
from noria.evaluation.near import normalised
from noria.evaluation.payloads import outputs
from noria.evaluation.sequential import non_inferiority
from noria.evaluation.sequential.intervals import Interval, proportion
from noria.ports import Clock, ModelHost, ModelRegistry, StateStore, Upstream
from noria.release.counts import similarity
from noria.release.trial import ANSWER_TOKENS, Trial, complete, tokens

AT_MOST = timedelta(hours=2)
"""How long the worker leaves servers alone that are asked here."""
TIMEOUT_S = 120.0
"""For one request: nobody waits for its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one version made of the rows.

    Attributes:
        ref: `model/version`.
        rows: Rows asked.
        right: Answers that are the label (case and blanks make no difference).
        accuracy: Their share, low and high.
        overlap: Mean overlap of the answers' words with the labels' (F1), 0 to 1.
        against: Difference of accuracy from the first version: mean, low, high; None for the first.
        p50_ms: Median time of a request with one row.
        p95_ms: 95th percentile likewise.
        usd_per_thousand: What a thousand requests cost; None where nobody knows.
    """

    ref: str
    rows: int
    right: int
    accuracy: tuple[float, float, float]
    overlap: float
    against: tuple[float, float, float] | None
    p50_ms: float
    p95_ms: float
    usd_per_thousand: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The table, and the sentence that it comes to."""

    endpoint: str
    data: str
    rows: int
    alpha: float
    versions: tuple[Asked, ...]
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Answers:
    said: tuple[str, ...]
    latencies_ms: tuple[float, ...]
    usd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offline:
    """Compares versions on rows.

    Attributes:
        state: Routes, which say whose servers are needed anyway.
        registry: Models.
        host: Brings versions up.
        upstream: Makes a client of model servers.
        clock: For what is borrowed of the worker.
        price: Address → what its tokens cost; None where nobody knows.
        say: Told what is done now.
    """

    state: StateStore
    registry: ModelRegistry
    host: ModelHost
    upstream: Callable[[], Upstream]
    clock: Clock
    price: Callable[[str], Price | None]
    say: Callable[[str], None] = lambda _: None

    def compare(
        self,
        endpoint: str,
        refs: Sequence[str],
        texts: Sequence[str],
        labels: Sequence[str],
        data: str,
        alpha: float = 0.05,
    ) -> Comparison:
        """Ask every version every row.

        Raises:
            Refused: There are fewer than two versions, or one is named twice.
            InvalidData: There are no rows.
            NoriaError: A version can't be brought up, or doesn't answer.
        """
        if len(refs) < 2 or len(set(refs)) < len(refs):
            raise Refused("A comparison takes two versions or more, each named once.", "See noria model list.")
        if not texts:
            raise InvalidData(f"{data} has no labelled rows.", "Name a file with the columns text and label.")
        versions = [self.registry.version(*ref.rsplit("/", 1)) for ref in refs]
        borrowed = Borrowed(endpoint=endpoint, refs=tuple(refs), until=self.clock.now() + AT_MOST)
        with self.state.note() as note:
            note.put(borrowed)
        ours = [ref for ref in refs if ref not in self.host.running()]
        answers = []
        try:
            for version in versions:
                self.say(f"{version.ref}: bringing it up")
                url = self.host.start(version)
                self.say(f"{version.ref}: asking {len(texts)} rows")
                answers.append(self._ask(url, self.host.wire(version), texts))
        finally:
            with self.state.note() as note:
                note.put(Borrowed(endpoint=endpoint, refs=(), until=self.clock.now()))
            for ref in set(ours) - self._needed():
                self.host.stop(ref)
        return compared(endpoint, dict(zip(refs, answers, strict=True)), labels, data, alpha)

    def _needed(self) -> set[str]:
        return {target.ref for route in self.state.find(Route) for target in route.targets}

    def _ask(self, url: str, wire: Wire, texts: Sequence[str]) -> _Answers:
        if wire is Wire.MLFLOW:
            found = Trial(self.upstream).classify(url, texts)
            price = self.price(url)
            return _Answers(found.predictions, found.latencies_ms, 0.0 if price is not None and price.free else None)
        return asyncio.run(self._chat(url, texts))

    async def _chat(self, url: str, texts: Sequence[str]) -> _Answers:
        said, latencies, usd, price = [], [], 0.0, self.price(url)
        async with aclosing(self.upstream()) as client:
            for text in texts:
                begun = time.perf_counter()
                reply = await complete(client, url, text, ANSWER_TOKENS, TIMEOUT_S)
                latencies.append((time.perf_counter() - begun) * 1000)
                said.append(next(iter(outputs(reply)), ""))
                usd += price.cost(*tokens(reply)) if price is not None else 0.0
        return _Answers(tuple(said), tuple(latencies), usd if price is not None else None)


def compared(
    endpoint: str, answers: Mapping[str, _Answers], labels: Sequence[str], data: str, alpha: float
) -> Comparison:
    """The table of what versions answered to the same rows; the first one is what the others are compared with."""
    hits = {
        ref: np.array([normalised(a) == normalised(b) for a, b in zip(found.said, labels, strict=True)], float)
        for ref, found in answers.items()
    }
    first = next(iter(hits))
    share = alpha / len(answers)
    rows = []
    for ref, found in answers.items():
        right = proportion(int(hits[ref].sum()), len(labels), share)
        test = None if ref == first else non_inferiority(hits[ref] - hits[first], 0.0, share / 2)
        rows.append(
            Asked(
                ref=ref,
                rows=len(labels),
                right=int(hits[ref].sum()),
                accuracy=_numbers(right),
                overlap=float(np.mean([similarity(a, b) for a, b in zip(found.said, labels, strict=True)])),
                against=None if test is None else (test.mean, test.lower, test.upper),
                p50_ms=float(np.quantile(found.latencies_ms, 0.5)),
                p95_ms=float(np.quantile(found.latencies_ms, 0.95, method="higher")),
                usd_per_thousand=None if found.usd is None else found.usd / len(labels) * 1000,
            )
        )
    return Comparison(
        endpoint=endpoint,
        data=data,
        rows=len(labels),
        alpha=alpha,
        versions=tuple(rows),
        sentence=_sentence(first, rows),
    )


def _sentence(first: str, rows: Sequence[Asked]) -> str:
    """What the differences come to."""
    says = []
    for row in rows:
        if row.against is None:
            continue
        mean, low, high = row.against
        sure = "more often" if low > 0 else "less often" if high < 0 else ""
        word = f"is right {sure} than" if sure else "may be as good as"
        says.append(f"{row.ref} {word} {first} ({mean:+.3f}, {low:+.3f} to {high:+.3f})")
    return "; ".join(says) + "."


def _numbers(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high
