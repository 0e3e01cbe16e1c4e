"""What the log holds: the intent before a call, the outcome after it, the feedback that comes later."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from noria.domain.endpoint import Role


class OutcomeKind(StrEnum):
    """How a request ended. Every request ends in exactly one of these."""

    ANSWERED = "answered"
    REJECTED = "rejected"
    """The request was the caller's mistake, found by us or by the model."""
    FAILED = "failed"
    """The model server failed, or answered garbage."""
    TIMED_OUT = "timed_out"
    DISCONNECTED = "disconnected"
    """The caller left before the last byte."""
    INTERRUPTED = "interrupted"
    """The process that held the request died; found by its successor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A request that is about to be sent to a model; on disk before the model is called.

    Attributes:
        request_id: Noria's own id, 32 hex digits, sorted by time.
        endpoint: Endpoint asked for.
        model: Registered model that was picked.
        version: Its version.
        role: Role of the target that was picked.
        received_us: When the request arrived, microseconds since the epoch.
        request: The body as received, redacted, UTF-8 JSON.
        client_request_id: The caller's own id for it, if any.
        requester: Who asked: a key's name, or `local`.
        metadata: What the caller said about the request (groups, conversation, user).
        shadow_of: The request that this one copies, if it is a shadow's.
        policy_hash: Policy in force.
        errors: Why anything in this record isn't as it was sent (`logging_error_codes`).
        trace_id: W3C trace that the request belongs to, 32 hex digits.
        span_id: Noria's span in it, 16 hex digits.
        parent_span_id: The caller's span, empty if he has none.
        sampled: Whether the trace is kept by those who collect it.
    """

    request_id: str
    endpoint: str
    model: str
    version: str
    role: Role
    received_us: int
    request: bytes
    client_request_id: str = ""
    requester: str = "local"
    metadata: Mapping[str, str] = field(default_factory=dict)
    shadow_of: str = ""
    policy_hash: str = ""
    errors: tuple[str, ...] = ()
    trace_id: str = ""
    span_id: str = ""
    parent_span_id: str = ""
    sampled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a request ended; on disk before the caller has the last byte.

    Attributes:
        request_id: The intent's id.
        kind: How it ended.
        status: HTTP status given to the caller.
        finished_us: When, microseconds since the epoch.
        duration_us: From arrival to the last byte, microseconds.
        response: The body, redacted, UTF-8; a stream's body is the answer assembled from its chunks.
        ttft_us: From arrival to the first streamed chunk that held content, microseconds; None if not streamed.
        input_tokens: As the model server counted them.
        output_tokens: As the model server counted them.
        errors: Reasons, as codes.
        model: Who answered in the end, where it was another than the intent says (a fallback); else empty.
        version: Its version.
        tries: Requests that were sent to model servers for this answer.
        cache_hit: Whether the answer came from memory.
        cost_usd: What the tokens cost; None where no price is known.
    """

    request_id: str
    kind: OutcomeKind
    status: int
    finished_us: int
    duration_us: int
    response: bytes
    ttft_us: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    errors: tuple[str, ...] = ()
    model: str = ""
    version: str = ""
    tries: int = 0
    cache_hit: bool = False
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What somebody said about an answer, any time later. The id makes a repeat harmless.

    Attributes:
        feedback_id: Identity of this feedback.
        request_id: The answer it is about.
        endpoint: Endpoint that gave the answer.
        received_us: When it arrived, microseconds since the epoch.
        label: The right answer, for classifiers.
        score: Between 0 (bad) and 1 (good).
        comment: Free text, redacted.
        source: Who says so: `human`, `judge`, a system's name.
    """

    feedback_id: str
    request_id: str
    endpoint: str
    received_us: int
    label: str | None = None
    score: float | None = None
    comment: str | None = None
    source: str = "human"


Entry = Intent | Outcome | Feedback
"""What a spool keeps, in the order in which it happened."""
