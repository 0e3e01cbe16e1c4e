"""A process of Noria's that kills itself at a named point: `python -m fakes.dying POINT NTH MODULE ARGUMENTS…`.

The module is run as it is; only the call that the point names is wrapped, so that the process is gone (SIGKILL) right
before or right after its NTH call. An empty POINT kills nothing.
"""

import inspect
import os
import runpy
import signal
import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module

POINTS = {
    "intent": "noria.serving.log.recorder:Recorder.intent",
    "outcome": "noria.serving.log.recorder:Recorder.outcome",
    "commit": "noria.adapters.spool.file:SpoolFile.append",
    "call": "noria.adapters.upstreams.own:HttpUpstream.post",
    "delta commit": "noria.adapters.tables.delta:DeltaStore.append",
    "trim": "noria.adapters.spool.reader:SpoolReader._trim_some",
}
"""What a point's name means: `before` or `after` stands in front of it."""


def arm(point: str, nth: int) -> None:
    """Have this process killed at a point."""
    when, _, name = point.partition(" ")
    module, _, attribute = POINTS[name].partition(":")
    owner, method = attribute.split(".")
    holder = getattr(import_module(module), owner)
    setattr(holder, method, _deadly(getattr(holder, method), before=when == "before", nth=nth))


def _deadly(real: Callable, *, before: bool, nth: int) -> Callable:
    calls = 0

    def die(now: bool, count: int) -> None:
        if now and count == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    if inspect.iscoroutinefunction(real):

        @wraps(real)
        async def waits(*arguments, **named):
            nonlocal calls
            calls += 1
            mine = calls
            die(before, mine)
            result = await real(*arguments, **named)
            die(not before, mine)
            return result

        return waits

    @wraps(real)
    def runs(*arguments, **named):
        nonlocal calls
        calls += 1
        mine = calls
        die(before, mine)
        result = real(*arguments, **named)
        die(not before, mine)
        return result

    return runs


def main() -> None:
    """Arm, then become the module."""
    point, nth, module, *arguments = sys.argv[1:]
    if point:
        arm(point, int(nth))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
