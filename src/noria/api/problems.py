"""What a caller hears of an error: one table from the domain's errors to HTTP, and the two shapes they are told in."""

from typing import Any

import msgspec

from noria.domain import errors
from noria.domain.errors import NoriaError
from noria.serving.wires import Form


class NotFound(NoriaError):
    """Nothing has that address."""

    code = "not_found"


class MethodNotAllowed(NoriaError):
    """The address exists, but isn't asked like that."""

    code = "method_not_allowed"


class ForbiddenOrigin(NoriaError):
    """A page of another site, or a name that points here by trickery, made the browser ask."""

    code = "forbidden_origin"


class HeadersTooLarge(errors.InvalidRequest):
    """The request line and the headers are longer than is read."""

    code = "headers_too_large"


class RequestTimeout(NoriaError):
    """The headers or the body did not arrive in time."""

    code = "request_timeout"


STATUS: dict[type[NoriaError], int] = {
    errors.InvalidRequest: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    ForbiddenOrigin: 403,
    errors.UnknownEndpoint: 404,
    errors.UnknownAlert: 404,
    errors.UnknownSilence: 404,
    errors.UnknownTrace: 404,
    errors.UnknownModel: 404,
    NotFound: 404,
    MethodNotAllowed: 405,
    RequestTimeout: 408,
    errors.Refused: 409,
    errors.Conflict: 409,
    errors.RequestTooLarge: 413,
    HeadersTooLarge: 431,
    errors.UnsupportedMedia: 415,
    errors.RateLimited: 429,
    errors.UpstreamFailed: 502,
    errors.NotReady: 503,
    errors.Overloaded: 503,
    errors.CircuitOpen: 503,
    errors.LogUnavailable: 503,
    errors.UpstreamTimeout: 504,
}
"""Error → HTTP status. An error of a type that isn't here has its base's; 500 if none is."""
RETRY_AFTER_S = "1"
"""Header of every 503, in seconds."""
_OPENAI_CODES = {
    "unknown_endpoint": "model_not_found",
    "unauthenticated": "invalid_api_key",
    "forbidden": "insufficient_permissions",
    "rate_limited": "rate_limit_exceeded",
    "budget_exhausted": "insufficient_quota",
}
"""Our code → the one that OpenAI's clients know, where they know one."""


def status_of(error: NoriaError) -> int:
    """HTTP status of an error."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def explain(error: NoriaError, form: Form | None = None) -> tuple[int, bytes]:
    """HTTP status and JSON body for an error, in the shape that the clients of the request's form can read."""
    status = status_of(error)
    shape = _openai(error, status) if form is not None and form.names_its_endpoint else _ours(error)
    return status, msgspec.json.encode(shape)


def _ours(error: NoriaError) -> dict[str, str]:
    """MLflow's shape, with what to do beside it."""
    return {"error_code": error.code, "message": error.problem, "remedy": error.remedy}


def _openai(error: NoriaError, status: int) -> dict[str, Any]:
    """OpenAI's shape."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    if isinstance(error, errors.RateLimited):
        kind = error.limit
    code = _OPENAI_CODES.get(error.code, error.code)
    param = "model" if code == "model_not_found" else None
    return {"error": {"message": str(error), "type": kind, "param": param, "code": code}}
