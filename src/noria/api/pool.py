"""Several API processes, one `/metrics`: whichever is asked answers for all of them.

Each process writes down what it has counted, about once a second and before it answers a scrape; a scrape adds the
files up. Only what is in a file is ever shown, and a process that begins takes over what its slot had counted before.
So a sum never falls, and Prometheus sees no reset that was none, even if a process is killed.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

log = logging.getLogger("noria.api.pool")

STALE_S = 10.0
"""Gauges of a process that has not written for that long, in seconds, are those of a dead one."""
_LASTING = ("counter", "histogram", "summary")
"""Kinds of metrics whose values outlive the process that counted them."""
_OLDEST = "process_start_time_seconds"
"""Added up it would say nothing: the oldest process's is shown."""
_ONE = ("process_max_fds",)
"""The same in all processes."""


class Sample(msgspec.Struct, array_like=True, frozen=True):
    """One number: the series' name, its labels in pairs, and the value."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


class Family(msgspec.Struct, array_like=True, frozen=True):
    """A metric with all its series."""

    name: str
    kind: str
    help: str
    samples: list[Sample]


class Page(msgspec.Struct, array_like=True, frozen=True):
    """What one process has written down.

    Attributes:
        at: When, seconds since the epoch.
        families: What it and the earlier processes of its slot have counted.
    """

    at: float
    families: list[Family]


class Pool:
    """What this process writes, and what all have written.

    Args:
        folder: Where the processes of a project write.
        slot: This process's own name.
    """

    def __init__(self, folder: Path, slot: str) -> None:
        self._folder = folder
        self._path = folder / f"{slot}.counts"
        self._writing = threading.Lock()
        before = _read(self._path)
        self._before = [f for f in before.families if f.kind in _LASTING] if before else []

    def write(self, registry: CollectorRegistry) -> None:
        """Write down what is in a registry. A disk that is full is no reason to fail: the last page stays."""
        draft = self._path.with_suffix(".tmp")
        with self._writing:
            page = Page(time.time(), added([self._before, list(_families(registry.collect()))]))
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                draft.write_bytes(msgspec.msgpack.encode(page))
                draft.replace(self._path)
            except OSError as error:
                log.warning("what this process has counted can't be written: %s", error)
                with suppress(OSError):
                    draft.unlink(missing_ok=True)

    def render(self, registry: CollectorRegistry) -> bytes:
        """What all processes have counted, in Prometheus' text format."""
        self.write(registry)
        now = time.time()
        pages = [page for path in sorted(self._folder.glob("*.counts")) if (page := _read(path)) is not None]
        families = added([f for f in page.families if _counts(f, page.at, now)] for page in pages)
        return generate_latest(_Collected(families))


def added(parts: Iterable[list[Family]]) -> list[Family]:
    """Families of several processes as one: series of the same name and labels are added up."""
    heads: dict[str, Family] = {}
    sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for families in parts:
        for family in families:
            heads.setdefault(family.name, family)
            series = sums.setdefault(family.name, {})
            for sample in family.samples:
                key = (sample.name, sample.labels)
                series[key] = _together(sample, series.get(key))
    return [
        Family(head.name, head.kind, head.help, [Sample(*key, value) for key, value in sums[name].items()])
        for name, head in heads.items()
    ]


def _together(sample: Sample, others: float | None) -> float:
    if others is None or sample.name in _ONE:
        return sample.value
    return min(sample.value, others) if sample.name == _OLDEST else sample.value + others


def _counts(family: Family, at: float, now: float) -> bool:
    """Whether a family of a page still says something."""
    return family.kind in _LASTING or now - at <= STALE_S


def _families(metrics: Iterable[Metric]) -> Iterator[Family]:
    for metric in metrics:
        samples = [
            Sample(sample.name, tuple(sorted(sample.labels.items())), sample.value)
            for sample in metric.samples
            if not sample.name.endswith("_created")  # of no meaning for a sum
        ]
        yield Family(metric.name, metric.type, metric.documentation, samples)


def _read(path: Path) -> Page | None:
    """A page; None if there is none, or none that can be read."""
    try:
        return _decoder.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError, UnicodeError):
        return None


_decoder: "msgspec.msgpack.Decoder[Page]" = msgspec.msgpack.Decoder(Page)


class _Collected:
    """Families in the place of a registry."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Any]:
        for family in self._families:
            metric = Metric(family.name, family.help, family.kind)
            for sample in family.samples:
                metric.add_sample(sample.name, dict(sample.labels), sample.value)
            yield metric
