"""What an endpoint's records come to, counted wherever the compute engine runs: parts go out, states come back.

States are added up as they come, so that memory depends on how many there are and not on the records.
"""

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from noria.evaluation.baseline import Baseline
from noria.evaluation.states import ColumnState
from noria.monitoring.computing import Key, Plan, added, from_json
from noria.ports import ComputeEngine, JobSpec, RecordStore

JOB: Final = "noria.bootstrap.jobs:window_states"
PART_BYTES: Final = 16 << 20
"""Bytes on disk that one task reads: seconds of work, so that progress shows and an interrupt loses little."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a count is.

    Attributes:
        parts: Parts that are done.
        of: All parts.
        rows: Records that were read.
    """

    parts: int
    of: int
    rows: int


def gather(
    engine: ComputeEngine,
    records: RecordStore,
    endpoint: str,
    plan: Plan,
    baseline: Baseline | None = None,
    told: Callable[[Progress], None] = lambda _: None,
    part_bytes: int | None = None,
) -> dict[Key, ColumnState]:
    """The states of a plan's windows, from the inference table as it is now.

    Args:
        engine: Where is counted.
        records: The tables.
        endpoint: Whose records.
        plan: What is wanted; its windows say which records are read.
        baseline: Whose cells values are counted in: it travels with the job, for another machine has no file of ours.
        told: Is told how far it is, at the beginning and after each part.
        part_bytes: Bytes on disk of a part; PART_BYTES by default.

    Raises:
        Conflict: The table was tidied meanwhile, for longer than its old files are kept; ask again.
        NoriaError: What the job raised.
    """
    if not plan.windows:
        return {}
    since, until = datetime.fromisoformat(plan.windows[0][0]), datetime.fromisoformat(plan.windows[-1][1])
    parts = records.parts("inference", endpoint, since, until, part_bytes or PART_BYTES)
    cells = b64encode(baseline.to_bytes()).decode() if baseline is not None else ""
    job = JobSpec(JOB, {"plan": plan.to_json(), "baseline": cells})
    with closing(engine.map(job, [{"part": part.to_json()} for part in parts])) as results:
        return added(from_json(result["states"]) for result in _watched(results, len(parts), told))


def _watched(
    results: Iterator[Mapping[str, Any]], parts: int, told: Callable[[Progress], None]
) -> Iterator[Mapping[str, Any]]:
    """The results, with word of each."""
    rows = 0
    told(Progress(0, parts, 0))
    for number, result in enumerate(results, 1):
        rows += result["rows"]
        yield result
        told(Progress(number, parts, rows))
