"""What can go wrong, as types of the domain: each says what happened and what to do about it.

The API maps these to HTTP problems in one place (`api/problems.py`), the command line to an exit code.
"""

from typing import ClassVar

from noria.domain.limits import Standing


class NoriaError(Exception):
    """A failure that a person can act on.

    Args:
        problem: One sentence that says what is wrong, naming the thing concerned.
        remedy: One sentence that says what to do; empty only where nothing can be done.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem} {remedy}".strip())
        self.problem = problem
        self.remedy = remedy


class InvalidProject(NoriaError):
    """`noria.yaml` or a policy file can't be used as written."""

    code = "invalid_project"


class InvalidRequest(NoriaError):
    """The caller sent something that no model could answer."""

    code = "invalid_request"


class RequestTooLarge(InvalidRequest):
    """The body is longer than the endpoint accepts."""

    code = "request_too_large"


class UnsupportedMedia(InvalidRequest):
    """The content type or character set isn't one the wire knows."""

    code = "unsupported_media"


class Unauthenticated(NoriaError):
    """The caller has no API key, or none that is in force."""

    code = "unauthenticated"


class Forbidden(NoriaError):
    """The caller's API key isn't for this endpoint, or has no role for this."""

    code = "forbidden"


class RateLimited(NoriaError):
    """Too many requests or tokens in a minute, by this key or of this endpoint.

    Attributes:
        limit: Which limit: `requests`, `tokens` or `insufficient_quota`.
        retry_after_s: Until it would be let pass, seconds; 0 if it never would.
        standings: How the caller stands with his limits.
    """

    code = "rate_limited"

    def __init__(
        self,
        problem: str,
        remedy: str = "",
        *,
        limit: str = "requests",
        retry_after_s: float = 0.0,
        standings: tuple[Standing, ...] = (),
    ) -> None:
        super().__init__(problem, remedy)
        self.limit = limit
        self.retry_after_s = retry_after_s
        self.standings = standings


class BudgetExhausted(RateLimited):
    """The day's money is spent, by this key or on this endpoint."""

    code = "budget_exhausted"


class UnknownKey(NoriaError):
    """No API key has that name or id."""

    code = "unknown_key"


class UnknownAlert(NoriaError):
    """There is no alert of that name."""

    code = "unknown_alert"


class UnknownSilence(NoriaError):
    """There is no silence of that name."""

    code = "unknown_silence"


class UnknownTrace(NoriaError):
    """Nothing whose lineage could be told has that name."""

    code = "unknown_trace"


class UnknownEndpoint(NoriaError):
    """No endpoint of that name is in service."""

    code = "unknown_endpoint"


class NotReady(NoriaError):
    """The endpoint exists, but no version of it is ready to answer yet."""

    code = "not_ready"


class NoCredentials(NotReady):
    """What an upstream knows us by isn't there: an environment variable that isn't set, a token that nobody grants."""

    code = "no_credentials"


class UnknownUpstream(NotReady):
    """A version names an upstream that the project in service doesn't have."""

    code = "unknown_upstream"


class ForbiddenAddress(NotReady):
    """An upstream's name leads to an address that it may not have."""

    code = "forbidden_address"


class Overloaded(NoriaError):
    """More work waits than the process may hold; the caller should come back later."""

    code = "overloaded"


class CircuitOpen(NoriaError):
    """A version failed too often lately and is left alone for a while.

    Attributes:
        retry_after_s: When to come back, seconds from now.
    """

    code = "circuit_open"

    def __init__(self, problem: str, remedy: str = "", *, retry_after_s: int = 1) -> None:
        super().__init__(problem, remedy)
        self.retry_after_s = retry_after_s


class UpstreamFailed(NoriaError):
    """A model server answered with an error, garbage, or not at all.

    Attributes:
        sent: Whether the request may have reached it; where it has not, asking again is always safe.
    """

    code = "upstream_failed"

    def __init__(self, problem: str, remedy: str = "", *, sent: bool = True) -> None:
        super().__init__(problem, remedy)
        self.sent = sent


class UpstreamTimeout(UpstreamFailed):
    """A model server took longer than the endpoint allows."""

    code = "upstream_timeout"


class LogUnavailable(NoriaError):
    """The spool can't be written, so an answer could not be recorded and isn't given."""

    code = "log_unavailable"


class RedactionUnavailable(LogUnavailable):
    """Names could not be looked for in a body, so it can't be written down and the request isn't taken."""

    code = "redaction_unavailable"


class StorageCorrupted(NoriaError):
    """A file of Noria's own can't be read back as it was written."""

    code = "storage_corrupted"


class StateUnavailable(NoriaError):
    """The state store can't be reached or has no tables yet; what was read before stays valid."""

    code = "state_unavailable"


class AlreadyRunning(NoriaError):
    """Another process holds the lock that allows one of its kind per project."""

    code = "already_running"


class PortInUse(NoriaError):
    """The address to listen on is taken."""

    code = "port_in_use"


class MissingExtra(NoriaError):
    """A feature needs a package that isn't installed; the remedy names the extra."""

    code = "missing_extra"


class UnknownModel(NoriaError):
    """The registry holds no such model, version or alias."""

    code = "unknown_model"


class RegistryUnavailable(NoriaError):
    """MLflow can't be reached, or refused what it was asked."""

    code = "registry_unavailable"


class UntrustedArtifact(NoriaError):
    """A model file could run code when loaded and nobody has said that it is trusted."""

    code = "untrusted_artifact"


class InvalidData(NoriaError):
    """A dataset can't be trained or evaluated on; the sentence names the column or the rows."""

    code = "invalid_data"


class Refused(NoriaError):
    """A rule of the release forbids the change: no verdict, a failed gate, nothing to roll back to."""

    code = "refused"


class Conflict(NoriaError):
    """Somebody else changed the thing meanwhile, or it is already under way."""

    code = "conflict"


class NotDelivered(NoriaError):
    """A notifier could not tell anybody of an alert."""

    code = "not_delivered"


class Cancelled(NoriaError):
    """Somebody stopped what was under way; it is not done again."""

    code = "cancelled"
