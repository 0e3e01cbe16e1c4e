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
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

from noria.adapters.codec import error_from_json, error_to_json
from noria.adapters.spreading import spread
from noria.domain.errors import Cancelled, NoriaError
from noria.ports import JobSpec

NICE = 5
"""How much the child gives way to other processes."""
_LOOK_AGAIN_S = 0.2
"""How often who waits for a turn looks whether it is still wanted."""
_ASK_S = 0.5
"""How often it is asked whether a job is still wanted."""
LEAN = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
"""Unless somebody says otherwise: a scan of a table then holds an eighth less, and is no slower."""
THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
"""Environment variables by which libraries are told how many threads they may use."""


class LocalCompute:
    """`ports.ComputeEngine` on this machine: a job for each process at a time, others wait their turn.

    Args:
        processes: Children that may work at the same time; each starts when it is needed and stays.
        threads: How many threads the libraries of a child may use; by default all cores but one, shared.
    """

    def __init__(self, *, processes: int = 1, threads: int | None = None) -> None:
        self._processes = processes
        self._threads = threads or max(1, ((os.cpu_count() or 2) - 1) // processes)
        self._seats: queue.LifoQueue[_Child | None] = queue.LifoQueue()  # the one that worked last is the warmest
        for _ in range(processes):
            self._seats.put(None)
        self._working: set[_Child] = set()
        self._closed = False

    def run(self, job: JobSpec, wanted: Callable[[], bool] | None = None) -> Mapping[str, Any]:
        """See `ports.ComputeEngine`; a job that nobody wants any more is killed with its process."""
        mine: set[_Child] = set()
        if wanted is None:
            return self._done(job, mine, threading.Event())
        with _watching(wanted, mine) as unwanted:
            try:
                return self._done(job, mine, unwanted)
            except NoriaError as error:
                if unwanted.is_set():
                    raise Cancelled(f"{job.function} was stopped: nobody wants it any more.") from error
                raise

    def map(self, job: JobSpec, parts: Sequence[Mapping[str, Any]]) -> Generator[Mapping[str, Any], None, None]:
        """See `ports.ComputeEngine`: a part for each process, and the next one at hand."""
        mine: set[_Child] = set()
        stopped = threading.Event()

        def work(part: Mapping[str, Any]) -> Mapping[str, Any]:
            return self._done(JobSpec(job.function, {**job.arguments, **part}), mine, stopped)

        def stop() -> None:
            stopped.set()
            for child in list(mine):
                child.kill()

        return spread(work, parts, self._processes + 1, stop)

    def close(self) -> None:
        """Kill the children, with the jobs they are running."""
        self._closed = True
        for child in list(self._working):
            child.kill()
        for _ in range(self._processes):  # whoever waits for a job has seen that it ended
            child_or_none = self._seats.get()
            if child_or_none is not None:
                child_or_none.kill()
                child_or_none.dispose()
        for _ in range(self._processes):
            self._seats.put(None)

    def _done(self, job: JobSpec, mine: "set[_Child]", stopped: threading.Event) -> Mapping[str, Any]:
        """What a job returned; the child that does it is in that set meanwhile."""
        request = json.dumps({"function": job.function, "arguments": dict(job.arguments)})
        child = self._seat(stopped)
        try:
            child = self._warm(child)
            self._working.add(child)
            mine.add(child)
            if self._closed:  # meanwhile: who closed us may not have seen this child
                child.kill()
            reply = child.ask(request)
            if reply is None:
                raise self._death(job, child.kill())
        except BaseException:  # an interrupt: what the child says later would be taken for another job's result
            if child is not None:
                child.kill()
            raise
        finally:
            if child is not None:
                self._working.discard(child)
                mine.discard(child)
            self._seats.put(child)
        if "error" in reply:
            raise error_from_json(reply["error"])
        value: Mapping[str, Any] = reply["value"]
        return value

    def _seat(self, stopped: threading.Event) -> "_Child | None":
        """Wait for a turn, unless it is no longer wanted."""
        while not stopped.is_set():
            with contextlib.suppress(queue.Empty):
                return self._seats.get(timeout=_LOOK_AGAIN_S)
        raise NoriaError("Nobody waits for this part any more.")

    def _warm(self, child: "_Child | None") -> "_Child":
        """A child that can take a job: that one, if it is alive."""
        if self._closed:
            raise NoriaError("The compute engine is closed.", "Start a new one.")
        if child is not None and not child.alive():
            child.dispose()
            child = None
        return child or _Child(self._threads)

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


@contextlib.contextmanager
def _watching(wanted: Callable[[], bool], mine: "set[_Child]") -> Iterator[threading.Event]:
    """Asks now and then whether a job is still wanted; once it isn't, its process is killed and the event is set."""
    over, unwanted = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.wait(_ASK_S):
            if not wanted():
                unwanted.set()
                for child in list(mine):
                    child.kill()
                return

    watcher = threading.Thread(target=watch, name="wanted", daemon=True)
    watcher.start()
    try:
        yield unwanted
    finally:
        over.set()
        watcher.join()


class _Child:
    """A process that runs jobs until its input ends."""

    def __init__(self, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "noria.adapters.compute"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=LEAN | os.environ | dict.fromkeys(THREAD_LIMITS, str(threads)),
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
        with contextlib.suppress(BrokenPipeError, ValueError):  # the last request was never read; closed before
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
