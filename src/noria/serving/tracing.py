"""Which trace a request belongs to: the caller's if it sends one, else a new one (W3C Trace Context).

The API process does no more than this. Spans are made by the worker from the log (`adapters/telemetry`), so a trace
is as complete as the log is, and costs a request a few microseconds.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII
)
"""Version, trace, parent, flags, and what a later version may add."""
_LONGEST_STATE: Final = 512
"""Characters of a tracestate that have to be passed on; a longer one may be left out."""
_SAMPLED: Final = 1


@dataclass(slots=True)
class Trace:
    """Where a request stands in its trace.

    Attributes:
        trace_id: 32 hex digits.
        span_id: Noria's own span, 16 hex digits.
        parent_span_id: The caller's span; empty if the trace begins here.
        sampled: Whether the trace is kept by those who collect it.
        state: The header `tracestate` as it came; empty if there was none.
    """

    trace_id: str
    span_id: str
    parent_span_id: str = ""
    sampled: bool = True
    state: str = ""


def continue_trace(
    traceparent: str, tracestate: str = "", sample: float = 1.0, bits: Callable[[int], int] = random.getrandbits
) -> Trace:
    """The caller's trace with a new span, or a new trace if what the caller sent isn't one.

    Whether a new trace is kept depends on its id alone, in the way of OpenTelemetry's `TraceIdRatioBased`; in a trace
    that was begun elsewhere, whoever began it decides.

    Args:
        traceparent: The header; empty if there is none. A malformed one is ignored, as the specification says, and
            the tracestate with it.
        tracestate: The header.
        sample: Share of the traces begun here that are kept.
        bits: Random numbers of that many bits.
    """
    span_id = f"{bits(64) or 1:016x}"
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if found is None or (found[1] == "00" and found[5] is not None):
        low = bits(64) or 1
        return Trace(f"{bits(64):016x}{low:016x}", span_id, sampled=low < sample * 2.0**64)
    fits = len(tracestate) <= _LONGEST_STATE and tracestate.isascii() and tracestate.isprintable()
    return Trace(found[2], span_id, found[3], bool(int(found[4], 16) & _SAMPLED), tracestate if fits else "")


def child_span(bits: Callable[[int], int] = random.getrandbits) -> str:
    """The id of one more span in a trace."""
    return f"{bits(64) or 1:016x}"


def traceparent(trace_id: str, span_id: str, sampled: bool) -> str:
    """The header that makes a span the parent of what is called."""
    return f"00-{trace_id}-{span_id}-0{int(sampled)}"
