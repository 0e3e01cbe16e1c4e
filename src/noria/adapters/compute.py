"""Heavy work in a child process that stays warm between jobs, so that the loop's own process stays small and alive.

The child reads a job a line on its standard input and answers on its standard output; what a job prints goes to the
worker's log. It runs a little slower than everybody else and on all cores but one, so that serving goes on undisturbed.
When the worker dies, the child sees its input end and dies at once: no job outlives the worker that will do it again.
"""

import contextlib
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from noria.adapters.codec import error_from_json, error_to_json
from noria.domain.errors import NoriaError
from noria.ports import JobSpec

NICE = 5
"""How much the child gives way to other processes."""
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


class LocalCompute:
    """`ports.ComputeEngine` on this machine: one job at a time, others wait their turn."""

    def __init__(self, *, threads: int | None = None) -> None:
        self._threads = threads or max(1, (os.cpu_count() or 2) - 1)
        self._turn = threading.Lock()
        self._child: _Child | None = None
        self._closed = False

    def run(self, job: JobSpec) -> Mapping[str, Any]:
        """See `ports.ComputeEngine`."""
        request = json.dumps({"function": job.function, "arguments": dict(job.arguments)})
        with self._turn:
            child = self._warm_child()
            try:
                reply = child.ask(request)
            except BaseException:  # an interrupt: what the child says later would be taken for another job's result
                child.kill()
                raise
            if reply is None:
                raise self._death(job, child.kill())
        if "error" in reply:
            raise error_from_json(reply["error"])
        value: Mapping[str, Any] = reply["value"]
        return value

    def map(self, job: JobSpec, parts: Sequence[Mapping[str, Any]]) -> Generator[Mapping[str, Any], None, None]:
        """See `ports.ComputeEngine`: one part after the other, in order."""
        for part in parts:
            yield self.run(JobSpec(job.function, {**job.arguments, **part}))

    def close(self) -> None:
        """Kill the child, with the job it is running."""
        self._closed = True
        if self._child is not None:
            self._child.kill()
            with self._turn:  # whoever waits for the job has seen that it ended
                self._child.dispose()

    def _warm_child(self) -> "_Child":
        if self._closed:
            raise NoriaError("The compute engine is closed.", "Start a new one.")
        if self._child is not None and not self._child.alive():
            self._child.dispose()
            self._child = None
        if self._child is None:
            self._child = _Child(self._threads)
        return self._child

    def _death(self, job: JobSpec, code: int) -> NoriaError:
        """What is said of a job whose process ended under it."""
        if self._closed:
            return NoriaError(f"{job.function} was stopped: the compute engine was closed.", "Run it again.")
        if code == -signal.SIGKILL:
            return NoriaError(
                f"The process that ran {job.function} was killed, most likely because memory ran out.",
                "Give it fewer rows or the machine more memory, then run it again.",
            )
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return NoriaError(
            f"The process that ran {job.function} ended with {how}.", "The worker's log has its last words."
        )


class _Child:
    """A process that runs jobs until its input ends."""

    def __init__(self, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "noria.adapters.compute"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | dict.fromkeys(_THREAD_LIMITS, str(threads)),
            text=True,
        )

    def alive(self) -> bool:
        """Whether it can take a job."""
        return self._process.poll() is None

    def ask(self, request: str) -> dict[str, Any] | None:
        """The reply to a request; None if the process ended before it gave one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            return None
        reply: dict[str, Any] | None = json.loads(line) if line.endswith("\n") else None
        return reply

    def kill(self) -> int:
        """End it now, if it hasn't ended; returns how it did, as `subprocess.Popen.returncode` says it."""
        self._process.kill()
        return self._process.wait()

    def dispose(self) -> None:
        """Close the pipes of a process that has ended."""
        with contextlib.suppress(BrokenPipeError):  # the last request was never read
            self._process.communicate()


def run_job(function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Call the function of that name, and return what it returned or raised as JSON values."""
    try:
        module, _, name = function.partition(":")
        value = getattr(importlib.import_module(module), name)(**arguments)
        json.dumps(value)
    except BaseException as error:  # everything goes to the caller, who decides
        if not isinstance(error, NoriaError):
            sys.excepthook(type(error), error, error.__traceback__)
        return {"error": error_to_json(error)}
    return {"value": value}


def main() -> None:
    """Run jobs from standard input and answer on standard output, which the jobs themselves don't get to see."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.nice(NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the worker, which closes us
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(jobs,), daemon=True).start()
    while True:
        job = json.loads(jobs.get())
        print(json.dumps(run_job(job["function"], job["arguments"])), file=answers, flush=True)


def _read(jobs: "queue.SimpleQueue[str]") -> None:
    """Queue what comes in; end the process, in the middle of a job if need be, when the worker is gone."""
    for line in sys.stdin:
        jobs.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
