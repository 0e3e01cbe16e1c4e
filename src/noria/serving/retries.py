"""When a version may be asked again that gave no answer, and after which pause.

| what happened | asked again |
|---|---|
| the request never reached it | until patience ends |
| a server of ours says 503: it is loading, or full | until patience ends |
| a service elsewhere says 429 or 503 | after the time that it asks for, if that is short; up to `tries` |
| it broke off, took longer than a try may, or a proxy says so (502, 504) | once, up to `tries`; ours after a moment |
| it answered anything else | never |

Predicting changes nothing, so a request may be sent twice; but one that broke off may be what killed the server, so it
is sent only once more. Pauses grow and are drawn anew each time between nothing and their full length, so that requests
that failed together don't come back together ("full jitter").
"""

import math
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

from noria.domain.errors import InvalidRequest, NoriaError, UpstreamFailed, UpstreamTimeout
from noria.serving.replies import Garbage

FIRST_PAUSE_S = 0.025
LONGEST_PAUSE_S = 1.0
DYING_S = 0.1
"""How long a server of ours that broke off is left alone at least, seconds: a process that dies closes what it has open
one after the other, and takes connections, for a moment more, that it won't answer."""
LONGEST_WAIT_S = 5.0
"""The longest time that a service may ask us to wait and we do, seconds; the caller hears of any longer one."""
TOO_MANY, UNAVAILABLE = 429, 503
_BEHIND_IT = frozenset({502, 504})
"""A proxy's words for a server that broke off, and for one that took too long."""


class CallFailed(Exception):
    """A request to a model server that brought no answer.

    Attributes:
        error: What it comes to.
        status: The server's status; 0 if there was no whole answer.
        headers: The server's.
        body: The server's.
    """

    def __init__(
        self, error: NoriaError, status: int = 0, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> None:
        super().__init__(error.problem)
        self.error = error
        self.status = status
        self.headers = headers or {}
        self.body = body

    @property
    def reached(self) -> bool:
        """Whether the request may have reached a server."""
        return self.error.sent if isinstance(self.error, UpstreamFailed) else self.status > 0


class Tries:
    """How often a request reached one version, and whether it may go there again.

    Args:
        most: Most times that it may reach it.
        ours: Whether the server is one that we keep up.
        patience_ends: Until when to wait for a server that isn't there.
        deadline: When the whole request is over.
        jitter: Between 0 and 1.
    """

    __slots__ = ("_broke_off", "_deadline", "_jitter", "_most", "_ours", "_patience_ends", "_pause_s", "_reached")

    def __init__(
        self, most: int, ours: bool, patience_ends: float, deadline: float, jitter: Callable[[], float]
    ) -> None:
        self._most = most
        self._ours = ours
        self._patience_ends = patience_ends
        self._deadline = deadline
        self._jitter = jitter
        self._pause_s = FIRST_PAUSE_S
        self._reached = 0
        self._broke_off = False

    def again(self, failed: CallFailed, now: float) -> float | None:
        """Seconds after which it may be asked again; None if it may not."""
        if not failed.reached:
            return self._within(self._backoff(), now) if isinstance(failed.error, UpstreamFailed) else None
        if self._ours and failed.status == UNAVAILABLE:
            return self._within(self._backoff(), now)
        self._reached += 1
        if self._reached >= self._most:
            return None
        if failed.status in (TOO_MANY, UNAVAILABLE):
            asked_s = retry_after(failed.headers) or 0.0
            return self._within(asked_s + self._backoff(), now) if asked_s <= LONGEST_WAIT_S else None
        if self._broke_off or not (failed.status in _BEHIND_IT or _no_answer(failed)):
            return None
        self._broke_off = True
        wait_s = self._backoff() + (DYING_S if self._ours else 0.0)
        return wait_s if now + wait_s < self._deadline else None

    def _backoff(self) -> float:
        wait_s = self._pause_s * self._jitter()
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        return wait_s

    def _within(self, wait_s: float, now: float) -> float | None:
        return wait_s if now + wait_s <= self._patience_ends else None


def is_there(failed: CallFailed, ours: bool) -> bool | None:
    """What a failure says of the version, for its breaker: it is there, it isn't, or nothing (None).

    A mistake of the caller's, and too many requests of his, say that it is there. A server of ours is there as soon as
    it answers anything, so that one bad input harms nobody else; one that broke off says nothing: it is started anew.
    """
    if isinstance(failed.error, InvalidRequest) or failed.status == TOO_MANY:
        return True
    if ours and failed.status not in (0, UNAVAILABLE):
        return True
    if ours and failed.status == 0 and failed.reached and not isinstance(failed.error, UpstreamTimeout):
        return None
    return False if isinstance(failed.error, UpstreamFailed) or failed.status else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a server asks us to wait; None if it doesn't, or not in a way that can be read.

    `Retry-After` is seconds or a date (RFC 9110, 10.2.3); a date is taken against the server's own `Date`, so that our
    clock doesn't matter. Azure's and OpenAI's `retry-after-ms` is more exact and comes first.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        at, sent = (parsedate_to_datetime(headers[name]) for name in ("retry-after", "date"))
        return max((at - sent).total_seconds(), 0.0)
    except (KeyError, ValueError, TypeError):
        return None


def _no_answer(failed: CallFailed) -> bool:
    return failed.status == 0 and not isinstance(failed.error, Garbage)
