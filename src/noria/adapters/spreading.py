"""Many parts of one job, some at a time, and each result as soon as it is there."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, Final

Result = Mapping[str, Any]
_PATIENCE_S: Final = 0.2
"""How long what was told to stop may take before it is told again."""


def spread(
    work: Callable[[Mapping[str, Any]], Result],
    parts: Sequence[Mapping[str, Any]],
    at_a_time: int,
    stop: Callable[[], None],
) -> Generator[Result, None, None]:
    """The results of the parts in the order in which they come.

    A part begins when a result is asked for and fewer than so many are under way or wait to be asked for; so no more
    than that many results are held.

    Args:
        work: Does one part; is called in threads.
        parts: What is to be done.
        at_a_time: How many parts are under way.
        stop: Ends what is under way, so that `work` returns or raises soon; called until it has.

    Raises:
        Exception: What `work` raised first; no further part begins.
    """
    pending: set[Future[Result]] = set()
    todo: Iterator[Mapping[str, Any]] = iter(parts)
    with ThreadPoolExecutor(at_a_time, "noria-part") as pool:
        try:
            while True:
                pending.update(pool.submit(work, part) for part in islice(todo, at_a_time - len(pending)))
                if not pending:
                    return
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    pending.remove(future)
                    yield future.result()
        finally:
            for future in pending:
                future.cancel()
            while wait(pending, timeout=0).not_done:
                stop()
                wait(pending, timeout=_PATIENCE_S)
