"""What a job prints goes into its run's own log, from every library and every child process."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOG = "run.log"
"""In the run's folder."""


@contextmanager
def logged(folder: str) -> Iterator[None]:
    """Have standard output and error written to the log of a run's folder while the block runs; nowhere else if the
    folder isn't named or isn't there."""
    if not folder or not Path(folder).is_dir():
        yield
        return
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    log = os.open(Path(folder) / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    _flush()
    try:
        for descriptor in (1, 2):
            os.dup2(log, descriptor)
        yield
    finally:
        _flush()
        for descriptor, before in zip((1, 2), kept, strict=True):
            os.dup2(before, descriptor)
            os.close(before)
        os.close(log)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
