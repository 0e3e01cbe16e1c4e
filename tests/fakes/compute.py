"""Compute in the caller's own process."""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from noria.adapters.codec import error_from_json
from noria.adapters.compute import run_job
from noria.domain.errors import Cancelled, NoriaError
from noria.ports import JobSpec


class InlineCompute:
    """`ports.ComputeEngine` without a process: arguments and results still pass through JSON."""

    def __init__(self) -> None:
        self.jobs: list[JobSpec] = []
        self.closed = False

    def run(self, job: JobSpec, wanted: Callable[[], bool] | None = None) -> Mapping[str, Any]:
        if wanted is not None and not wanted():
            raise Cancelled("Nobody wants it any more.")
        if self.closed:
            raise NoriaError("The compute engine is closed.", "Start a new one.")
        self.jobs.append(job)
        reply = json.loads(json.dumps(run_job(job.function, json.loads(json.dumps(dict(job.arguments))))))
        if "error" in reply:
            raise error_from_json(reply["error"])
        value: Mapping[str, Any] = reply["value"]
        return value

    def map(self, job: JobSpec, parts: Sequence[Mapping[str, Any]]) -> Generator[Mapping[str, Any], None, None]:
        """The last part first: who relies on an order is found out."""
        for part in reversed(parts):
            yield self.run(JobSpec(job.function, {**job.arguments, **part}))

    def close(self) -> None:
        self.closed = True
