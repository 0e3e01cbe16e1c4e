"""A command of the project file that serves a model: started, told to end when we are, and never left alone.

The command shares our session and process group, so whoever ends the group ends both; on Linux the kernel ends it when
we die without a word. What it prints goes where our own log goes; we add nothing, so its last line says why it ended.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from noria.domain.errors import UpstreamFailed

_PR_SET_PDEATHSIG = 1
"""Of Linux's prctl(2)."""


def serve(command: Sequence[str], ready: Callable[[], None]) -> int:
    """Run a command until it ends; SIGTERM and SIGINT are passed on to it. Returns its exit status.

    Args:
        command: The command and its arguments.
        ready: Called once it was started.

    Raises:
        UpstreamFailed: It can't be started.
    """
    child: subprocess.Popen[bytes] | None = None
    asked = False

    def end(*_: object) -> None:
        nonlocal asked
        asked = True
        if child is not None:
            child.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent())
    except OSError as error:
        raise UpstreamFailed(
            f"The command {command[0]} can't be started: {error.strerror or error}.",
            "Install it, or correct command: in noria.yaml.",
        ) from error
    if asked:  # while it was being started
        child.terminate()
    ready()
    status = child.wait()
    return 0 if asked else status or 1


def _end_with_parent() -> Callable[[], None] | None:
    """What a child does before it becomes the command, so that the kernel ends it with us; None where none can."""
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # we died meanwhile
            os._exit(1)

    return prepare
